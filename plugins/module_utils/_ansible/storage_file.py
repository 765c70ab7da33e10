# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``storage_file``: from its parameters to its result."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import replace
from pathlib import Path

from .._core.errors import DiskwrightError, PlanRefusedError
from .._core.stored_file import (
    ALGORITHMS,
    CONTENTS,
    STATES,
    Checksum,
    FileFacts,
    FilePlan,
    FileWish,
    Source,
    Step,
    Verdict,
    hide_secrets,
    host_in_url,
    name_in_url,
    parse_checksum,
    plan_file,
)
from .._pve.reads import Surroundings
from .._pve.stored_files import NotAllowedError, StoredFiles
from .._pve.tasks import TaskTimeoutError
from .._pve.trust import Trusted, TrustFile
from .._windows.releases import ISOS, TABLE, Iso, find_iso
from .runner import Result, Rules

if t.TYPE_CHECKING:
    from .._pve.client import Client

VERIFY: t.Final = ("checksum", "size")
#: The ISO that the newest Windows is to have.
RECOMMENDED: t.Final = "recommended"
_SOURCES = ("src", "url", "virtio_win")

FILE_RULES: t.Final = Rules(
    mutually_exclusive=(_SOURCES, ("checksum", "trust_file")),
)


def file_spec() -> dict[str, dict[str, t.Any]]:
    """The module's arguments."""
    return {
        "node": {"type": "str", "required": True},
        "storage": {"type": "str", "required": True},
        "content": {"type": "str", "default": "iso", "choices": list(CONTENTS)},
        "name": {"type": "str"},
        "state": {"type": "str", "default": "present", "choices": list(STATES)},
        "src": {"type": "path"},
        "url": {"type": "str", "no_log": True},  # it may hold a password or a token
        "virtio_win": {"type": "str"},
        "checksum": {"type": "str"},
        "checksum_algorithm": {"type": "str", "default": "sha256", "choices": list(ALGORITHMS)},
        "verify": {"type": "str", "default": "checksum", "choices": list(VERIFY)},
        "verify_certificates": {"type": "bool", "default": True},
        "trust_file": {"type": "path"},
        "replace": {"type": "bool", "default": False},
    }


class StorageFile:
    """Brings one file to one storage, verifies or removes it."""

    def __init__(self, client: Client, params: dict[str, t.Any]) -> None:
        self._client = client
        self._params = params
        self._iso = _iso(params)
        self._url: str | None = self._iso.url if self._iso else params["url"]
        self._trust = TrustFile(params["trust_file"]) if params["trust_file"] else None
        self._local = _Local(params["src"]) if params["src"] and params["state"] == "present" else None
        self._wish = self._read_wish()
        self._files = StoredFiles(client, self._wish, float(params["task_timeout"]))
        self._facts = FileFacts(None)
        self._plan = FilePlan()
        self._diff = ""
        self._done: list[Step] = []
        self._error: str | None = None
        self._upid = ""
        self._warnings: list[str] = []

    def _read_wish(self) -> FileWish:
        params = self._params
        _refuse_useless(params)
        given = parse_checksum(params["checksum"], params["checksum_algorithm"]) if params["checksum"] else None
        name = params["name"] or _name(params, self._iso)
        known = self._trust.find(name) if self._trust else None
        wish = FileWish(
            node=params["node"],
            storage=params["storage"],
            content=params["content"],
            name=name,
            state=params["state"],
            checksum=Checksum("sha256", known.sha256) if known else given,
            replace=params["replace"],
            trusts=self._trust is not None,
            size=known.size if known else None,
        )
        if self._local:
            return replace(wish, source=Source.UPLOAD, origin=str(self._local.path), size=self._local.size)
        if self._url:
            return replace(wish, source=Source.DOWNLOAD, origin=host_in_url(self._url))
        return wish

    def prepare(self) -> None:
        """Read, verify what is there, and plan. Verifying has PVE read the file; it writes nothing."""
        storage = Surroundings(self._client, may_use_paths=False).storages(self._wish.node).get(self._wish.storage)
        facts = FileFacts(storage)
        if not plan_file(replace(self._wish, state="absent"), facts).refusals:
            size = self._files.size()
            if size is None or self._differs(size):
                size = self._files.size() if self._files.wait_until_settled() else size
            facts = FileFacts(storage, size, None if size is None else self._verdict(size))
        self._facts, self._plan = facts, plan_file(self._wish, facts)
        if self._plan.refusals:
            raise PlanRefusedError(self._plan.refusals)
        self._diff = self._diff_text()
        if self._trust and Step.RECORD in self._plan.steps:
            self._trust.check_writable()
        if self._local and Step.UPLOAD in self._plan.steps:
            self._check_local(self._local)

    def _differs(self, size: int) -> bool:
        return self._wish.size is not None and size != self._wish.size

    def _verdict(self, size: int) -> Verdict:
        """What is known of the file that is there."""
        wish = self._wish
        if wish.state == "absent":
            return Verdict.PRESENCE
        if self._differs(size):
            return Verdict.DIFFERENT
        less = Verdict.SIZE if wish.size is not None else Verdict.PRESENCE
        if self._params["verify"] == "size":
            return less
        expected = wish.checksum or (self._local.sha256() if self._local else None)
        if expected is None:
            return less
        try:
            return Verdict.CHECKSUM if self._files.has_checksum(expected) else self._mark_different(expected)
        except NotAllowedError as error:
            self._warnings.append(f"{wish.label}: its checksum was not verified: {error}, or write verify=size")
            return less

    def _mark_different(self, expected: Checksum) -> Verdict:
        self._wish = replace(self._wish, checksum=expected)
        return Verdict.DIFFERENT

    def _check_local(self, local: _Local) -> None:
        """The file that is to be sent is the one that was asked for."""
        wanted = self._wish.checksum
        if wanted is not None and (found := local.digest(wanted.algorithm)) != wanted:
            raise DiskwrightError(
                f"{self._wish.label}: src={local.path} has the checksum {found}, not {wanted}; it is another file"
            )

    def execute(self) -> None:
        """Carry the plan out, and look."""
        try:
            for step in self._plan.steps:
                self._carry_out(step)
                self._done.append(step)
            if self._done:
                self._look()
        except TaskTimeoutError as error:
            self._error, self._upid = hide_secrets(f"{self._wish.label}: {error}"), error.upid
        except DiskwrightError as error:
            self._error = hide_secrets(f"{self._wish.label}: {error}")
            if self._trust and self._wish.checksum and "checksum mismatch" in self._error:
                self._error += (
                    f"; {self._params['trust_file']} says what it was when it was seen first: if it was replaced on "
                    f"purpose, remove the line of {self._wish.name} there"
                )

    def _carry_out(self, step: Step) -> None:
        if step is Step.DELETE:
            outcome = self._files.delete()
        elif step is Step.UPLOAD:
            local = t.cast("_Local", self._local)
            outcome = self._files.upload(local.path, local.size, self._wish.checksum or local.sha256())
        elif step is Step.DOWNLOAD:
            certificates = bool(self._params["verify_certificates"])
            outcome = self._files.download(str(self._url), self._wish.checksum, verify_certificates=certificates)
        else:
            self._record()
            return
        self._warnings.extend(hide_secrets(f"{self._wish.label}: {text}") for text in outcome.warnings)

    def _look(self) -> None:
        size = self._files.size()
        gone = size is None
        if gone != (self._wish.state == "absent") or (size is not None and self._differs(size)):
            raise DiskwrightError(f"PVE says that it is done, and its list of files says: {size} bytes")
        verdict = self._facts.verdict
        if set(self._done) - {Step.DELETE}:  # PVE has verified it, or its checksum was read just now
            checked = self._wish.checksum is not None or self._local is not None
            verdict = Verdict.CHECKSUM if checked else Verdict.PRESENCE
        self._facts = FileFacts(self._facts.storage, size, None if gone else verdict)

    def _record(self) -> None:
        """Trust the file as it is now, from now on."""
        try:
            sent = self._local if Step.UPLOAD in self._done else None
            digest = sent.sha256().digest if sent else self._files.read_sha256()
        except NotAllowedError as error:
            raise DiskwrightError(f"its checksum can't be recorded: {error}, or give checksum") from error
        size = self._files.size()
        if self._trust is None or size is None:
            raise DiskwrightError("it was removed while its checksum was read; run again")
        self._trust.record(self._wish.name, Trusted(digest, size))
        self._wish = replace(self._wish, checksum=Checksum("sha256", digest))
        if self._iso and self._iso.digests and digest not in self._iso.digests:
            self._warnings.append(
                f"{self._wish.label}: nobody has noted the checksum sha256:{digest} of virtio-win {self._iso.version} "
                f"before ({', '.join(self._iso.digests)} is known); upstream has replaced files in place, so look at "
                "the signatures of its drivers"
            )

    def result(self, *, executed: bool) -> Result:
        """What was planned and done."""
        wish, facts = self._wish, self._facts
        steps = self._done if executed else list(self._plan.steps)
        verdict = facts.verdict
        data = {
            "volid": wish.volid,
            "node": wish.node,
            "storage": wish.storage,
            "content": wish.content,
            "name": wish.name,
            "size": facts.size,
            "verified": verdict.value if verdict and wish.state == "present" else None,
            "checksum": str(wish.checksum) if wish.checksum else None,
            "steps": [step.value for step in steps],
        }
        if self._upid:
            data["upid"] = self._upid
        return Result(data, bool(steps), self._error, self._diff, self._warnings)

    def _diff_text(self) -> str:
        steps, wish = self._plan.steps, self._wish
        lines = {
            Step.UPLOAD: f"+ {'uploaded' if self._facts.size is None else 'overwritten'} from {wish.origin}",
            Step.DOWNLOAD: f"+ downloaded by the node from {wish.origin}",
            Step.DELETE: "- removed",
            Step.RECORD: f"~ its checksum is trusted from now on, and kept in {self._params['trust_file']}",
        }
        return "\n".join([wish.label, *(f"  {lines[step]}" for step in steps)]) + "\n" if steps else ""


class _Local:
    """A file where the module runs. Its digests are made when they are needed: that takes seconds for each GiB."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        try:
            self.size = self.path.stat().st_size
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise DiskwrightError(f"src={path}: it can't be read where this module runs ({error.strerror})") from error
        self._digests: dict[str, Checksum] = {}

    def sha256(self) -> Checksum:
        """Its SHA-256."""
        return self.digest("sha256")

    def digest(self, algorithm: str) -> Checksum:
        """Its digest."""
        if algorithm not in self._digests:
            made = hashlib.new(algorithm, usedforsecurity=False)
            with self.path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    made.update(chunk)
            self._digests[algorithm] = Checksum(algorithm, made.hexdigest())
        return self._digests[algorithm]


def _iso(params: dict[str, t.Any]) -> Iso | None:
    version = params["virtio_win"]
    if version is None:
        return None
    if params["content"] != "iso":
        raise DiskwrightError(f"virtio_win={version}: it is an ISO, so content={params['content']} is wrong; remove it")
    return ISOS[TABLE["2025"].iso] if version == RECOMMENDED else find_iso(version)


def _name(params: dict[str, t.Any], iso: Iso | None) -> str:
    """The name that the source suggests."""
    if iso:
        return iso.file_name
    if params["src"]:
        return Path(params["src"]).name
    return name_in_url(params["url"]) if params["url"] else ""


def _refuse_useless(params: dict[str, t.Any]) -> None:
    """:raises DiskwrightError: options that would be accepted and ignored."""
    if params["state"] == "absent":
        useless = [name for name in ("checksum", "trust_file", "replace") if params[name]]
        why = "a file that is to be absent"
    else:
        useless = ["replace"] if params["replace"] and not any(params[name] for name in _SOURCES) else []
        why = "a file that nothing is said to come from"
        if not (params["verify_certificates"] or params["url"] or params["virtio_win"]):
            useless, why = [*useless, "verify_certificates"], "a file that the node does not download"
    if useless:
        raise DiskwrightError(f"{', '.join(useless)}: no effect on {why}; remove it")
