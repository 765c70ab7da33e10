# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that are measured against, each in a process of its own, so that they take no time of what is measured
but their share of the machine.

The lab does all that PVE does and takes its time for it. `Answers` says at once what the lab said before, so that
the client is what is measured.
"""

from __future__ import annotations

import multiprocessing
import shutil
import socketserver
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lab import Lab

TOKEN = "root@pam!test"
API = "/api2/json"
#: pveproxy closes a connection after so many requests.
REQUESTS_PER_CONNECTION = 100


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the secret of root@pam's token."""

    host: str
    port: int
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """What diskwright.proxmox and community.proxmox read."""
        user, _, token = TOKEN.partition("!")
        return {
            "PROXMOX_HOST": self.host,
            "PROXMOX_PORT": str(self.port),
            "PROXMOX_USER": user,
            "PROXMOX_TOKEN_ID": token,
            "PROXMOX_TOKEN_SECRET": self.secret,
            "PROXMOX_VALIDATE_CERTS": "false",
        }

    @property
    def headers(self) -> dict[str, str]:
        """What a bare client sends."""
        return {"Authorization": f"PVEAPIToken={TOKEN}={self.secret}"}


@dataclass(frozen=True)
class Asked:
    """One request that the lab answered."""

    method: str
    path: str
    query: str


class _Process:
    """A process that serves until it is told to stop, and answers questions about itself meanwhile."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=target, args=(other, *arguments), daemon=True)
        self._process.start()
        other.close()
        self.address: Address = self._pipe.recv()

    def ask(self, question: str) -> Any:
        """The answer of the process."""
        self._pipe.send(question)
        return self._pipe.recv()

    def stop(self) -> None:
        """Ends the process."""
        self._pipe.send("stop")
        self._process.join(30)
        self._process.kill()


class LabServer(_Process):
    """A lab.

    :param task_seconds: how long a task that changes a configuration takes at least.
    """

    def __init__(self, seed: Mapping[str, Any], task_seconds: float = 0) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="diskwright-bench-"))
        super().__init__(_serve_lab, self._folder, seed, task_seconds)
        self.certificate = self._folder / "lab.crt"
        self.key = self._folder / "lab.key"

    def asked(self) -> list[Asked]:
        """The requests since the last time that this was asked."""
        requests: list[Asked] = self.ask("asked")
        return requests

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serve_lab(pipe: Connection, folder: Path, seed: Mapping[str, Any], task_seconds: float) -> None:
    with Lab(folder, seed=seed, time_scale=1) as lab:
        lab.faults.task_seconds["qmconfig"] = task_seconds
        pipe.send(Address(lab.host, lab.port, lab.token(TOKEN)))
        while pipe.recv() != "stop":
            requests = [Asked(one.method, one.path, _query(one.params)) for one in lab.requests]
            lab.requests.clear()
            pipe.send(requests)


def _query(parameters: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(parameters.items()))


class AnswerServer(_Process):
    """A plain threaded HTTPS server that answers GETs at once.

    :param answers: the body for each path, with its query.
    :param lab: where the answers and the certificate come from; its token is what clients send, and is not checked.
    """

    def __init__(self, answers: Mapping[str, bytes], lab: LabServer) -> None:
        super().__init__(_serve_answers, dict(answers), lab.certificate, lab.key, lab.address.secret)

    def asked(self) -> int:
        """How many requests came since the last time that this was asked."""
        count: int = self.ask("asked")
        return count


class _Handler(socketserver.StreamRequestHandler):
    """Reads no more of a request than it takes to find its answer."""

    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for served in range(1, REQUESTS_PER_CONNECTION + 1):
            request = self.rfile.readline().split()
            if len(request) != 3:
                return
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            last = b"Connection: close\r\n" if served == REQUESTS_PER_CONNECTION else b""
            self.server.count += 1  # as good as exact: the interpreter seldom switches threads in between
            self.wfile.write(self.server.answer(request[1].decode(), last))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    count = 0

    def __init__(self, answers: Mapping[str, bytes], context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._answers = answers
        self._context = context

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def answer(self, path: str, extra: bytes) -> bytes:
        body = self._answers.get(path)
        status = b"200 OK" if body is not None else b"501 not recorded"
        body = body if body is not None else b'{"data":null}'
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
        return head % (status, extra, len(body)) + body


def _serve_answers(pipe: Connection, answers: Mapping[str, bytes], certificate: Path, key: Path, secret: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _Server(answers, context) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        pipe.send(Address(str(host), int(port), secret))
        while pipe.recv() != "stop":
            count, server.count = server.count, 0
            pipe.send(count)
        server.shutdown()
