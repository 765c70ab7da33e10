# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""What a conversion does under its lock: make the target, fill it, verify it, name it."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from . import qemu, target, verify
from .chunks import Digests
from .copy import WORKERS, Copier
from .errors import ImageError, ImageRefusedError
from .orders import DEFAULT_CLUSTER, Verify
from .plans import Action
from .reader import reader
from .view import confined

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from .copy import Means, Throttle
    from .orders import Order
    from .plans import Plan
    from .source import Source
    from .target import Target


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all images of one run.

    :param state_dir: where journals, locks and staged slices are.
    :param throttle: limits all images together.
    :param patience: seconds to wait for another run that works on the same target.
    """

    state_dir: str
    throttle: Throttle
    patience: float = 0
    workers: int = WORKERS

    @property
    def journals(self) -> str:
        """The folder of the journals."""
        return os.path.join(self.state_dir, "convert")

    @property
    def staging(self) -> str:
        """The folder for slices on their way. Files in it have no names, so nothing is ever left there."""
        return os.path.join(self.state_dir, "staging")


@dataclass(slots=True)
class Outcome:
    """What became of one order.

    :param action: what was, or would be, done.
    :param target: the file or volume id.
    :param error: why it failed, or ''.
    :param seconds: how long each phase took.
    """

    order: Order
    action: Action = Action.NOTHING
    changed: bool = False
    target: str = ""
    format: str = ""
    virtual_size: int = 0
    size: int = 0
    fingerprint: str = ""
    content_id: str = ""
    checksum: str = ""
    verified: bool = False
    resumed: bool = False
    needed: int = 0
    free: int = 0
    error: str = ""
    code: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def timed(outcome: Outcome, phase: str) -> Iterator[None]:
    """Note how long the block takes as that of a phase."""
    begun = time.monotonic()
    try:
        yield
    finally:
        outcome.seconds[phase] = round(outcome.seconds.get(phase, 0.0) + time.monotonic() - begun, 3)


class Work:
    """One conversion under its lock: its circumstances, and what is done."""

    def __init__(
        self,
        order: Order,
        settings: Settings,
        means: Means,
        outcome: Outcome,
        source: Source,
        plan: Plan,
    ) -> None:
        self._order = order
        self._settings = settings
        self._means = means
        self._outcome = outcome
        self._source = source
        self._plan = plan
        self._record = plan.record

    def do(self) -> None:
        """Carry the plan out."""
        try:
            if self._plan.action in (Action.CONVERT, Action.RESUME):
                self._convert()
            elif self._plan.action is Action.NAME:
                self._name()
            elif self._plan.action in (Action.VERIFY, Action.REREAD):
                self._reread()
        finally:
            self._plan.place.release()

    # ---- make the target and fill it

    def _convert(self) -> None:
        try:
            with contextlib.closing(self._opened()) as found:
                self._fill(found)
                self._finish_content(found)
        except (ImageRefusedError, verify.DiffersError):
            # the source is bad, or twice what was read back was not what was written: nothing of it is of use
            self._plan.place.discard()
            self._plan.journal.forget()
            raise
        self._name()

    def _opened(self) -> Target:
        if self._plan.action is Action.RESUME:
            found = self._as_it_was_left(self._plan.place.open())
            if found is not None:
                return found
            self._record.done = 0
            self._plan.place.discard()
        elif self._plan.leftover is not None:
            self._plan.leftover.discard()
            self._plan.journal.forget()
        self._save()  # before there is anything, so that it is known to be ours
        fd = self._plan.place.make(self._record.size, self._record.format)
        self._record.target = self._plan.place.shown
        self._save()
        return self._prepared(fd)

    def _prepared(self, fd: int) -> Target:
        """A new target, formatted."""
        record = self._record
        if record.format == "raw":
            self._preallocate(fd)
            return target.Target(fd, target.length_of(fd), zeroed=self._zeroed(fd))
        as_made = self._plan.place.prepared and not (record.cluster_size or record.preallocation or record.compress)
        if not as_made:
            qemu.create(fd, record.size, self._qcow2_options())
        return self._qcow2(fd)

    def _zeroed(self, fd: int) -> bool:
        return self._plan.place.zeroed or not target.is_block(fd)

    def _preallocate(self, fd: int) -> None:
        if self._record.preallocation == "falloc" and not target.is_block(fd):
            os.posix_fallocate(fd, 0, self._record.size)
        elif self._record.preallocation == "full":
            target.write_all(fd, memoryview(bytes(1024**2)), 0, target.length_of(fd))

    def _qcow2_options(self) -> list[str]:
        chosen = self._record.preallocation or ("off" if self._record.compress else "metadata")
        size = [f"cluster_size={self._record.cluster_size}"] if self._record.cluster_size else []
        return [f"preallocation={chosen}", *size]

    def _qcow2(self, fd: int) -> Target:
        record = self._record
        if not record.compress and target.in_place(fd, record.size):
            return target.Qcow2Target(fd, record.size)
        return target.PackedTarget(
            fd,
            record.size,
            self._settings.staging,
            compress=record.compress,
            cluster_size=record.cluster_size or DEFAULT_CLUSTER,
        )

    def _as_it_was_left(self, fd: int) -> Target | None:
        """A target that was begun; ``None`` if it was not even made completely."""
        record = self._record
        if record.format == "raw" and target.length_of(fd) >= record.size:
            return target.Target(fd, target.length_of(fd), zeroed=self._zeroed(fd))
        if record.format == "qcow2":
            with contextlib.suppress(qemu.QemuError):
                if qemu.virtual_size("qcow2", fd) == record.size:
                    found = self._qcow2(fd)
                    found.resume(record.done)
                    return found
        os.close(fd)
        return None

    def _fill(self, found: Target) -> None:
        """Copy, and compare what is read back; if it differs, once more from the beginning."""
        self._copy(found)
        if self._order.verify is Verify.NO:
            return
        try:
            self._compare(found)
        except verify.DiffersError as error:
            self._outcome.notes.append(f"{error}; it is written once more, with every zero")
            self._record.done, found.zeroed = 0, False
            self._save()
            found.resume(0)
            self._copy(found)
            self._compare(found)

    def _copy(self, found: Target) -> None:
        source = reader(self._source, self._settings.staging)
        digests = self._digests(self._record.done) if self._order.verify is not Verify.NO else None
        self._record.digests = digests is not None
        stored, size = self._source.stored(), max(1, self._record.virtual_size)
        self._means.progress.enter("convert", stored, stored * self._record.done // size)
        try:
            with timed(self._outcome, "convert"), self._manifest():
                Copier(source, found, digests, self._means, self._committed).run(self._record.done)
                if self._record.virtual_size < found.size and not found.zeroed:
                    found.clear(self._record.virtual_size, found.size)
                    found.commit(self._record.virtual_size, found.size)
        finally:
            source.close()
            if digests is not None:
                digests.close()
        self._require_unchanged()

    def _digests(self, start: int) -> Digests:
        found = Digests(self._plan.journal.digest_path, self._record.virtual_size)
        found.restart(start)
        return found

    def _committed(self, done: int) -> None:
        self._record.done = done
        self._save()

    def _save(self) -> None:
        self._plan.journal.save(self._record)

    @contextlib.contextmanager
    def _manifest(self) -> Iterator[None]:
        """Meanwhile, in a thread, the files are held against their manifest, if there is one."""
        if self._order.verify is Verify.NO or not any(file.digest for file in self._source.files):
            yield
            return
        with ThreadPoolExecutor(1) as executor:
            checked: Future[None] = executor.submit(verify.manifest, self._source)
            yield
            checked.result()

    def _require_unchanged(self) -> None:
        if self._source.unchanged():
            return
        missing = self._source.missing()
        if missing:
            raise ImageError(
                f"{', '.join(missing)} was renamed, moved or removed while {self._order.path} was converted. Put it "
                "back under its name and run again: it goes on from there"
            )
        raise ImageError(
            f"{self._order.path} was changed while it was converted; nothing of it is used. See what writes to it "
            "(a running guest, a copy that is not complete), then run again: it begins anew"
        )

    # ---- verify, name, look again

    def _compare(self, found: Target) -> None:
        self._means.progress.enter("verify", self._source.stored())
        digests = Digests(self._plan.journal.digest_path, self._record.virtual_size)
        try:
            with timed(self._outcome, "verify"):
                verify.Comparison(found, digests, self._means).run()
            self._record.content_id = digests.content_id()
        finally:
            digests.close()

    def _finish_content(self, found: Target) -> None:
        """What is left to check when the content is there."""
        self._means.progress.enter("check", self._source.stored())
        if self._record.format == "qcow2" and self._order.verify is not Verify.NO:
            qemu.check(found.fd)
        if self._order.verify is Verify.STRICT:
            with timed(self._outcome, "strict"):
                self._strict(found.fd)
        if self._order.checksum:
            with timed(self._outcome, "checksum"):
                self._record.checksum = verify.checksum(found, self._record.virtual_size, self._means)
        self._require_unchanged()
        place = self._plan.place
        place.check_kept()  # while it is open, and nothing else can have its identity
        now = place.unfinished()
        self._record.state, self._record.stamp = "naming", now.stamp if now else ()
        self._save()

    def _strict(self, fd: int) -> None:
        """Let QEMU compare, by its own reading of both."""
        image = qemu.node(self._record.format, fd)
        bounded = qemu.window(image, 0, self._record.virtual_size)
        with confined(self._source) as view:
            arguments = ["compare", "-U", view.filename, bounded]
            status, said = qemu.run(arguments, (*view.fds, fd), "comparing with the source", (0, 1))
        if status:
            raise ImageError(
                f"{self._plan.place.shown}: QEMU reads the source otherwise ({said.strip()}); it is not used. Please "
                "report this, with the output of image_info for the source"
            )
        self._record.strict = True

    def _name(self) -> None:
        self._record.target = self._plan.place.finish()
        self._settle()

    def _settle(self) -> None:
        record, place = self._record, self._plan.place
        now = place.finished()
        record.stamp = now.stamp if now else ()
        record.state = "verified" if record.content_id else "copied"
        record.finished = time.strftime("%Y-%m-%d %H:%M:%S")
        self._save()
        place.release()

    def _reread(self) -> None:
        """Verify a target that is finished already. It is only read."""
        fd = self._plan.place.open(finished=True)
        record = self._record
        with contextlib.closing(self._reopened(fd)) as found:
            if self._plan.action is Action.VERIFY and not record.content_id:
                self._read_source()
            if record.digests:
                self._compare_again(found)
            if self._order.verify is Verify.STRICT and not record.strict:
                self._strict(fd)
            if self._order.checksum and not record.checksum:
                record.checksum = verify.checksum(found, record.virtual_size, self._means)
        self._settle()

    def _reopened(self, fd: int) -> Target:
        if self._record.format == "raw":
            return target.Target(fd, target.length_of(fd), zeroed=True)
        return self._qcow2(fd)

    def _compare_again(self, found: Target) -> None:
        try:
            self._compare(found)
        except verify.DiffersError as error:
            raise ImageError(
                f"{self._plan.place.shown}: {error}, which it did not on {self._record.finished}: it was written to "
                "since, or it is damaged. It is not touched; remove it to have it converted again"
            ) from error

    def _read_source(self) -> None:
        """Get the digests that a conversion without verification did not take."""
        source, digests = reader(self._source, self._settings.staging), self._digests(0)
        self._means.progress.enter("convert", self._source.stored())
        nothing = target.NoTarget(self._record.virtual_size)
        try:
            with self._manifest():
                Copier(source, nothing, digests, self._means, lambda done: None).run(0)
        finally:
            nothing.close()
            digests.close()
            source.close()
        self._record.digests = True
