# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`pvesm`, as far as this collection calls it. After pve-storage 9.1.7, PVE/CLI/pvesm.pm and API2/Storage/*.pm."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from lab.images import GIB, KIB
from lab.node import loop
from lab.storages import Storages

UNITS = {"": KIB, "M": KIB * KIB, "G": GIB}


class Refused(Exception):
    """What PVE says on standard error."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


def _check_vmid(vmid: int) -> None:
    """`pve-vmid` in pve-common, PVE/JSONSchema.pm."""
    for wrong, word, limit in ((vmid < 100, "minimum", 100), (vmid > 999999999, "maximum", 999999999)):
        if wrong:
            raise Refused(f"400 Parameter verification failed.\nvmid: value must have a {word} value of {limit}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"400 unable to parse option\n{message}")


class Pvesm:
    """The tool on one node.

    :param devices: block volumes are loop devices, which takes root.
    :param dirty: new block volumes hold what somebody else has left there, as those of thick LVM do.
    """

    def __init__(self, storages: Storages, *, devices: bool = False, dirty: bool = False) -> None:
        self._storages = storages
        self._devices = devices
        self._dirty = dirty

    def call(self, command: str = "", *arguments: str) -> None:
        """`pvesm COMMAND ARGUMENT ...`."""
        known: dict[str, Callable[[Sequence[str]], None]] = {
            "status": self._status, "list": self._list, "alloc": self._alloc, "free": self._free, "path": self._path,
            "apiinfo": self._apiinfo}
        if command not in known:
            raise Refused(f"ERROR: unknown command 'pvesm {command}'" if command else "ERROR: no command specified")
        known[command](arguments)

    def perl(self, *arguments: str) -> None:
        """`perl -MPVE::Storage -e PROGRAM VOLUME`, where the program activates and maps, or unmaps."""
        if len(arguments) != 4 or arguments[:2] != ("-MPVE::Storage", "-e"):
            raise Refused("the lab's perl knows PVE::Storage only")
        program, volid = arguments[2:]
        self._storages.activate(volid)
        if "activate_volumes" in program and "map_volume" in program:
            print(self._place(volid))
        elif "unmap_volume" not in program:
            raise Refused("the lab's perl can activate_volumes, map_volume and unmap_volume")

    def _apiinfo(self, arguments: Sequence[str]) -> None:
        _Parser().parse_args(arguments)
        print("APIVER 13\nAPIAGE 4")

    def _status(self, arguments: Sequence[str]) -> None:
        parser = _Parser()
        parser.add_argument("--storage")
        only = parser.parse_args(arguments).storage
        storages = self._storages
        if only and only not in storages.definitions:
            raise Refused("400 Parameter verification failed.\nstorage: No such storage.\npvesm status [OPTIONS]")
        shown = sorted(sid for sid in storages.definitions if only in (None, sid))
        width = max(map(len, shown)) + 1
        print(f"{'Name':<{width}} {'Type':>10} {'Status':>10} {'Total (KiB)':>15} {'Used (KiB)':>15} "
              f"{'Available (KiB)':>15} {'%':>8}")
        for sid in shown:
            total, used, left = storages.space(sid)
            percent = f"{used * 100 / total if total else 0: 7.2f}%" if storages.enabled(sid) else f"{'N/A':>8}"
            state = "active" if storages.active(sid) else "inactive" if storages.enabled(sid) else "disabled"
            print(f"{sid:<{width}} {storages.get(sid)['type']:>10} {state:>10} {total // KIB:>15d} {used // KIB:>15d} "
                  f"{left // KIB:>15d} {percent}")

    def _list(self, arguments: Sequence[str]) -> None:
        parser = _Parser()
        parser.add_argument("storage")
        parser.add_argument("--vmid", type=int)
        given = parser.parse_args(arguments)
        if given.vmid is not None:
            _check_vmid(given.vmid)
        rows = self._storages.list(given.storage, given.vmid)
        width = max((len(row.volid) for row in rows), default=0)
        digits = len(str(max((row.size for row in rows), default=0)))
        print(f"{'Volid':<{width}} {'Format':<7} {'Type':<9} {'Size':>{digits}} VMID")
        for row in rows:
            print(f"{row.volid:<{width}} {row.format:<7} {'images':<9} {row.size:>{digits}} {row.owner}")

    def _alloc(self, arguments: Sequence[str]) -> None:
        parser = _Parser()
        for name in ("storage", "vmid", "filename", "size"):
            parser.add_argument(name)
        parser.add_argument("--format")
        given = parser.parse_args(arguments)
        found = re.fullmatch(r"(\d+)([MG]?)", given.size)
        if not found:
            raise Refused("400 Parameter verification failed.\nsize: value does not match the regex pattern")
        _check_vmid(int(given.vmid))
        image_format = given.format
        ending = re.search(r"\.(raw|qcow2|vmdk)$", given.filename)
        if ending and image_format and image_format != ending[1]:
            raise Refused("400 Parameter verification failed.\n"
                          f"format: different storage formats ({image_format} != {ending[1]})")
        image_format = ending[1] if ending else image_format
        volid = self._storages.alloc(given.storage, int(given.vmid), image_format, given.filename,
                                     int(found[1]) * UNITS[found[2]], print)
        if self._dirty and image_format == "raw" and not self._storages.file_based(given.storage):
            file = self._storages.file(volid)
            file.write_bytes(b"left by another guest " * (file.stat().st_size // 22) + bytes(file.stat().st_size % 22))
        print(f"successfully created '{volid}'")

    def _free(self, arguments: Sequence[str]) -> None:
        parser = _Parser()
        parser.add_argument("volume")
        volid = parser.parse_args(arguments).volume
        if self._devices:
            loop.detach(self._storages.file(volid))
        self._storages.free(volid, print)
        print(f"Removed volume '{volid}'")

    def _path(self, arguments: Sequence[str]) -> None:
        parser = _Parser()
        parser.add_argument("volume")
        print(self._place(parser.parse_args(arguments).volume))

    def _place(self, volid: str) -> str:
        file = self._storages.file(volid)
        block = not self._storages.file_based(self._storages.parse_volid(volid)[0])
        return loop.attach(file) if self._devices and block and file.exists() else str(file)
