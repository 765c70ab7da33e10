# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What the PVE API can answer instead of data, as types that say what may be done next."""

from __future__ import annotations

import re
import typing as t

from .._core.errors import DiskwrightError

if t.TYPE_CHECKING:
    from collections.abc import Mapping

# 0: no answer. 595 and 596 are pveproxy's: no connection to the other node, or none any more.
_UNREACHABLE = frozenset({0, 502, 503, 595, 596})


class ApiError(DiskwrightError):
    """PVE's refusal, or its silence.

    :ivar status: the HTTP status; 0 when no answer came.
    :ivar text: PVE's message, or what happened to the connection.
    :ivar errors: PVE's message for each parameter.
    """

    def __init__(self, method: str, path: str, status: int, text: str, errors: Mapping[str, str] | None = None) -> None:
        self.method = method
        # Without the parameters of a GET or DELETE, which travel in the URL: they are not for messages.
        self.path = path.partition("?")[0]
        self.status = status
        self.text = text.strip()
        self.errors: Mapping[str, str] = dict(errors or {})
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        what = f"{self.status} {self.text}".strip() if self.status else self.text
        details = [f"{name}: {'; '.join(text.strip().splitlines())}" for name, text in sorted(self.errors.items())]
        tail = "; PVE may still be working on it" if self.lost and self.method != "GET" else ""
        return f"{self.method} {self.path}: {' '.join([what, ', '.join(details)]).strip()}{tail}"

    @property
    def lock_timeout(self) -> bool:
        """Another call or task held the guest's configuration for 10 s. Nothing was done."""
        return is_lock_timeout(self.text)

    @property
    def digest_mismatch(self) -> bool:
        """The configuration changed since the digest was read. Nothing was done."""
        return is_digest_mismatch(self.text)

    @property
    def missing(self) -> bool:
        """There is no guest with that VM id on that node."""
        return bool(
            re.search(r"[Cc]onfiguration file '[^']*' does not exist|unable to find configuration file", self.text)
        )

    @property
    def forbidden(self) -> bool:
        """A right is missing; the text names it."""
        return self.status == 403

    @property
    def no_worker(self) -> bool:
        """PVE could not start the task. Most calls then did nothing; a create left an empty guest. Read again."""
        return "got no worker upid" in self.text

    @property
    def lost(self) -> bool:
        """The request was sent and no answer came: the work may go on."""
        return self.status in (0, 596)

    @property
    def unreachable(self) -> bool:
        """It is not PVE's opinion, but the way there: no connection, none to the other node, or a busy proxy."""
        return self.status in _UNREACHABLE


class AuthenticationError(ApiError):
    """PVE does not accept the credentials."""


class ConnectionFailedError(ApiError):
    """No connection, so nothing was sent.

    :ivar permanent: trying again will not help (a certificate that does not verify, a name that does not exist).
    """

    def __init__(self, method: str, path: str, text: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(method, path, 0, text)

    @property
    def lost(self) -> bool:
        return False


def is_digest_mismatch(text: str) -> bool:
    """Whether a message or a task's exit status says that the configuration is not the one the digest was made of."""
    return "checksum mismatch (file change by other user" in text or "detected modified configuration" in text


def is_lock_timeout(text: str) -> bool:
    """Whether a message or a task's exit status says that the lock of a guest's configuration was not to be had."""
    return "can't lock file" in text and "got timeout" in text
