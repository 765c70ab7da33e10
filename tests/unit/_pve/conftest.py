# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates, servers and clients for the tests of the API plane. fakepve brings the fixtures of its own name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Client, Endpoint
from fakepve.certs import make_cert
from unit._pve import servers

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy nor a CA bundle of the machine that the tests run on has a say."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The paths of a certificate for loopback, which is its own CA, and of its key."""
    certificate, key = make_cert(str(tmp_path_factory.mktemp("pki")), hosts=(servers.HOST,))[:2]
    return certificate, key


Serve = Callable[[servers.Handler], servers.Server]


@pytest.fixture
def serve(pki: tuple[str, str]) -> Iterator[Serve]:
    """Starts servers that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda handler: stack.enter_context(servers.serve(handler, *pki))


Connect = Callable[..., Client]


@pytest.fixture
def connect(pki: tuple[str, str]) -> Iterator[Connect]:
    """Makes clients of root@pam with the password ``secret``, which verify the certificate. They never really sleep."""
    with contextlib.ExitStack() as stack:

        def make(port: int, **options: object) -> Client:
            values: dict[str, object] = {"password": "secret", "validate_certs": True, "ca_path": pki[0]}
            if "token_id" in options:
                del values["password"]
            endpoint = Endpoint(host=servers.HOST, user="root@pam", port=port, **(values | options))  # type: ignore[arg-type]
            return stack.enter_context(Client(endpoint, sleep=lambda _seconds: None))

        yield make
