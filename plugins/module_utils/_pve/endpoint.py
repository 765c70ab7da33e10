# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where the PVE API is and who asks, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .._core.errors import DiskwrightError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 8006
# pveproxy gives up after 30 s and answers 596. Waiting a little longer gets that answer instead of guessing.
DEFAULT_TIMEOUT = 35


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is and who asks. Its repr shows no secret.

    Either ``password`` or both of ``token_id`` (the part after the ``!``) and ``token_secret`` are set.
    ``timeout`` is in seconds and goes for each wait on the network, not for a whole call.
    """

    host: str
    user: str
    port: int = DEFAULT_PORT
    password: str | None = field(default=None, repr=False)
    otp: str | None = field(default=None, repr=False)
    token_id: str | None = None
    token_secret: str | None = field(default=None, repr=False)
    validate_certs: bool = False
    ca_path: str | None = None
    timeout: float = DEFAULT_TIMEOUT

    @classmethod
    def from_options(cls, options: Mapping[str, t.Any]) -> Endpoint:
        """The endpoint that the connection options of a module name.

        Accepts what people write: ``api_host`` as ``host``, ``host:port``, ``https://host:port`` or an IPv6 address,
        ``api_user`` as ``user@realm`` or ``user@realm!token``. With a password the token options are not looked at, as
        in community.proxmox.

        :raises DiskwrightError: options that are missing or contradict each other.
        """
        host, port = _host_and_port(options.get("api_host") or "", options.get("api_port"))
        user, token_id = _user_and_token(options.get("api_user") or "", options.get("api_token_id") or "")
        password = options.get("api_password") or None
        # A secret that was read from a file ends with a newline, which no header can carry.
        secret = (options.get("api_token_secret") or "").strip() or None
        if password and "!" in (options.get("api_user") or ""):
            raise DiskwrightError(
                "api_user names an API token, which has no password; give api_token_secret, or api_user without '!…'"
            )
        if not password:
            _check_token(token_id, secret)
        timeout = options.get("api_timeout", DEFAULT_TIMEOUT)
        if timeout is None:
            timeout = DEFAULT_TIMEOUT
        if timeout <= 0:
            raise DiskwrightError(f"api_timeout is {timeout}: it is a number of seconds above 0")
        return cls(
            host=host,
            port=port,
            user=user,
            password=password,
            otp=(options.get("api_otp") or None) if password else None,
            token_id=None if password else token_id,
            token_secret=None if password else secret,
            validate_certs=bool(options.get("validate_certs")),
            ca_path=options.get("ca_path") or None,
            timeout=float(timeout),
        )

    @property
    def is_root_ticket(self) -> bool:
        """Whether it is root@pam with a password: PVE takes absolute paths from nobody else, root's tokens included."""
        return self.password is not None and self.user == "root@pam"

    @property
    def address(self) -> str:
        """``host:port`` as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host_and_port(host: str, port: int | None) -> tuple[str, int]:
    # A host may hold `user:password@` by mistake, so no message repeats it before that is ruled out.
    text = host.strip()
    if not text:
        raise DiskwrightError("api_host is missing: the name or address of a PVE node (or PROXMOX_HOST)")
    if "@" in text:  # before it is taken apart: a password may have signs that end the host's part
        raise DiskwrightError("api_host holds a user name; give it as api_user, and the secret as api_password")
    try:
        return str(ipaddress.IPv6Address(text)), port or DEFAULT_PORT
    except ipaddress.AddressValueError:
        parts = urlsplit(text if "://" in text else f"//{text}")
    if parts.scheme not in ("", "https"):
        raise DiskwrightError(f"api_host={text}: the PVE API speaks https only")
    try:
        own_port = parts.port
    except ValueError:
        raise DiskwrightError(f"api_host={text}: what follows the colon is not a port") from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise DiskwrightError(f"api_host={text}: expected a name or an address, optionally with a port")
    if own_port and port and own_port != port:
        raise DiskwrightError(f"api_host={text} and api_port={port} name different ports")
    return parts.hostname, own_port or port or DEFAULT_PORT


def _user_and_token(user: str, token_id: str) -> tuple[str, str | None]:
    # PVE's documentation writes tokens as user@realm!token=secret, so no message repeats that either.
    if any("=" in text.partition("!")[2] for text in (user, f"!{token_id}")):
        raise DiskwrightError("the token's name holds its secret; give what is behind the '=' as api_token_secret")
    name, _mark, named_token = user.strip().partition("!")
    token = token_id.strip()
    if "!" in token:  # people paste the full id, which PVE's dialog shows
        owner, _mark, token = token.partition("!")
        if name and owner != name:
            raise DiskwrightError(f"api_token_id belongs to {owner}, api_user is {name}")
        name = owner
    if named_token and token and named_token != token:
        raise DiskwrightError(f"api_user names the token {named_token}, api_token_id {token}")
    if not name:
        raise DiskwrightError("api_user is missing: a user with its realm, for example root@pam (or PROXMOX_USER)")
    if ":" in name:
        raise DiskwrightError("api_user holds a colon; give the user as user@realm, and the secret as api_password")
    if not re.fullmatch(r"[^\s@:/]+(@[^\s@:/]+)*@[A-Za-z][A-Za-z0-9._-]*", name):
        raise DiskwrightError(f"api_user={name}: expected a user with its realm, for example root@pam or ansible@pve")
    return name, token or named_token or None


def _check_token(token_id: str | None, secret: str | None) -> None:
    if token_id and secret:
        # They travel in a header. What it can't carry is found here: http.client's error would repeat the secret.
        for name, value in (("api_token_id", token_id), ("api_token_secret", secret)):
            if not re.fullmatch(r"[!-~]+", value):
                raise DiskwrightError(f"{name} holds a blank, a control character or a letter that no token has")
        return
    if token_id:
        raise DiskwrightError(f"api_token_secret is missing for the token {token_id} (or PROXMOX_TOKEN_SECRET)")
    if secret:
        raise DiskwrightError("api_token_id is missing for api_token_secret (or PROXMOX_TOKEN_ID)")
    raise DiskwrightError("no credentials; give api_password, or api_token_id with api_token_secret")
