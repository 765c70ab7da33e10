# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTPS server: fakepve's front door with the lab's handlers behind it.

Taken from fakepve: TLS, tickets, PVE's schema with its validation texts, the evaluation of permission rules, network
trouble and injected failures. Replaced: its guests, storages and tasks (drives there are strings), its table of users
(no roles there), and the catch-all that answers unknown calls with sample values: the lab says 501 instead, because
a made-up answer would hide a mistake.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web
from fakepve import FakePve, PveError
from fakepve.server import GENERIC

from lab import schema as pve_schema
from lab.api import ApiError, Call, Route
from lab.cluster import Cluster
from lab.faults import GATEWAY_TIMEOUT
from lab.storages import StorageError

API = "/api2/json"
SECRETS = frozenset({"password", "cipassword", "ticket", "new-password", "confirmation-password", "otp", "value"})
VOLUME = re.compile(r"(?P<content>/nodes/[^/]+/storage/[^/]+/content)/(?P<volume>.+)")
USER = web.RequestKey("lab-user", str)
PARAMS: web.RequestKey[dict[str, Any]] = web.RequestKey("lab-params", dict)


@dataclass(frozen=True)
class Request:
    """One entry of the request log: what a client asked and what it got."""

    method: str
    path: str
    """After `/api2/json`, decoded."""
    params: dict[str, Any]
    """Query or form, secrets replaced by `***`."""
    user: str | None
    status: int

    @property
    def writes(self) -> bool:
        """Whether the request could change anything."""
        return self.method != "GET"


class Unauthorized(Exception):
    """A 401 as PVE's proxy gives it: no body, after three seconds."""


def collect(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Form or query fields; a repeated one becomes a list."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            out[key] = [*out[key], value] if isinstance(out[key], list) else [out[key], value]
        else:
            out[key] = value
    return out


def _reason(text: str) -> str:
    return text.strip().split("\n")[0].encode("latin-1", "replace").decode("latin-1") or "error"


def refusal(message: str, status: int, errors: dict[str, str] | None = None, newline: bool = True) -> web.Response:
    """An error as PVE formats it."""
    body: dict[str, Any] = {"data": None, "message": message + ("\n" if newline else "")}
    if errors:
        body["errors"] = errors
    return web.json_response(body, status=status, reason=_reason(message))


def answer(data: Any, extra: dict[str, Any] | None = None) -> web.Response:
    """A 200. Handlers may give ready bytes."""
    body = data if isinstance(data, bytes) else json.dumps({"data": data, **(extra or {})}).encode()
    return web.Response(body=body, content_type="application/json", charset="utf-8")


class LabServer(FakePve):
    """One listener. `cluster` holds the state; `routes` is the lab's table of calls."""

    def __init__(self, cluster: Cluster, routes: list[Route], host: str, port: int) -> None:
        super().__init__(user="root@pam", host=host, port=port)
        self.cluster = cluster
        self.time_scale = cluster.clock.scale
        self.log: list[Request] = []
        self._late: set[asyncio.Future[web.StreamResponse]] = set()
        self._table = {(route.method, route.template): route for route in routes}
        for method, template in self._table:
            if method not in pve_schema.load().paths[template]:
                raise KeyError(f"{method} {template} is not in PVE's schema")
        self._pool = ThreadPoolExecutor(64, "lab-call")

    # ---- fakepve's hooks

    def _build_app(self) -> web.Application:
        app = web.Application(middlewares=[self._proxy, self._middleware])
        app.router.add_route("*", API + "/{tail:.*}", self._dispatch)
        return app

    def resolve(self, request: web.Request, prefix: str) -> Any:
        """fakepve's, but a volume's name is the whole rest of the path, slashes too (PVE's fragmentDelimiter)."""
        found = VOLUME.fullmatch(urllib.parse.unquote(request.rel_url.raw_path[len(prefix):]))
        if found is None:
            return super().resolve(request, prefix)
        match = pve_schema.load().match(f"{found['content']}/volume")
        match.params["volume"] = found["volume"]
        return match

    def _record(self, request: web.Request, body: bytes) -> None:
        """The lab logs requests with their answers, in _proxy."""

    async def _read_body(self, request: web.Request) -> bytes:
        if request.content_type == "multipart/form-data":
            return b""  # streamed to a file by _upload
        return bytes(await super()._read_body(request))

    def check_password(self, user: str, password: str) -> bool:
        """fakepve asks this for POST /access/ticket."""
        return self.cluster.access.password_fits(user, password)

    def allowed(self, user: str, path: str, priv: str) -> bool:
        """fakepve asks this when it evaluates a permission rule of the schema."""
        return self.cluster.access.allowed(user, path, priv)

    def check_permissions(self, user: str | None, perms: Any, values: Any, declared: Any = None) -> None:
        """The schema's rule; unlike in fakepve a token of root@pam with separated privileges is not root."""
        if user in (None, "root@pam") or (perms or {}).get("user") in ("all", "world"):
            return
        if perms and user.startswith("root@pam!") and self.cluster.access.all_powerful(user):
            return
        held, why = self._check(user, perms["check"], values, declared) if perms and "check" in perms else (
            False, "user != root@pam")
        if not held:
            raise ApiError(f"Permission check failed ({why})" if why else "Permission check failed", 403)

    def _authenticate(self, request: web.Request) -> str | None:
        if request.path == API + "/access/ticket":
            return None
        header = request.headers.get("Authorization", "")
        if header.startswith("PVEAPIToken="):
            tokenid, _, secret = header[len("PVEAPIToken="):].partition("=")
            if not self.cluster.access.secret_fits(tokenid, secret):
                raise Unauthorized("Authentication failed!")
            user: str = tokenid
        else:
            user = self._session(request)
        request[USER] = user
        return user

    def _session(self, request: web.Request) -> str:
        ticket = request.cookies.get("PVEAuthCookie")
        if not ticket:
            raise Unauthorized("No ticket")
        session = self.tickets.get(urllib.parse.unquote(ticket))
        if session is None or self.cluster.faults.expired:
            raise Unauthorized("permission denied - invalid PVE ticket")
        if request.method != "GET" and request.headers.get("CSRFPreventionToken") != session["csrf"]:
            raise Unauthorized("Permission denied - invalid csrf token")
        return str(session["user"])

    # ---- the way of a request

    @web.middleware
    async def _proxy(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """What pveproxy does around an answer: 401 without a body, 596 after 30 s, the log of requests."""
        path = request.path[len(API):]
        faults = self.cluster.faults
        seconds = faults.delay(request.method, path)
        try:
            if seconds >= GATEWAY_TIMEOUT:
                response = await self._too_late(request, handler, seconds)
            else:
                response = await self._delayed(request, handler, seconds)
        except Unauthorized as refused:
            await asyncio.sleep(3 * self.time_scale)
            response = web.Response(status=401, reason=str(refused))
        self.log.append(Request(request.method, path, request.get(PARAMS, {}), request.get(USER),
                                response.status))
        if faults.loses(request.method, path) and request.transport is not None:
            request.transport.close()
        return response

    async def _too_late(self, request: web.Request, handler: Any, seconds: float) -> web.StreamResponse:
        await self._read_body(request)  # it is gone when the answer is out
        work = asyncio.ensure_future(self._delayed(request, handler, seconds))
        self._late.add(work)
        work.add_done_callback(self._late.discard)
        await asyncio.sleep(GATEWAY_TIMEOUT * self.time_scale)
        return web.Response(status=596, reason="Connection timed out")

    async def finish_late(self) -> None:
        """Waits for the work whose answers came too late."""
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _delayed(self, request: web.Request, handler: Any, seconds: float) -> web.StreamResponse:
        if seconds:
            await asyncio.sleep(seconds * self.time_scale)
        response: web.StreamResponse = await handler(request)
        return response

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path[len(API):]
        match = request[GENERIC]
        route = self._table.get((request.method, match.template)) if match else None
        user = request.get(USER)
        if match is not None and (request.method, match.template) == ("POST", "/access/ticket"):
            return await self._login(request, match)
        if match is None or route is None:
            return refusal(f"Method '{request.method} {path}' not implemented", 501, newline=False)
        call = Call(self.cluster, request.method, match.template, {}, user)
        try:
            values = await self._parameters(request, match, call)
            return await self._run(route, match, call, values)
        except (ApiError, StorageError, PveError) as error:
            if error.status == 596:
                return web.Response(status=596, reason=error.message)
            if error.status in (400, 403) and call.template.endswith("/upload") and not error.errors:
                return web.Response(status=error.status, reason=_reason(error.message))
            return refusal(error.message.rstrip("\n"), error.status, error.errors)
        finally:
            if call.upload is not None:
                call.upload.unlink(missing_ok=True)

    async def _run(self, route: Route, match: Any, call: Call, values: dict[str, Any]) -> web.Response:
        self._prepare(route, match, call, values)
        try:
            if route.quick:
                data = route.handler(call)
            else:
                data = await asyncio.get_running_loop().run_in_executor(self._pool, route.handler, call)
        except (ApiError, StorageError, PveError):
            raise
        except Exception as error:
            self.cluster.crash(error)
            raise
        return answer(data, call.extra)

    def _prepare(self, route: Route, match: Any, call: Call, values: dict[str, Any]) -> None:
        """Node, permission rule, parameters: the order of pveproxy and pvedaemon."""
        info = match.methods[call.method]
        declared = (info.get("parameters") or {}).get("properties", {})
        node = match.params.get("node")
        if node is not None and node not in self.cluster.nodes:
            raise ApiError(f"hostname lookup '{node}' failed - failed to get address info for: {node}: "
                           "Name or service not known")
        call.values = {**values, **match.params}
        self.check_permissions(call.user, info.get("permissions"), call.values, declared)
        if route.early:
            route.early(call)
        checked, errors = pve_schema.validate(info.get("parameters"), {
            **values, **{k: v for k, v in match.params.items() if k in declared}})
        if errors:
            raise ApiError("Parameter verification failed.", 400, errors)
        call.values = {**match.params, **checked}

    async def _parameters(self, request: web.Request, match: Any, call: Call) -> dict[str, Any]:
        """Query, form, JSON or multipart, as one dict; noted for the log without secrets."""
        values = collect(list(request.query.items()))
        if request.content_type == "multipart/form-data":
            values |= await self._upload(request, call)
        elif body := await request.read():
            if request.content_type == "application/json":
                values |= json.loads(body)
            else:
                values |= collect(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        request[PARAMS] = {k: "***" if k in SECRETS else v for k, v in values.items()}
        return values

    async def _upload(self, request: web.Request, call: Call) -> dict[str, Any]:
        """Streams the file of a multipart form into the state folder."""
        values: dict[str, Any] = {}
        folder = self.cluster.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        reader = await request.multipart()
        while isinstance(part := await reader.next(), BodyPartReader):
            name = str(part.name)
            call.fields.append(name)
            if part.filename is None:
                values[name] = (await part.read()).decode()
                continue
            with tempfile.NamedTemporaryFile(dir=folder, prefix="pveupload-", delete=False) as out:
                call.upload = Path(out.name)
                while chunk := await part.read_chunk(1 << 20):
                    out.write(chunk)
            values["filename"] = part.filename
        return values

    async def _login(self, request: web.Request, match: Any) -> web.Response:
        """POST /access/ticket, with fakepve's tickets."""
        values = collect(urllib.parse.parse_qsl((await request.read()).decode(), keep_blank_values=True))
        request[PARAMS] = {k: "***" if k in SECRETS else v for k, v in values.items()}
        checked, errors = pve_schema.validate(match.methods["POST"].get("parameters"), values)
        if errors:
            return refusal("Parameter verification failed.", 400, errors)
        user = str(checked["username"])
        user = user if "@" in user else f"{user}@{checked.get('realm', 'pam')}"
        renewed = self.tickets.get(str(checked["password"]), {}).get("user") == user
        if not renewed and not self.check_password(user, str(checked["password"])):
            await asyncio.sleep(3 * self.time_scale)
            return refusal("authentication failure", 401)
        ticket, csrf = self.issue_ticket(user)
        return answer({"ticket": ticket, "CSRFPreventionToken": csrf, "username": user, "cap": {}})

    def requests_of(self, pattern: str = "", writes: bool = False) -> list[Request]:
        """The logged requests whose path matches the regular expression, oldest first."""
        return [r for r in self.log if re.search(pattern, r.path) and (r.writes or not writes)]
