# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against real servers: what it sends, how often, over how many connections, and what it says of errors."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
import traceback
from collections import Counter

import proxmoxer.backends.https
import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve import transport
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import (
    ApiError,
    AuthenticationError,
    Client,
    ConnectionFailedError,
    Endpoint,
    path,
)
from fakepve import FakePve
from unit._pve.conftest import Connect, Serve
from unit._pve.servers import HOST, HangUp, Reply, Request, proxy
from unit._pve.servers import serve as serving

# proxmoxer turns this warning off for those who do not verify certificates; pytest turns it on again.
pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

CONFIG = path("nodes", "pve1", "qemu", 100, "config")
# Tracebacks show source lines, so that none of these may stand in a test itself.
SECRET = "wr0ng-p4ss"
PROXY_SECRET = "pr0xy-p4ss"
EVERY_METHOD = ("get", "post", "put", "delete")
WRITES = ("post", "put", "delete")


def echo(request: Request) -> Reply:
    return Reply(request.path)


# What is sent


def test_parts_of_a_path_are_quoted() -> None:
    assert path("nodes", "pve1", "qemu", 100, "config") == "/nodes/pve1/qemu/100/config"
    assert path("storage", "a/b", "content", "local:iso/ä b.iso") == "/storage/a%2Fb/content/local:iso%2F%C3%A4%20b.iso"
    upid = "UPID:pve1:0001:0002:0003:qmmove:100-unused0>101-scsi1:root@pam!t:"
    assert path("tasks", upid) == "/tasks/UPID:pve1:0001:0002:0003:qmmove:100-unused0%3E101-scsi1:root@pam!t:"
    assert path("nodes", full=True, vmid=None, content="images") == "/nodes?full=1&content=images"


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_parameters(method: str, serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    params = {"onboot": True, "ro": False, "name": "größe ≥ 1", "command": ["sh", "-c"], "none": None, "cores": 2}
    getattr(connect(server.port), method)("/x", params)
    (request,) = server.requests
    encoded = "onboot=1&ro=0&name=gr%C3%B6%C3%9Fe+%E2%89%A5+1&command=sh&command=-c&cores=2"
    if method in ("get", "delete"):
        assert (request.path, request.body) == (f"/x?{encoded}", b"")
    else:
        assert (request.path, request.body) == ("/x", encoded.encode())
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_parameters_join_those_of_the_path(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    assert connect(server.port).get(path("x", a=1), {"b": 2}) == "/x?a=1&b=2"


def test_upload(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply("UPID:…"))
    content = bytes(range(256)) * 10000
    fields = {"content": "iso", "checksum-algorithm": "sha256", "checksum": "00"}
    answer = connect(server.port).upload("/up", fields, 'a "b".iso', io.BytesIO(content), len(content))
    assert answer == "UPID:…"
    (request,) = server.of("POST")
    boundary = request.headers["Content-Type"].removeprefix("multipart/form-data; boundary=")
    parts = request.body.split(f"--{boundary}".encode())
    assert [part.split(b"\r\n")[1] for part in parts[1:-1]] == [
        b'Content-Disposition: form-data; name="content"',
        b'Content-Disposition: form-data; name="checksum-algorithm"',
        b'Content-Disposition: form-data; name="checksum"',
        b'Content-Disposition: form-data; name="filename"; filename="a %22b%22.iso"',
    ]
    assert parts[4].split(b"\r\n\r\n", 1)[1] == content + b"\r\n"
    assert parts[5] == b"--\r\n"


# Who asks


def test_password(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    client = connect(server.port)
    for method in EVERY_METHOD:
        getattr(client, method)("/x")
    assert server.logins == ["secret"]
    assert {request.ticket for request in server.requests} == {"PVE:root@pam:00000001::sig"}
    csrf = {request.method: request.headers.get("CSRFPreventionToken") for request in server.requests}
    assert csrf == {"GET": None, "POST": "csrf-1", "PUT": "csrf-1", "DELETE": "csrf-1"}
    assert client.calls == Counter(login=1, GET=1, POST=1, PUT=1, DELETE=1)


def test_token(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    client = connect(server.port, token_id="disks", token_secret="t0ken-secret")
    client.get("/x")
    client.put("/x")
    assert server.logins == []
    assert {request.headers["Authorization"] for request in server.requests} == {
        "PVEAPIToken=root@pam!disks=t0ken-secret"
    }
    assert client.calls == Counter(GET=1, PUT=1)


def test_fakepve_takes_both(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> None:
    fakepve.add_vm(100, "vm1")
    fakepve.apitokens["root@pam!disks"] = "t0ken-secret"
    for options in ({"password": "secret"}, {"token_id": "disks", "token_secret": "t0ken-secret"}):
        client = connect(fakepve.port, ca_path=fakepve_cafile, **options)
        client.put(CONFIG, {"name": "vm2", "onboot": True})
        assert client.get(CONFIG)["name"] == "vm2"


def test_one_login_and_few_connections_for_many_workers(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    client = connect(server.port)
    paths = [path("nodes", number) for number in range(300)]
    assert client.get_many(paths, workers=8) == paths
    assert client.get_many(paths, workers=8) == paths
    assert server.logins == ["secret"]
    assert server.accepted <= 1 + 8  # the login has a connection of its own
    assert client.calls["GET"] == 600


def test_writes_from_many_threads_share_the_login(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    client = connect(server.port)
    threads = [threading.Thread(target=client.put, args=(path("x", number),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 20
    assert server.logins == ["secret"]


def test_ticket_is_renewed_before_it_runs_out(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(echo)
    client = connect(server.port)
    assert 0 < proxmoxer.backends.https.ProxmoxHTTPAuth.renew_age < 7200
    monkeypatch.setattr(proxmoxer.backends.https.ProxmoxHTTPAuth, "renew_age", 0)
    client.get("/x")
    client.put("/x")
    assert server.logins == ["secret", "PVE:root@pam:00000001::sig", "PVE:root@pam:00000002::sig"]
    assert [request.ticket[13:21] for request in server.requests] == ["00000002", "00000003"]
    assert server.requests[-1].headers["CSRFPreventionToken"] == "csrf-3"


def test_ticket_that_ran_out_before_its_renewal(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(echo)
    server.accepts_tickets_as_passwords = False
    client = connect(server.port)
    first = f"{1:08X}"
    monkeypatch.setattr(
        proxmoxer.backends.https.ProxmoxHTTPAuth,
        "renew_age",
        property(lambda auth: 0 if first in auth.get_tokens()[0] else 3600),
    )
    client.get("/x")
    client.put("/x")
    assert server.logins == ["secret", "PVE:root@pam:00000001::sig", "secret"]
    assert {request.ticket[13:21] for request in server.requests} == {"00000003"}


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_ticket_that_is_refused_meanwhile(method: str, serve: Serve, connect: Connect) -> None:
    def handler(request: Request) -> Reply:
        if "00000001" in request.ticket:
            return Reply(status=401, reason="permission denied - invalid PVE ticket")
        return echo(request)

    server = serve(handler)
    assert getattr(connect(server.port), method)("/x") == "/x"
    assert server.logins == ["secret", "secret"]
    assert [request.ticket[13:21] for request in server.requests] == ["00000001", "00000002"]


def test_refused_ticket_means_one_login_for_all_threads(
    fakepve: FakePve, connect: Connect, fakepve_cafile: str
) -> None:
    for vmid in range(100, 140):
        fakepve.add_vm(vmid, f"vm{vmid}")
    client = connect(fakepve.port, ca_path=fakepve_cafile)
    fakepve.revoke_tickets()
    configs = client.get_many([path("nodes", "pve1", "qemu", vmid, "config") for vmid in range(100, 140)], workers=8)
    assert [config["name"] for config in configs] == [f"vm{vmid}" for vmid in range(100, 140)]
    assert client.calls["login"] == 2


# Wrong credentials


def texts(error: BaseException) -> str:
    """All that a user could get to see of an error."""
    chain = "".join(traceback.format_exception(error))
    return "\n".join([chain, str(error), repr(error), repr(vars(error))])


def test_wrong_password(serve: Serve, connect: Connect) -> None:
    with pytest.raises(AuthenticationError, match=r"root@pam.*api_user.*api_password") as refusal:
        connect(serve(echo).port, password=SECRET)
    assert refusal.value.status == 401
    assert SECRET not in texts(refusal.value)


def test_wrong_token(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> None:
    client = connect(fakepve.port, ca_path=fakepve_cafile, token_id="disks", token_secret=SECRET)
    with pytest.raises(AuthenticationError, match=r"root@pam!disks.*api_token_secret") as refusal:
        client.get("/version")
    assert SECRET not in texts(refusal.value)
    assert len(fakepve.requests) == 1


def test_credentials_that_stop_working_are_reported_once(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply(status=401, reason="No ticket"))
    client = connect(server.port)
    with pytest.raises(AuthenticationError, match="No ticket"):
        client.get_many([path("x", number) for number in range(100)], workers=4)
    assert len(server.requests) <= 2 * 4


def test_second_factor_without_otp(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> None:
    fakepve.tfa = True
    with pytest.raises(AuthenticationError, match=r"second factor.*api_otp"):
        connect(fakepve.port, ca_path=fakepve_cafile)


# PVE's errors


def test_parameter_errors(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> None:
    fakepve.add_vm(100, "vm1")
    client = connect(fakepve.port, ca_path=fakepve_cafile)
    with pytest.raises(ApiError) as refusal:
        client.put(CONFIG, {"scsi1": "local-lvm:1,cache=bad", "bogus": SECRET})
    error = refusal.value
    assert (error.method, error.path, error.status, error.text) == (
        "PUT",
        CONFIG,
        400,
        "Parameter verification failed.",
    )
    assert set(error.errors) == {"scsi1", "bogus"}
    assert str(error).startswith(f"PUT {CONFIG}: 400 Parameter verification failed. bogus: property is not defined")
    assert "\n" not in str(error)
    assert SECRET not in texts(error)
    assert not error.lost


ERRORS = {
    "lock_timeout": (500, "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"),
    "digest_mismatch": (500, "checksum mismatch (file change by other user?)"),
    "missing": (500, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"),
    "forbidden": (403, "Permission check failed (/vms/100, VM.Config.Disk)"),
    "no_worker": (500, "got no worker upid - start worker failed"),
    "lost": (596, "Connection timed out"),
}
FURTHER_ERRORS = [
    ("digest_mismatch", 500, "detected modified configuration - file changed by other user? Try again."),
    ("digest_mismatch", 500, "VM 101: detected modified configuration - file changed by other user? Try again."),
    ("missing", 500, "unable to find configuration file for VM 999 on node 'pve1'"),
    ("missing", 500, "unable to create VM 999: Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"),
    (None, 500, "VM is locked (backup)"),
    (None, 500, "storage 'nosuch' does not exist"),
    (None, 595, "No route to host"),
    (None, 502, "Bad Gateway"),
]


@pytest.mark.parametrize(
    ("kind", "status", "text"), [*((kind, *answer) for kind, answer in ERRORS.items()), *FURTHER_ERRORS]
)
@pytest.mark.parametrize("method", WRITES)
def test_writes_say_what_happened_and_are_sent_once(
    method: str, kind: str | None, status: int, text: str, serve: Serve, connect: Connect
) -> None:
    body = f'{{"data": null, "message": "{text}\\n"}}'.encode() if status != 596 else b""
    server = serve(lambda _request: Reply(status=status, reason=text, raw=body))
    with pytest.raises(ApiError) as refusal:
        getattr(connect(server.port), method)("/x")
    error = refusal.value
    assert (error.status, error.text) == (status, text)
    assert {name for name in ERRORS if getattr(error, name)} == ({kind} if kind else set())
    assert ("may still be working on it" in str(error)) == (kind == "lost")
    assert len(server.requests) == 1


def test_message_in_the_reason_phrase_only(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply(status=500, reason="gr\xc3\xb6\xc3\x9fe fehlt", raw=b'{"data":null}'))
    with pytest.raises(ApiError) as refusal:
        connect(server.port).get("/x")
    assert refusal.value.text == "größe fehlt"


def test_something_else_listens_there(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply(raw=b"<html>It works!</html>"))
    with pytest.raises(ApiError, match="not PVE's"):
        connect(server.port).get("/x")


def test_get_many_keeps_the_order_and_what_failed(fakepve: FakePve, connect: Connect, fakepve_cafile: str) -> None:
    fakepve.add_vm(100, "vm1")
    fakepve.add_vm(102, "vm3")
    client = connect(fakepve.port, ca_path=fakepve_cafile)
    first, second, third = client.get_many([path("nodes", "pve1", "qemu", vmid, "config") for vmid in (100, 101, 102)])
    assert (first["name"], third["name"]) == ("vm1", "vm3")
    assert isinstance(second, ApiError)
    assert second.missing
    assert client.get_many([]) == []


# Connections that break


@pytest.mark.parametrize("status", [0, 502, 503, 595, 596])
def test_get_is_repeated(status: int, serve: Serve, connect: Connect) -> None:
    def handler(request: Request) -> Reply:
        if len(server.requests) > 2:
            return echo(request)
        if not status:
            raise HangUp
        return Reply(status=status, reason="bad moment", raw=b"")

    server = serve(handler)
    assert connect(server.port).get("/x") == "/x"
    assert len(server.requests) == 3


def test_get_gives_up(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply(status=596, reason="Connection timed out", raw=b""))
    with pytest.raises(ApiError, match="596 Connection timed out"):
        connect(server.port).get("/x")
    assert len(server.requests) == 6


def test_get_gives_up_at_its_deadline(serve: Serve) -> None:
    server = serve(lambda _request: Reply(status=596, reason="Connection timed out", raw=b""))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 10
        return now

    endpoint = Endpoint(HOST, "root@pam", server.port, password="secret")
    with Client(endpoint, clock=clock, sleep=lambda _seconds: None) as client, pytest.raises(ApiError, match="596"):
        client.get("/x")
    assert 1 < len(server.requests) < 6


def test_connections_that_end_after_a_hundred_requests(serve: Serve, connect: Connect) -> None:
    """As pveproxy does; here without a word, so that the next request finds the connection closed."""
    served: Counter[int] = Counter()

    def handler(request: Request) -> Reply:
        served[request.connection] += 1
        return Reply(request.path, vanish=served[request.connection] >= 100)

    server = serve(handler)
    client = connect(server.port)
    paths = [path("x", number) for number in range(450)]
    assert client.get_many(paths, workers=2) == paths
    for number in range(120):
        client.get(path("y", number))
        assert client.put(path("z", number)) == f"/z/{number}"
    assert len(server.of("PUT")) == 120
    assert max(served.values()) == 100


def test_repetition_does_not_meet_the_next_closed_connection(serve: Serve) -> None:
    """All connections ended while the client was busy elsewhere: one repetition is enough."""
    together = threading.Barrier(4)

    def handler(request: Request) -> Reply:
        if request.path.startswith("/x"):
            together.wait()
        return Reply(request.path, vanish=request.path.startswith("/x"))

    server = serve(handler)
    pauses: list[float] = []
    with Client(Endpoint(HOST, "root@pam", server.port, password="secret"), sleep=pauses.append) as client:
        client.get_many([path("x", number) for number in range(4)], workers=4)
        assert client.get("/y") == "/y"
    assert len(pauses) == 1


def test_connections_that_end_with_notice(serve: Serve, connect: Connect) -> None:
    server = serve(lambda request: Reply(request.path, close=True))
    client = connect(server.port)
    assert [client.get("/a"), client.post("/b"), client.get("/c")] == ["/a", "/b", "/c"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("method", WRITES)
def test_write_whose_answer_is_lost_is_not_repeated(method: str, serve: Serve, connect: Connect) -> None:
    def handler(_request: Request) -> Reply:
        raise HangUp

    server = serve(handler)
    with pytest.raises(ApiError, match="connection broke.*may still be working on it") as loss:
        getattr(connect(server.port), method)("/x", {"delete": SECRET})
    assert loss.value.lost
    assert loss.value.status == 0
    assert len(server.requests) == 1
    assert SECRET not in texts(loss.value)


def test_answer_that_takes_too_long(serve: Serve, connect: Connect) -> None:
    over = threading.Event()

    def handler(_request: Request) -> Reply:
        over.wait()
        return Reply()

    server = serve(handler)
    try:
        with pytest.raises(ApiError, match=r"no answer within 0\.3 s; PVE may still be working on it") as loss:
            connect(server.port, timeout=0.3).post("/x")
    finally:
        over.set()
    assert loss.value.lost
    assert len(server.requests) == 1


def test_answers_may_take_longer_than_connections(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_CONNECT_TIMEOUT", 1.0)
    never = threading.Event()

    def handler(request: Request) -> Reply:
        never.wait(1.5)
        return echo(request)

    assert connect(serve(handler).port).post("/x") == "/x"


def test_each_write_has_a_fresh_connection(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    client = connect(server.port)
    for _ in range(3):
        client.get("/x")
        client.put("/x")
    used = [request.connection for request in server.requests]
    assert used[1] == used[2]  # what follows a write goes on with its connection
    assert len({request.connection for request in server.of("PUT")}) == 3
    assert all(first != second for first, second in zip(used[::2], used[1::2], strict=True))


def test_upload_that_is_refused_before_it_is_read(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    server.refuses_uploads = Reply(status=403, reason="Permission check failed", raw=b"", close=True)
    size = 20_000_000
    with pytest.raises(ApiError, match="403 Permission check failed") as refusal:
        connect(server.port).upload("/up", {"content": "iso"}, "a.iso", io.BytesIO(bytes(size)), size)
    assert refusal.value.forbidden


# Connections that do not come about


def closed_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("options", [{}, {"token_id": "disks", "token_secret": "t0ken-secret"}])
def test_nobody_listens(options: dict[str, str], connect: Connect) -> None:
    with pytest.raises(ConnectionFailedError, match=r"Connection refused; check api_host, api_port") as failure:
        connect(closed_port(), **options).put("/x")
    assert not failure.value.lost


def test_write_is_repeated_while_nothing_was_sent(pki: tuple[str, str]) -> None:
    """A node whose pveproxy restarts: it comes back while the client waits."""
    port = closed_port()
    pauses: list[float] = []
    with contextlib.ExitStack() as stack:

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                stack.enter_context(serving(echo, *pki, port=port))

        endpoint = Endpoint(HOST, "root@pam", port, token_id="disks", token_secret="t0ken-secret")
        with Client(endpoint, sleep=sleep) as client:
            assert client.post("/x") == "/x"
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_unknown_name(connect: Connect) -> None:
    endpoint = Endpoint("no-such-host.invalid", "root@pam", token_id="disks", token_secret="x")
    with Client(endpoint) as client, pytest.raises(ConnectionFailedError, match="cannot be resolved.*check api_host"):
        client.get("/x")
    with pytest.raises(ConnectionFailedError, match="cannot be resolved.*check api_host"):
        Client(Endpoint("no-such-host.invalid", "root@pam", password="secret"))


@pytest.mark.parametrize("options", [{}, {"token_id": "disks", "token_secret": "t0ken-secret"}])
def test_certificate_of_an_unknown_ca(options: dict[str, str], serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    with pytest.raises(ConnectionFailedError, match=r"does not verify.*ca_path.*validate_certs") as failure:
        connect(server.port, ca_path=None, **options).get("/x")
    assert failure.value.permanent
    assert server.accepted == 1
    assert connect(server.port, ca_path=None, validate_certs=False, **options).get("/x") == "/x"


def test_ca_in_the_environment(
    serve: Serve, connect: Connect, pki: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", pki[0])
    assert connect(serve(echo).port, ca_path=None).get("/x") == "/x"


def test_ca_path_that_is_not_there(connect: Connect) -> None:
    with pytest.raises(DiskwrightError, match="ca_path=/no/such/file"):
        connect(1, ca_path="/no/such/file")


def test_proxmoxer_is_missing(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proxmoxer", None)
    with pytest.raises(DiskwrightError, match=r"proxmoxer is missing.*pip install"):
        connect(1)


def test_proxmoxer_is_too_old(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxmoxer, "__version__", "1.1.1")
    with pytest.raises(DiskwrightError, match=r"1\.1\.1 is too old"):
        connect(1)


# Proxies


def test_proxy_carries_everything(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(echo)
    with proxy() as between:
        monkeypatch.setenv("https_proxy", f"http://user:{PROXY_SECRET}@{HOST}:{between.port}")
        client = connect(server.port)
        assert [client.get("/a"), client.put("/b")] == ["/a", "/b"]
        assert client.get_many([path("x", number) for number in range(50)], workers=4)[-1] == "/x/49"
    assert between.targets == {f"{HOST}:{server.port}"}
    assert len(between.requests) == server.accepted
    assert all("Proxy-Authorization: Basic dXNlcjpwcjB4eS1wNHNz" in head for head in between.requests)
    assert all("Proxy-Authorization" not in request.headers for request in server.requests)


def test_no_proxy(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as between:
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{between.port}")
        monkeypatch.setenv("no_proxy", f"localhost,{HOST}")
        assert connect(serve(echo).port).get("/x") == "/x"
    assert between.requests == []


@pytest.mark.parametrize("options", [{}, {"token_id": "disks", "token_secret": "t0ken-secret"}])
def test_proxy_that_refuses(
    options: dict[str, str], serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(echo)
    with proxy("407 Proxy Authentication Required") as between:
        monkeypatch.setenv("https_proxy", f"http://user:{PROXY_SECRET}@{HOST}:{between.port}")
        with pytest.raises(ConnectionFailedError, match=f"through the proxy {HOST}:{between.port}.*407") as failure:
            connect(server.port, **options).put("/x")
    assert PROXY_SECRET not in texts(failure.value)
    assert server.accepted == 0


def test_proxy_of_another_kind(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"socks5://user:{PROXY_SECRET}@{HOST}:1080")
    with pytest.raises(DiskwrightError, match=r"socks5 proxy.*no_proxy") as refusal:
        connect(1)
    assert PROXY_SECRET not in texts(refusal.value)


def test_a_header_that_cannot_be_sent_shows_no_secret(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _request: Reply(data={}))
    client = connect(server.port, token_id="disks", token_secret="t0ken-secret\n")
    with pytest.raises(ConnectionFailedError, match="check them") as refusal:
        client.get("/version")
    assert "t0ken" not in "".join(traceback.format_exception(refusal.value))


def test_repr_of_a_client_shows_no_secret(serve: Serve, connect: Connect) -> None:
    client = connect(serve(echo).port)
    assert "root@pam" in repr(client)
    assert "secret" not in repr(client)
