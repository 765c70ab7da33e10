# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The PVE API as four calls (get, post, put, delete) and one for bulk reads. The only code that knows proxmoxer.

proxmoxer logs in, renews tickets and knows how tokens and CSRF headers look. The requests themselves go beneath it,
over kept-alive connections of ``http.client``: proxmoxer costs about 1 ms of CPU a call (requests' sessions and
hooks; urllib3's pool still three times what ``http.client`` needs), and a requests session is not safe to share
between threads. With that in the way, more workers make the bulk reads of a large cluster slower instead of faster.

What may be sent twice is decided here, and only here:

* A GET may, so it is repeated when the connection breaks or a proxy in between (pveproxy included) has a bad moment.
* Anything else may be repeated only while nothing of it was sent. pveproxy closes a connection after 100 requests and
  when it was idle; a write that met such a closing could not be told from one that was carried out. So each write gets
  a connection of its own, and when that breaks, the error says that the work may go on (:attr:`ApiError.lost`).
* A 401 was not carried out by PVE, whatever the method: log in again, once, and repeat.
"""

from __future__ import annotations

import queue
import re
import threading
import time
import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from .._core.errors import DiskwrightError
from .api_errors import ApiError, AuthenticationError, ConnectionFailedError
from .endpoint import Endpoint
from .transport import Lines, multipart

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Params = Mapping[str, object]

__all__ = ["ApiError", "AuthenticationError", "Client", "ConnectionFailedError", "Endpoint", "path"]

# Pauses before each repetition of a GET, and when no further one begins. The first pause is none: the usual reason is
# a kept-alive connection that pveproxy had closed.
_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0)
_PATIENCE = 60.0
_UNAUTHORIZED = 401
_PROXMOXER = (1, 2)  # Debian 12's, and with it PVE 8's
_DEFAULT_WORKERS = 8
_MAX_WORKERS = 32
# What one node was measured to serve at most: more requests on their way than this times the round trip only queue up.
_NODE_REQUESTS_PER_SECOND = 1600


def path(*parts: object, **query: object) -> str:
    """The path of a call, each part quoted: ``path("nodes", "pve1", "qemu", 100, "config", current=True)``.

    UPIDs, users and volume ids stay readable where the URL syntax allows.
    """
    joined = "".join(f"/{quote(str(part), safe=':@!')}" for part in parts)
    encoded = _encode(query)
    return f"{joined}?{encoded}" if encoded else joined


def _encode(params: Params | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = value if isinstance(value, (list, tuple)) else (value,)
        pairs += [(name, _text(one)) for one in values if one is not None]
    return urlencode(pairs)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


class Client:
    """A connection to one PVE cluster, safe to use from many threads. Logs in once, when it is made.

    :ivar calls: how many calls were made, by method, and ``login`` for logins.
    :raises DiskwrightError: proxmoxer is missing.
    :raises AuthenticationError: PVE does not accept the password.
    :raises ConnectionFailedError: no connection (with a password; a token is not looked at before the first call).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._fastest = 0.0
        _require_proxmoxer()
        self._lines = Lines(endpoint)
        self._auth = _Auth(endpoint, self._lines, self._count)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r})"

    def close(self) -> None:
        """Close the idle connections. The client can be used again; it then opens new ones."""
        self._lines.close()

    def get(self, path: str, params: Params | None = None) -> t.Any:
        """The data of the answer. :raises ApiError: PVE's error, after the repetitions that are safe."""
        return self._call("GET", path, params)

    def post(self, path: str, params: Params | None = None) -> t.Any:
        """The data of the answer, often a UPID. :raises ApiError: see :attr:`ApiError.lost` before repeating."""
        return self._call("POST", path, params)

    def put(self, path: str, params: Params | None = None) -> t.Any:
        """As :meth:`post`."""
        return self._call("PUT", path, params)

    def delete(self, path: str, params: Params | None = None) -> t.Any:
        """As :meth:`post`; the parameters travel in the URL."""
        return self._call("DELETE", path, params)

    def call(self, method: str, path: str, params: Params | None = None) -> t.Any:
        """The call whose method is data: ``GET``, ``POST``, ``PUT`` or ``DELETE``."""
        return self._call(method, path, params)

    def upload(self, path: str, fields: Mapping[str, object], filename: str, source: t.BinaryIO, size: int) -> t.Any:
        """Send a file; the data of the answer is a UPID.

        :param fields: what PVE wants before the file, in this order: content, checksum-algorithm, checksum.
        :param size: how many bytes ``source`` gives from where it stands.
        """
        # A login that ran out must show before the file is on its way, for it cannot be sent again from here.
        self.get("/version")
        self._count("POST")
        headers, _generation = self._auth.headers("POST", path)
        more, body = multipart(fields, filename, source, size)
        answer = self._lines.send("POST", path, body, {**headers, **more}, fresh=True)
        if answer.status == _UNAUTHORIZED:
            raise self._auth.refused("POST", path, answer.reason)
        return answer.data("POST", path)

    def get_many(self, paths: Sequence[str], workers: int | None = None) -> list[t.Any]:
        """The data of each path, in order; an :class:`ApiError` stands where one failed.

        :param workers: how many at a time; by default 8, and more when the way to the node is long.
        :raises AuthenticationError, ConnectionFailedError: what would hit each of them is raised once.
        """
        count = min(workers or self._sensible_workers(), len(paths))
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(paths)):
            todo.put(index)
        results: list[t.Any] = [None] * len(paths)

        def work() -> None:
            for index in _drain(todo):
                try:
                    results[index] = self.get(paths[index])
                except (AuthenticationError, ConnectionFailedError):
                    raise
                except ApiError as error:
                    results[index] = error

        if count <= 1:
            work()
            return results
        with ThreadPoolExecutor(count) as pool:
            for job in [pool.submit(work) for _number in range(count)]:
                job.result()
        return results

    def _sensible_workers(self) -> int:
        in_flight = round(self._fastest * _NODE_REQUESTS_PER_SECOND)
        return min(_MAX_WORKERS, max(_DEFAULT_WORKERS, in_flight))

    def _count(self, what: str) -> None:
        with self._lock:
            self.calls[what] += 1

    def _call(self, method: str, path: str, params: Params | None) -> t.Any:
        self._count(method)
        encoded = _encode(params)
        body = None
        if method in ("GET", "DELETE"):
            if encoded:
                path = f"{path}{'&' if '?' in path else '?'}{encoded}"
        else:
            body = encoded.encode()
        give_up = self._clock() + _PATIENCE
        for pause in _PAUSES:
            try:
                return self._authenticated(method, path, body, fresh=method != "GET" or pause > 0)
            except ApiError as error:
                if not _repeatable(error) or self._clock() + pause > give_up:
                    raise
            self._sleep(pause)
        return self._authenticated(method, path, body, fresh=True)

    def _authenticated(self, method: str, path: str, body: bytes | None, *, fresh: bool) -> t.Any:
        headers, generation = self._auth.headers(method, path)
        started = self._clock()
        answer = self._lines.send(method, path, body, headers, fresh=fresh)
        if answer.status == _UNAUTHORIZED:
            headers = self._auth.again(method, path, generation, answer.reason)
            answer = self._lines.send(method, path, body, headers, fresh=True)
            if answer.status == _UNAUTHORIZED:
                raise self._auth.refused(method, path, answer.reason)
        elif method == "GET" and not answer.opened:
            took = self._clock() - started
            self._fastest = min(self._fastest or took, took)
        return answer.data(method, path)


def _repeatable(error: ApiError) -> bool:
    if isinstance(error, ConnectionFailedError):
        return not error.permanent  # nothing was sent, so any method will do
    return error.method == "GET" and error.unreachable


def _drain(todo: queue.SimpleQueue[int]) -> Iterator[int]:
    while True:
        try:
            yield todo.get_nowait()
        except queue.Empty:
            return


def _require_proxmoxer() -> None:
    try:
        # requests first: without it proxmoxer ends the process instead of raising.
        import proxmoxer
        import requests  # noqa: F401
    except ImportError as error:
        raise DiskwrightError(
            f"the Python library {error.name} is missing where this module runs; install proxmoxer (1.2 or newer) "
            "and requests, for example with 'pip install proxmoxer requests'"
        ) from error
    if tuple(int(number) for number in re.findall(r"\d+", proxmoxer.__version__)[:2]) < _PROXMOXER:
        raise DiskwrightError(f"proxmoxer {proxmoxer.__version__} is too old: this collection needs 1.2 or newer")


@dataclass(slots=True)
class _Outline:
    """As much of a request as proxmoxer's auth objects look at."""

    method: str
    headers: dict[str, str] = field(default_factory=dict)
    cert: object = None


class _Auth:
    """The headers that say who asks. One login for all threads; proxmoxer renews the ticket when it is an hour old."""

    def __init__(self, endpoint: Endpoint, lines: Lines, count: t.Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._lines = lines
        self._count = count
        self._lock = threading.Lock()
        self._generation = 0
        self._cookie: tuple[str | None, str] = (None, "")
        self._auth = self._log_in("POST", "/access/ticket")

    def _log_in(self, method: str, path: str) -> t.Any:
        from proxmoxer.backends.https import Backend

        end = self._endpoint
        credentials = {"token_name": end.token_id, "token_value": end.token_secret}
        if end.password:
            credentials = {"password": end.password, "otp": end.otp}
            self._count("login")
        options = {"user": end.user, "port": end.port, "verify_ssl": self._lines.verify, "timeout": end.timeout}
        host = f"[{end.host}]" if ":" in end.host else end.host
        return self._guarded(lambda: Backend(host, **options, **credentials).auth, method, path)

    def _guarded(self, function: t.Callable[[], t.Any], method: str, path: str) -> t.Any:
        """What the function returns, its errors as ours."""
        import requests
        from proxmoxer.backends.https import AuthenticationError as LoginError  # proxmoxer 1 has it nowhere else

        try:
            return function()
        except LoginError as error:
            found = re.search(r"code: (\d+)", str(error))
            status = int(found[1]) if found else _UNAUTHORIZED
            if status == _UNAUTHORIZED:
                reason = "a second factor is asked for" if "TFA" in str(error) else ""
                raise self.refused(method, path, reason) from error
            raise ApiError("POST", "/access/ticket", status, "the login was not answered") from error
        except requests.exceptions.JSONDecodeError as error:
            raise ApiError("POST", "/access/ticket", 200, "the answer is not PVE's: is api_host a PVE node?") from error
        except requests.exceptions.RequestException as error:
            raise self._lines.failed(error, method, path) from error

    def headers(self, method: str, path: str) -> tuple[dict[str, str], int]:
        """The headers for a request, and the generation of the login they come from."""
        with self._lock:
            return self._headers(method, path), self._generation

    def _headers(self, method: str, path: str) -> dict[str, str]:
        outline = _Outline(method)
        try:
            self._guarded(lambda: self._auth(outline), method, path)
        except AuthenticationError:
            # The ticket had run out before proxmoxer could renew it, for example on a laptop that slept.
            self._renew(method, path)
            self._auth(outline)
        ticket = self._auth.get_tokens()[0]
        if ticket:
            if self._cookie[0] != ticket:
                cookies = "; ".join(f"{name}={value}" for name, value in self._auth.get_cookies().items())
                self._cookie = (ticket, cookies)
            outline.headers["Cookie"] = self._cookie[1]
        if method in ("POST", "PUT"):
            outline.headers["Content-Type"] = "application/x-www-form-urlencoded"
        return outline.headers

    def again(self, method: str, path: str, generation: int, reason: str) -> dict[str, str]:
        """The headers after a 401: of a new login, made by the first thread that asks.

        :raises AuthenticationError: a token, which logging in does not mend; or the password is refused too.
        """
        if not self._endpoint.password:
            raise self.refused(method, path, reason)
        with self._lock:
            if generation == self._generation:
                self._renew(method, path)
            return self._headers(method, path)

    def _renew(self, method: str, path: str) -> None:
        self._auth = self._log_in(method, path)
        self._generation += 1

    def refused(self, method: str, path: str, reason: str) -> AuthenticationError:
        """The error for credentials that PVE does not take."""
        end = self._endpoint
        if end.password:
            who, check = end.user, "check api_user with its realm, api_password, and api_otp if the user has one"
        else:
            who = f"the token {end.user}!{end.token_id}"
            check = "check api_user, api_token_id and api_token_secret, and that the token has not expired"
        said = f" ({reason})" if reason else ""
        return AuthenticationError(method, path, _UNAUTHORIZED, f"{end.address} does not accept {who}{said}; {check}")
