# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that come from outside: `import-from` sources, OVA members, and what an OVA says of its guest.

After pve-storage 9.1.7: GuestImport.pm, GuestImport/OVF.pm, Storage/DirPlugin.pm; qemu-server: API2/Qemu.pm.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import images
from lab.images import MIB, Place
from lab.terms import Log, StorageError, Volname

if TYPE_CHECKING:
    from lab.storages import Storages


@contextmanager
def import_source(storages: Storages, source: str, sid: str, vmid: int, log: Log,
                  working: str | None) -> Iterator[str | Path]:
    """Yields the volume id, or one of PVE's absolute paths, that can be converted. Raises what PVE says of a bad one.

    An OVA's member is unpacked into a volume of `vmid`: on `working`, or else on the target `sid` when that is made
    of files, or else beside the OVA. It is gone when the `with` ends, however it ends.
    """
    if source.startswith("/"):
        place = storages.real_path(source)
        if not place.file.is_file():
            raise StorageError(f"can't find file '{source}'")
        images.check_untrusted(place, None)
        yield Path(source)
        return
    name = storages.parse_volname(source)
    if name.format.startswith("ova+"):
        yield from _extracted(storages, source, name, _working_storage(storages, name, sid, working), vmid, log)
        return
    if name.vtype == "import":
        images.check_untrusted(storages.place(source), name.format)
    yield source


def _working_storage(storages: Storages, name: Volname, sid: str, working: str | None) -> str:
    return working or (sid if storages.file_based(sid) else name.storage)


def _extracted(storages: Storages, source: str, name: Volname, sid: str, vmid: int, log: Log) -> Iterator[str]:
    log(f"extracting {source}")
    volid = extract(storages, name, sid, vmid, log)
    log(f"finished extracting to {volid}")
    try:
        yield volid
    except BaseException:
        storages.free(volid, log)
        raise
    storages.free(volid, log)
    log(f"cleaned up extracted image {volid}")


def extract(storages: Storages, name: Volname, sid: str, vmid: int, log: Log) -> str:
    """Unpacks one member of an OVA with tar into a new volume on `sid`, and returns it."""
    archive, _, member = name.name.partition("/")
    ova = storages.place(f"{name.storage}:import/{archive}")
    images_folder = storages.place(f"{sid}:{vmid}/vm-{vmid}-disk-0.raw")
    folder = Place(images_folder.file.parent / f"tmp_{os.getpid()}_{vmid}",
                   f"{os.path.dirname(images_folder.shown)}/tmp_{os.getpid()}_{vmid}")
    folder.file.mkdir(parents=True)
    try:
        return _unpacked(storages, ova, member, name.format.removeprefix("ova+"), sid, vmid, folder, log)
    except StorageError as error:
        raise StorageError(f"error during extraction: {error.message}\n") from error
    finally:
        shutil.rmtree(folder.file)


def _unpacked(storages: Storages, ova: Place, member: str, fmt: str, sid: str, vmid: int, folder: Place,
              log: Log) -> str:
    options = ["-x", "--force-local", "--no-same-owner"]
    done = images.run(["tar", *options, "-C", str(folder.file), "-f", str(ova.file), member])
    for line in done.stderr.splitlines():
        log(line.replace(str(ova.file), ova.shown))
    if done.returncode:
        command = f"tar {' '.join(options)} -C {folder.shown} -f {ova.shown} {member}"
        raise StorageError(f"command '{command}' failed: exit code {done.returncode}")
    unpacked = Place(folder.file / member, f"{folder.shown}/{member}")
    if unpacked.file.is_symlink() or not unpacked.file.is_file():
        raise StorageError(f"extracted file '{member}' from archive is not a regular file")
    images.check_untrusted(unpacked, fmt)
    volid = storages.alloc(sid, vmid, fmt, None, MIB, log)
    target = storages.place(volid)
    log(f"renaming {unpacked.shown} to {target.shown}")
    unpacked.file.rename(target.file)
    return volid
