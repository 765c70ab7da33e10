# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write as connection options, and what is made of it."""

from __future__ import annotations

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._pve.client import Endpoint

SECRETS = ("p4ssword", "t0ken-secret", "123456")


def endpoint(**options: object) -> Endpoint:
    base = {"api_host": "pve1", "api_user": "root@pam", "api_password": "p4ssword"}
    return Endpoint.from_options(base | options)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("pve1", None, ("pve1", 8006)),
        ("pve1", 443, ("pve1", 443)),
        ("pve1:443", None, ("pve1", 443)),
        ("pve1:443", 443, ("pve1", 443)),
        (" pve1 ", None, ("pve1", 8006)),
        ("https://pve1", None, ("pve1", 8006)),
        ("https://pve1:443/", None, ("pve1", 443)),
        ("192.0.2.1:8007", None, ("192.0.2.1", 8007)),
        ("2001:db8::1", None, ("2001:db8::1", 8006)),
        ("2001:db8::1", 443, ("2001:db8::1", 443)),
        ("[2001:db8::1]", None, ("2001:db8::1", 8006)),
        ("[2001:db8::1]:443", None, ("2001:db8::1", 443)),
        ("https://[2001:db8::1]:443", None, ("2001:db8::1", 443)),
    ],
)
def test_host(host: str, port: int | None, expected: tuple[str, int]) -> None:
    made = endpoint(api_host=host, api_port=port)
    assert (made.host, made.port) == expected


def test_address_is_what_stands_in_a_url() -> None:
    assert endpoint(api_host="pve1").address == "pve1:8006"
    assert endpoint(api_host="2001:db8::1").address == "[2001:db8::1]:8006"


@pytest.mark.parametrize(
    ("user", "token_id", "expected"),
    [
        ("ansible@pve", "disks", ("ansible@pve", "disks")),
        ("ansible@pve!disks", None, ("ansible@pve", "disks")),
        ("ansible@pve!disks", "disks", ("ansible@pve", "disks")),
        ("ansible@pve", "ansible@pve!disks", ("ansible@pve", "disks")),
        ("first.last@example.com@ldap", "disks", ("first.last@example.com@ldap", "disks")),
    ],
)
def test_token(user: str, token_id: str | None, expected: tuple[str, str]) -> None:
    made = endpoint(api_user=user, api_password=None, api_token_id=token_id, api_token_secret="t0ken-secret")
    assert (made.user, made.token_id) == expected
    assert made.token_secret == "t0ken-secret"
    assert made.password is None


def test_a_secret_that_was_read_from_a_file_ends_with_a_newline() -> None:
    made = endpoint(api_password=None, api_token_id="disks", api_token_secret="t0ken-secret\n")
    assert made.token_secret == "t0ken-secret"


@pytest.mark.parametrize("end", ["\r\nX: y", "\N{EURO SIGN}", " x", "\0"])
def test_a_secret_that_no_header_can_carry_is_refused_and_not_shown(end: str) -> None:
    with pytest.raises(DiskwrightError, match="api_token_secret holds") as refusal:
        endpoint(api_password=None, api_token_id="disks", api_token_secret=f"t0ken-secret{end}")
    assert "t0ken" not in str(refusal.value)


def test_password_goes_before_a_token() -> None:
    made = endpoint(api_token_id="disks", api_token_secret="t0ken-secret")
    assert (made.password, made.token_id, made.token_secret) == ("p4ssword", None, None)


def test_defaults() -> None:
    made = endpoint()
    assert (made.validate_certs, made.ca_path, made.timeout) == (False, None, 35)
    assert endpoint(api_timeout=5).timeout == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_host": ""}, ["api_host", "PROXMOX_HOST"]),
        ({"api_host": "http://pve1"}, ["https"]),
        ({"api_host": "pve1:x"}, ["api_host=pve1:x", "port"]),
        ({"api_host": "pve1/api2"}, ["api_host=pve1/api2"]),
        ({"api_host": "pve1:443", "api_port": 8006}, ["443", "8006"]),
        ({"api_host": "https://root:p4ssword@pve1"}, ["api_user", "api_password"]),
        ({"api_user": ""}, ["api_user", "PROXMOX_USER"]),
        ({"api_user": "root"}, ["api_user=root", "root@pam"]),
        ({"api_user": "root@pam!t"}, ["api_token_secret"]),
        ({"api_password": None}, ["api_password", "api_token_id"]),
        ({"api_password": "", "api_token_id": "t"}, ["api_token_secret", "PROXMOX_TOKEN_SECRET"]),
        ({"api_password": None, "api_token_secret": "t0ken-secret"}, ["api_token_id"]),
        (
            {"api_user": "a@pve!x", "api_password": None, "api_token_id": "y", "api_token_secret": "t0ken-secret"},
            ["x", "y"],
        ),
        ({"api_password": None, "api_token_id": "b@pve!y", "api_token_secret": "t0ken-secret"}, ["b@pve", "root@pam"]),
        ({"api_timeout": 0}, ["api_timeout"]),
        ({"api_timeout": -1}, ["api_timeout"]),
    ],
)
def test_refused(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(DiskwrightError) as refusal:
        endpoint(**options)
    text = str(refusal.value)
    assert [word for word in words if word not in text] == []
    assert not any(secret in text for secret in SECRETS)


def test_repr_shows_no_secret() -> None:
    with_password = endpoint(api_otp="123456")
    with_token = endpoint(api_password=None, api_token_id="disks", api_token_secret="t0ken-secret")
    assert with_password.otp == "123456"
    assert not any(secret in repr(one) for secret in SECRETS for one in (with_password, with_token))
