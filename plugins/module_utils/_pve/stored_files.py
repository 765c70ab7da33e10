# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Files on the storages of a node, ISOs and images to import: looked for, uploaded, downloaded, verified, removed.

PVE tells a stored file's size and no checksum. But a download whose file is there already, and whose checksum is given,
makes PVE compute the file's checksum and compare it; nothing is fetched and nothing is overwritten (pve-common,
``PVE::Tools::download_file_from_url``). That is how a file is verified here. When they differ, PVE says what it got,
and that is how a checksum is learnt at first use.
"""

from __future__ import annotations

import contextlib
import re
import typing as t
from pathlib import Path

from .._core.errors import DiskwrightError
from .._core.stored_file import ALGORITHMS, Checksum, FileWish
from . import tasks
from .client import ApiError, path
from .tasks import Deadline, TaskFailedError, TaskOutcome, Upid

if t.TYPE_CHECKING:
    from .client import Client

#: Where nothing answers, and nothing is asked: the file is there. On the node itself, so that no name is looked up.
_NOWHERE = "http://127.0.0.1:9/verify"
_GOT = re.compile(r"checksum mismatch: got '([0-9a-fA-F]+)' != expect")


class NotAllowedError(DiskwrightError):
    """The user may not have the node download, and so not verify either. PVE does not say which right is missing."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(
            f"the user may not have the node download or verify files ({error.text}); grant Datastore.AllocateTemplate "
            "on the storage and Sys.AccessNetwork on the node"
        )


class StoredFiles:
    """The files of one content type on one storage of one node."""

    def __init__(self, client: Client, wish: FileWish, seconds: float) -> None:
        self._client = client
        self._wish = wish
        self._seconds = seconds
        self._base = ("nodes", wish.node, "storage", wish.storage)

    def size(self) -> int | None:
        """How many bytes the file has, or ``None``: there is none."""
        rows = self._client.get(path(*self._base, "content"), {"content": self._wish.content})
        return next((int(row["size"]) for row in rows if row["volid"] == self._wish.volid), None)

    def wait_until_settled(self) -> bool:
        """Wait for jobs that may be bringing the file, of a run that was killed for example. :returns: whether any.

        :raises TaskTimeoutError: one takes longer.
        """
        deadline, node = Deadline(self._seconds), path("nodes", self._wish.node, "tasks")
        rows = self._client.get(node, {"source": "active"})
        found = [str(row["upid"]) for row in rows if not row.get("endtime") and self._concerns(str(row["upid"]))]
        for upid in found:
            with contextlib.suppress(TaskFailedError):
                tasks.wait(self._client, upid, deadline)
        return bool(found)

    def _concerns(self, upid: str) -> bool:
        """PVE names the file of a download, and no file of an upload."""
        task = Upid.parse(upid)
        return task.kind == "imgcopy" or (task.kind == "download" and task.subject == self._wish.name)

    def upload(self, file: Path, size: int, checksum: Checksum) -> TaskOutcome:
        """Send a file from here; PVE verifies it before it is put in its place.

        :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`.
        """
        deadline = Deadline(self._seconds)
        fields = {
            "content": self._wish.content,
            "checksum-algorithm": checksum.algorithm,
            "checksum": checksum.digest,
        }

        def request() -> TaskOutcome:
            with file.open("rb") as source:
                upid = self._client.upload(path(*self._base, "upload"), fields, self._wish.name, source, size)
            return tasks.wait(self._client, str(upid), deadline)

        return tasks.insist(
            request,
            lambda: self.size() == size and self._is_proved(checksum),
            self.wait_until_settled,
            deadline,
            failure_may_count=False,
        )

    def _is_proved(self, checksum: Checksum) -> bool:
        """Whether the file is known to have this checksum; otherwise it is sent once more, which does no harm."""
        try:
            return self.has_checksum(checksum)
        except NotAllowedError:
            return False

    def download(self, url: str, checksum: Checksum | None, *, verify_certificates: bool) -> TaskOutcome:
        """Let the node fetch a file, which is put in its place when it is whole and verified.

        :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`. The texts may name the URL.
        """
        deadline = Deadline(self._seconds)
        return tasks.insist(
            lambda: self._download(url, checksum, deadline, verify_certificates=verify_certificates),
            lambda: self.size() is not None,
            self.wait_until_settled,
            deadline,
            failure_may_count=False,  # a file that is in the way is not the one that was asked for
        )

    def _download(
        self, url: str, checksum: Checksum | None, deadline: Deadline, *, verify_certificates: bool = True
    ) -> TaskOutcome:
        fields: dict[str, object] = {"content": self._wish.content, "filename": self._wish.name, "url": url}
        fields["verify-certificates"] = verify_certificates
        if checksum is not None:
            fields |= {"checksum": checksum.digest, "checksum-algorithm": checksum.algorithm}
        try:
            return tasks.run(self._client, "POST", path(*self._base, "download-url"), fields, deadline)
        except ApiError as error:
            if error.forbidden:
                raise NotAllowedError(error) from error
            raise

    def delete(self) -> TaskOutcome:
        """Remove the file; fine when there is none any more.

        :raises ApiError, TaskFailedError, TaskTimeoutError: see :func:`tasks.run`.
        """
        deadline, where = Deadline(self._seconds), path(*self._base, "content", self._wish.volid)
        return tasks.insist(
            lambda: tasks.run(self._client, "DELETE", where, None, deadline),
            lambda: self.size() is None,
            self.wait_until_settled,
            deadline,
        )

    def has_checksum(self, checksum: Checksum) -> bool:
        """Whether the file, which is there, has this checksum. PVE computes it.

        :raises NotAllowedError: the user has not the rights for that.
        """
        return self._got(checksum) is None

    def read_sha256(self) -> str:
        """The SHA-256 of the file, which is there. PVE lists a task that has failed for it.

        :raises NotAllowedError: the user has not the rights for that.
        """
        nothing = Checksum("sha256", "0" * ALGORITHMS["sha256"])
        return self._got(nothing) or nothing.digest

    def _got(self, checksum: Checksum) -> str | None:
        """The checksum that PVE got, or ``None``: the expected one."""
        try:
            self._download(_NOWHERE, checksum, Deadline(self._seconds))
        except TaskFailedError as error:
            match = _GOT.search(error.exit_status)
            if match is None:
                raise
            return match[1].lower()
        return None
