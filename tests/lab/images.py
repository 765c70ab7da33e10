# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on this machine's disk: everything that changes or reads one goes through the real `qemu-img`.

PVE's paths ("shown") differ from the lab's; a path stands twice, and what `qemu-img` prints is told with PVE's.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.terms import Log, StorageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

METADATA_LIMIT = 64 * GIB
"""Above this size a qcow2 is made without the metadata that PVE preallocates: it would be tens of megabytes."""

BACKED = "extended_l2=on,cluster_size=128k"
"""What pve-storage's Common.pm asks for in an overlay; preallocation over a backing file needs it too."""


@dataclass(frozen=True)
class Image:
    """What an image says of itself (`qemu-img info`); sizes in bytes."""

    size: int
    used: int
    format: str
    backing: str | None
    snapshots: tuple[str, ...]
    data_file: str | None
    parts: int


@dataclass(frozen=True)
class Place:
    """A file of the lab, and the path that PVE has for it."""

    file: Path
    shown: str


_known: dict[tuple[int, int, int, int], Image] = {}


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a tool; never raises for its exit status."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, LC_ALL="C"))


def _tell(text: str, places: tuple[Place, ...]) -> str:
    """Replaces the lab's paths by PVE's, the longest first."""
    for place in sorted(places, key=lambda p: -len(str(p.file))):
        text = text.replace(str(place.file), place.shown)
    return text


def _qemu_img(arguments: list[str], *places: Place, cwd: Path | None = None, log: Log | None = None,
              error: str | None = None) -> str:
    """Runs `qemu-img`, returns its output in PVE's paths; a failure raises `error` with it logged, or it."""
    done = run(["qemu-img", *arguments], cwd)
    complaint = _tell(done.stderr.strip(), places)
    if done.returncode:
        if error is None:
            raise StorageError(complaint or "qemu-img failed")
        for line in complaint.splitlines():
            if log:
                log(line)
        raise StorageError(error)
    return _tell(done.stdout.strip(), places)


def _key(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def inspect(place: Place, fmt: str | None) -> Image:
    """Facts of one image, remembered until the file changes. Raises qemu-img's text, "Image is not in … format" too."""
    if fmt == "raw":
        stat = place.file.stat()
        return Image(-(-stat.st_size // 512) * 512, stat.st_blocks * 512, "raw", None, (), None, 1)
    key = _key(place.file)
    if key not in _known or fmt not in (None, _known[key].format):
        arguments = ["info", "-U", "--output=json", *(["-f", fmt] if fmt else []), str(place.file)]
        _known[key] = _parsed(json.loads(_qemu_img(arguments, place)))
    return _known[key]


def _parsed(info: dict[str, Any]) -> Image:
    special = info.get("format-specific", {}).get("data", {})
    parts = max(len(special.get("extents", [])), len(info.get("children", [])), 1)
    return Image(info["virtual-size"], info["actual-size"], info["format"], info.get("backing-filename"),
                 tuple(s["name"] for s in info.get("snapshots", [])), special.get("data-file"), parts)


def check_untrusted(place: Place, fmt: str | None) -> Image:
    """PVE's checks of an image from outside (file_size_info with $untrusted): raises what PVE says."""
    if not place.file.exists():
        raise StorageError(f"failed to stat '{place.shown}'")
    image = inspect(place, fmt)
    if image.data_file:
        raise StorageError(f"{place.shown}: 'data-file' references are not allowed!")
    if image.format == "vmdk" and image.parts > 1:
        raise StorageError(f"{place.shown}: multiple children or extents are not allowed!")
    if image.backing:
        raise StorageError(f"backing file not allowed for untrusted image '{place.shown}'!")
    return image


def _preallocation(fmt: str) -> str | None:
    """PVE's default, `preallocation metadata`, for each format."""
    return {"qcow2": "metadata", "raw": "off"}.get(fmt)


def create(place: Place, fmt: str, size: int, log: Log) -> None:
    """A new empty image of `size` bytes; logs the line "Formatting …"."""
    wanted, real = _preallocation(fmt), _preallocation(fmt)
    if fmt == "qcow2" and size > METADATA_LIMIT:
        real = None
    options = ["-o", f"preallocation={real}"] if real else []
    said = _qemu_img(["create", *options, "-f", fmt, str(place.file), f"{size // KIB}K"], place)
    log(said if wanted == real else said.replace("extended_l2=off", f"extended_l2=off preallocation={wanted}"))


def create_backed(place: Place, backing: str, backing_format: str, log: Log) -> None:
    """A qcow2 over `backing`, a path relative to the new image."""
    options = f"{BACKED},preallocation={_preallocation(backing_format) or 'off'}"
    said = _qemu_img(["create", "-F", backing_format, "-b", backing, "-f", "qcow2", str(place.file), "-o", options],
                     place, cwd=place.file.parent)
    log(said)


def resize(place: Place, fmt: str, size: int, log: Log) -> None:
    preallocation = _preallocation(fmt)
    if fmt == "qcow2" and size > METADATA_LIMIT:
        preallocation = "off"
    options = [f"--preallocation={preallocation}"] if preallocation else []
    log(_qemu_img(["resize", *options, "-f", fmt, str(place.file), str(size)], place, log=log,
                  error=resize_failure(place, fmt, size)))


def resize_failure(place: Place, fmt: str, size: int) -> str:
    """What run_command says of a failed resize."""
    option = _preallocation(fmt)
    quoted = f"'--preallocation={option}' " if option else ""
    return f"command '/usr/bin/qemu-img resize {quoted}-f {fmt} {place.shown} {size}' failed: exit code 1"


def human(size: float) -> str:
    """A size as PVE::Format::render_bytes writes it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def convert(source: Place, source_format: str | None, target: Place, target_format: str, log: Log,
            snapshot: str | None = None) -> None:
    """Copies what the guest sees of `source` (or of its internal snapshot) into the existing, empty `target`.

    A smaller target gets the beginning, as PVE copies firmware variables from LVM's extents.
    """
    image = inspect(source, source_format)
    size = min(image.size, inspect(target, target_format).size)
    log(f"transferred 0.0 B of {human(size)} (0.00%)")
    options = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    if size < image.size:
        below = {"driver": image.format, "file": {"driver": "file", "filename": str(source.file)}}
        begin = "json:" + json.dumps({"driver": "raw", "size": size, "file": below})
    else:
        begin = str(source.file)
        options += ["-f", source_format] if source_format else []
    # a new target reads as zeros: PVE says so with its own zeroinit driver, and qemu-img itself with this option
    try:
        _qemu_img(["convert", "-U", "-n", "--target-is-zero", *options, "-O", target_format, begin, str(target.file)],
                  source, target)
    except StorageError as error:
        raise StorageError(f"copy failed: {error.message}") from error
    log(f"transferred {human(size)} of {human(size)} (100.00%)")


def snapshot(place: Place, action: str, name: str) -> None:
    """Internal snapshots of a qcow2: action is -c (create), -a (go back) or -d (delete)."""
    command = f"command '/usr/bin/qemu-img snapshot {action} {name} {place.shown}' failed: exit code 1"
    _qemu_img(["snapshot", action, name, str(place.file)], place, error=command)


def commit(place: Place) -> str:
    """Merges an overlay into its backing image, returns what qemu-img says."""
    return _qemu_img(["commit", str(place.file)], place)


def rebase(place: Place, backing: str) -> None:
    _qemu_img(["rebase", "-b", backing, "-F", "qcow2", "-f", "qcow2", str(place.file)], place,
              cwd=place.file.parent)


def sparse(path: Path, size: int) -> None:
    """A raw image of `size` bytes that takes no room."""
    with path.open("xb") as file:
        file.truncate(size)


def write(place: Place, fmt: str, content: bytes) -> None:
    """Writes the first bytes that the guest will see."""
    if fmt == "raw":
        with place.file.open("r+b") as file:
            file.write(content)
        return
    with tempfile.NamedTemporaryFile(dir=place.file.parent) as raw:
        raw.write(content)
        raw.truncate(inspect(place, fmt).size)
        _qemu_img(["convert", "-n", "-f", "raw", "-O", fmt, raw.name, str(place.file)], place)


def read(place: Place, fmt: str, length: int, offset: int = 0) -> bytes:
    """Bytes that the guest sees; beyond the end there are none."""
    if fmt == "raw":
        with place.file.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    with tempfile.NamedTemporaryFile(dir=place.file.parent) as raw:
        # dd's `skip` shortens `count` in some versions of QEMU, so it reads from the beginning
        _qemu_img(["dd", "-U", "-f", fmt, "-O", "raw", "bs=512", f"count={-(-(offset + length) // 512)}",
                   f"if={place.file}", f"of={raw.name}"], place)
        return Path(raw.name).read_bytes()[offset:offset + length]


def copy(source: Path, target: Path) -> None:
    """A second, independent file with the same content; holes stay holes, shared blocks where the disk can."""
    done = run(["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(target)])
    if done.returncode:
        raise StorageError(done.stderr.strip())
