# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers on loopback that do to a client what a network does: close, hang up, keep silent, stand in between."""

from __future__ import annotations

import contextlib
import http.server
import json
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qs

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode(), keep_blank_values=True)

    @property
    def ticket(self) -> str:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("PVEAuthCookie")
        return cookie.value if cookie else ""


@dataclass(frozen=True)
class Reply:
    data: object = None
    status: int = 200
    reason: str | None = None
    raw: bytes | None = None
    close: bool = False  # say that the connection ends here
    vanish: bool = False  # end it without saying so


class HangUp(Exception):
    """Raised by a handler: close the connection instead of answering."""


Handler = Callable[[Request], Reply]


@dataclass
class Server:
    """An HTTPS server that logs root@pam in with the password ``secret`` and leaves the rest to ``handler``."""

    handler: Handler
    requests: list[Request] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)  # the passwords
    accepted: int = 0
    port: int = 0
    accepts_tickets_as_passwords: bool = True
    refuses_uploads: Reply | None = None  # this is said before the file is read
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Reply:
        if request.path == "/access/ticket":
            return self._login(request.form["password"][0])
        with self.lock:
            self.requests.append(request)
        return self.handler(request)

    def _login(self, password: str) -> Reply:
        with self.lock:
            self.logins.append(password)
            number = len(self.logins)
        if password != "secret" and not (self.accepts_tickets_as_passwords and password.startswith("PVE:")):
            return Reply(status=401, reason="authentication failure")
        return Reply({"ticket": f"PVE:root@pam:{number:08X}::sig", "CSRFPreventionToken": f"csrf-{number}"})

    def of(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


def _handler_class(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class OneConnection(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with server.lock:
                server.accepted += 1
                self.number = server.accepted

        def respond(self) -> None:
            if server.refuses_uploads and "multipart" in self.headers.get("Content-Type", ""):
                self.send(server.refuses_uploads)
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix("/api2/json")
            try:
                reply = server.answer(Request(self.command, path, dict(self.headers), body, self.number))
            except HangUp:
                self.close_connection = True
                return
            self.send(reply)
            self.close_connection = self.close_connection or reply.vanish

        def send(self, reply: Reply) -> None:
            content = reply.raw if reply.raw is not None else json.dumps({"data": reply.data}).encode()
            self.send_response(reply.status, reply.reason)
            self.send_header("Content-Length", str(len(content)))
            if reply.close:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = respond

        def log_message(self, *_args: object) -> None:
            pass

    return OneConnection


@contextlib.contextmanager
def serve(handler: Handler, certificate: str, key: str, port: int = 0) -> Iterator[Server]:
    """A running :class:`Server`; the handler runs in the thread of its connection."""
    server = Server(handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    class Listener(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def get_request(self) -> tuple[ssl.SSLSocket, object]:
            connection, address = super().get_request()
            # The handshake happens in the connection's own thread, at the first read.
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, *_args: object) -> None:
            pass  # a client that does not trust the certificate, or went away

    with Listener((HOST, port), _handler_class(server)) as listener:
        server.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


@dataclass
class Proxy:
    """A proxy that knows CONNECT and nothing else. ``requests`` holds the head of each request that came."""

    port: int
    requests: list[str] = field(default_factory=list)

    @property
    def targets(self) -> set[str]:
        return {head.split()[1] for head in self.requests}


@contextlib.contextmanager
def proxy(status: str = "200 OK") -> Iterator[Proxy]:
    """A running :class:`Proxy` that answers each CONNECT with ``status``."""
    with socket.create_server((HOST, 0)) as listener:
        running = Proxy(listener.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_tunnel, args=(client, running, status), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield running
        listener.shutdown(socket.SHUT_RDWR)


def _tunnel(client: socket.socket, running: Proxy, status: str) -> None:
    with client, contextlib.suppress(OSError):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        running.requests.append(head.decode())
        client.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if not status.startswith("200"):
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for ready, _ in selector.select():
                    data = ready.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    ready.data.sendall(data)
