# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Requests over kept-alive connections of ``http.client``, shared by threads; proxies and TLS as requests has them.

requests is imported where it is needed: that takes longer than a small module's work, and not every run gets there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import typing as t
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .._core.errors import DiskwrightError
from .api_errors import ApiError, ConnectionFailedError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .endpoint import Endpoint

    Body = t.Union[bytes, Iterable[bytes], None]  # noqa: UP007 - ansible-test's pylint refuses | at run time

_CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    reason: str
    content: bytes
    opened: bool  # the connection was opened for it

    def data(self, method: str, path: str) -> t.Any:
        try:
            document = json.loads(self.content) if self.content else {}
        except (ValueError, RecursionError):
            document = None
        if 200 <= self.status < 300:
            if isinstance(document, dict) and "data" in document:
                return document["data"]
            raise ApiError(method, path, self.status, "the answer is not PVE's: is api_host a PVE node, and the port?")
        known = document if isinstance(document, dict) else {}
        errors = known.get("errors")
        raise ApiError(
            method,
            path,
            self.status,
            str(known.get("message") or self.reason),
            {str(name): str(text) for name, text in errors.items()} if isinstance(errors, dict) else None,
        )


_CHUNK = 1 << 20


def multipart(
    fields: Mapping[str, object], filename: str, source: t.BinaryIO, size: int
) -> tuple[dict[str, str], Iterator[bytes]]:
    """The headers and the body of an upload, read from ``source`` while it is sent.

    :param fields: what goes before the file, in this order.
    """
    boundary = secrets.token_hex(16)
    part = f"--{boundary}\r\nContent-Disposition: form-data; name="
    quoted = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    head += f'{part}"filename"; filename="{quoted}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    start, end = head.encode(), f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield start
        while chunk := source.read(_CHUNK):
            yield chunk
        yield end

    length = len(start) + size + len(end)
    return {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}, body()


class Lines:
    """The kept-alive connections: as many as there are requests at the same time, shared by all threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.verify, proxy = _environment(endpoint)
        self._context = _tls_context(endpoint, self.verify)
        self._proxy = _Proxy.parse(proxy) if proxy else None
        self._idle: deque[http.client.HTTPSConnection] = deque()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def send(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, fresh: bool) -> Answer:
        """The answer, whatever its status.

        :param fresh: whether to open a connection for it.
        :raises ConnectionFailedError: nothing was sent.
        :raises ApiError: something may have been sent, and no answer came.
        """
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._new()
        opened = fresh or line.sock is None
        if opened:
            self._open(line, method, path)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                line.request(method, f"/api2/json{path}", body, dict(headers))
            # PVE may have answered (an upload that is not allowed) and hung up before it had read everything.
            response = line.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            line.close()
            raise ApiError(method, path, 0, self._broken(error)) from error
        except ValueError:  # http.client's text repeats the header, and with it the secret
            line.close()
            text = "nothing was sent, because a header can't carry the user's name or the credentials; check them"
            raise ConnectionFailedError(method, path, text, permanent=True) from None
        self._idle.append(line)
        return Answer(response.status, _unicode(response.reason), content, opened)

    def _new(self) -> http.client.HTTPSConnection:
        if self._proxy is None:
            return http.client.HTTPSConnection(self._endpoint.host, self._endpoint.port, context=self._context)
        line = http.client.HTTPSConnection(self._proxy.host, self._proxy.port, context=self._context)
        line.set_tunnel(self._endpoint.host, self._endpoint.port, dict(self._proxy.headers))
        return line

    def _open(self, line: http.client.HTTPSConnection, method: str, path: str) -> None:
        line.close()
        line.timeout = min(_CONNECT_TIMEOUT, self._endpoint.timeout)
        try:
            line.connect()
        except (OSError, http.client.HTTPException) as error:
            line.close()
            raise self.failed(error, method, path) from error
        line.sock.settimeout(self._endpoint.timeout)

    def _broken(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._endpoint.timeout:g} s"
        return f"the connection broke before the answer came ({error or type(error).__name__})"

    def failed(self, error: Exception, method: str, path: str) -> ConnectionFailedError:
        """What to tell the user when there is no connection."""
        via = f" through the proxy {self._proxy.host}:{self._proxy.port}" if self._proxy else ""
        problem, advice, permanent = _diagnosis(error)
        return ConnectionFailedError(
            method, path, f"no connection to {self._endpoint.address}{via}: {problem}; {advice}", permanent=permanent
        )


def _unicode(reason: str) -> str:
    """The reason phrase: PVE sends UTF-8, http.client decodes it as Latin-1."""
    return reason.encode("latin-1", "replace").decode("utf-8", "replace")


def _diagnosis(error: Exception) -> tuple[str, str, bool]:
    """What went wrong, what to check, and whether it will go wrong again."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate does not verify ({cause.verify_message or cause})",
                "give the CA with ca_path (a PVE node's own is /etc/pve/pve-root-ca.pem) or, where nobody can come "
                "in between, set validate_certs to false",
                True,
            )
        if isinstance(cause, socket.gaierror):
            return f"the name cannot be resolved ({cause.strerror})", "check api_host", cause.errno == socket.EAI_NONAME
        if isinstance(cause, ssl.SSLError):
            return f"no TLS ({cause.reason or cause})", "check that pveproxy listens on that port", False
    for cause in causes:
        if isinstance(cause, TimeoutError):
            return "no answer", "check api_host, api_port and the firewall in between", False
        if isinstance(cause, OSError) and (cause.strerror or "Tunnel" in str(cause)):
            return str(cause.strerror or cause), "check api_host, api_port, and that pveproxy runs there", False
    return type(error).__name__, "check api_host and api_port", False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: requests and urllib3 keep the real reason in different places."""
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or one in seen:
            continue
        seen.append(one)
        yield one
        todo += [one.__cause__, one.__context__, getattr(one, "reason", None), getattr(one, "original_error", None)]
        todo += one.args


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> _Proxy:
        from requests.adapters import HTTPAdapter

        url = url if "://" in url else f"http://{url}"
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise DiskwrightError(
                f"the proxy for the PVE API is a {parts.scheme} proxy: only http:// ones work here; "
                "change https_proxy, or name the node in no_proxy"
            )
        return cls(parts.hostname, parts.port or 80, HTTPAdapter().proxy_headers(url))


def _environment(endpoint: Endpoint) -> tuple[bool | str, str | None]:
    """What to verify certificates with, and the URL of the proxy, as requests reads them from the environment."""
    import requests

    verify: bool | str = endpoint.validate_certs
    if endpoint.validate_certs and endpoint.ca_path:
        verify = endpoint.ca_path
    url = f"https://{endpoint.address}/"
    settings: dict[str, t.Any] = dict(requests.Session().merge_environment_settings(url, {}, None, verify, None))
    return settings["verify"], requests.utils.select_proxy(url, settings["proxies"])


def _tls_context(endpoint: Endpoint, verify: bool | str) -> ssl.SSLContext:
    """One context for all connections: loading the CA certificates costs more than a request."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    bundle = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one
        source = "ca_path" if bundle == endpoint.ca_path else "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
        raise DiskwrightError(f"{source}={bundle}: no CA certificates can be read there ({error})") from error
