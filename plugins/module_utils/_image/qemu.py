# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The node's own ``qemu-img``: always told the format, and given open files instead of names.

``/proc/self/fd/N`` is the very file that was checked or made, whatever happens to its name meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from dataclasses import dataclass

from .errors import ImageError
from .lock import inherited

if t.TYPE_CHECKING:
    from collections.abc import Sequence

QEMU_IMG = "qemu-img"


class QemuError(ImageError):
    """``qemu-img`` failed.

    :param status: its exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of an image as QEMU sees it. All numbers are bytes.

    :param offset: where its bytes are in the image's file; ``None`` where QEMU has no plain place for them.
    :param zero: QEMU knows that it reads as zeros.
    """

    start: int
    length: int
    zero: bool
    offset: int | None

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length


def place(fd: int) -> str:
    """The name under which a program that inherits the descriptor opens the same file."""
    return f"/proc/self/fd/{fd}"


def run(arguments: Sequence[str], fds: Sequence[int], what: str, accepted: Sequence[int] = (0,)) -> tuple[int, str]:
    """Run ``qemu-img``.

    :param fds: the descriptors of its files.
    :param what: what is being done, for the message.
    :param accepted: exit statuses that are no error.
    :returns: exit status and standard output.
    :raises QemuError: with what it said.
    """
    try:
        done = subprocess.run(
            [QEMU_IMG, *arguments],
            pass_fds=(*fds, *inherited()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageError(f"{what}: there is no {QEMU_IMG} here; run this on a PVE node, which has it") from error
    if done.returncode not in accepted:
        said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
        raise QemuError(f"{what}: {QEMU_IMG} failed with status {done.returncode}: {said}", done.returncode)
    return done.returncode, done.stdout


def node(image_format: str, fd: int, **options: t.Any) -> dict[str, t.Any]:
    """QEMU's description of an image: its format, its file, no backing file whatever its header says."""
    described = {"driver": image_format, **options, "file": {"filename": place(fd)}}
    return {**described, "backing": None} if image_format == "qcow2" else described


def window(image: dict[str, t.Any], start: int, end: int) -> str:
    """A part of an image as one of ``qemu-img``'s file names."""
    return "json:" + json.dumps({"driver": "raw", "offset": start, "size": end - start, "file": image})


def extents(image_format: str, fd: int, start: int, end: int) -> list[Extent]:
    """What QEMU sees of an image from ``start`` to ``end``, in order and without gaps."""
    image = "json:" + json.dumps(node(image_format, fd))
    arguments = ["map", "-U", "--output=json", f"--start-offset={start}", f"--max-length={end - start}", image]
    text = run(arguments, [fd], "asking where the image's bytes are")[1]
    return [_extent(row) for row in json.loads(text)]


def _extent(row: dict[str, t.Any]) -> Extent:
    plain = row["data"] and not row.get("compressed", False)
    offset = row.get("offset") if plain else None
    return Extent(row["start"], row["length"], bool(row["zero"]), offset)


def create(fd: int, size: int, options: Sequence[str]) -> None:
    """Make a qcow2 image in an open file or device."""
    arguments = ["create", "-q", "-f", "qcow2", *(["-o", ",".join(options)] if options else []), place(fd), str(size)]
    run(arguments, [fd], "making the qcow2 image")


def virtual_size(image_format: str, fd: int) -> int:
    """The size of the disk in an image of a known format."""
    image = "json:" + json.dumps(node(image_format, fd))
    text = run(["info", "-U", "--output=json", image], [fd], "reading the image's header")[1]
    return int(json.loads(text)["virtual-size"])


def check(fd: int, *, leaks: bool = False) -> None:
    """Check the metadata of a qcow2 image.

    :param leaks: clusters that nothing names (a run was killed) are given back; they harm nothing.
    :raises QemuError: if the image is damaged.
    """
    repair = ["-r", "leaks"] if leaks else []
    image = "json:" + json.dumps(node("qcow2", fd))  # a linked clone is checked without what is below it
    run(["check", "-q", *repair, image], [fd], "checking the qcow2 image", (0, 3) if leaks else (0,))
