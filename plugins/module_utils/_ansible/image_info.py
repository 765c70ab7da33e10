# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The work of the module ``image_info``: inspects the images of a file or a folder."""

from __future__ import annotations

import typing as t

from .._image.inspect import Survey, survey
from .runner import Result

if t.TYPE_CHECKING:
    from .._image.inspect import Found, FoundMachine
    from .._image.ovf import OvfDisk


class ImageInfo:
    """Reads, and never writes."""

    def __init__(self, params: dict[str, t.Any]) -> None:
        self._params = params
        self._survey = Survey()

    def prepare(self) -> None:
        """Inspect everything."""
        self._survey = survey(self._params["path"], checksum=self._params["checksum"])

    def execute(self) -> None:
        """Nothing: it only reads."""

    def result(self, *, executed: bool) -> Result:  # noqa: ARG002 - the same in both modes
        """What was found."""
        images = self._survey.images
        reasons = [f"{found.path}: {found.refused.reason}" for found in images if found.refused]
        failure = None
        if reasons and self._params["fail_on_refusal"]:
            failure = f"{len(reasons)} of {len(images)} images must not be used\n" + "\n".join(reasons)
        return Result(
            data={
                "images": [_image(found) for found in images],
                "machines": [_machine(found) for found in self._survey.machines],
            },
            failure=failure,
        )


def _image(found: Found) -> dict[str, t.Any]:
    return {
        "path": found.path,
        "member": found.member,
        "format": found.format,
        "subformat": found.subformat,
        "virtual_size": found.virtual_size,
        "allocated": found.allocated,
        "files": list(found.files),
        "chain": [
            {"name": member.name, "subformat": member.subformat, "files": list(member.files)} for member in found.chain
        ],
        "snapshots": list(found.snapshots),
        "fingerprint": found.fingerprint,
        "checksum": found.checksum or None,
        "machine": found.machine or None,
        "disk": _disk(found.disk) if found.disk else None,
        "refused": {"code": found.refused.code, "reason": found.refused.reason} if found.refused else None,
    }


def _disk(disk: OvfDisk) -> dict[str, t.Any]:
    return {
        "member": disk.href or None,
        "capacity": disk.capacity,
        "controller": disk.controller,
        "controller_index": disk.controller_index,
        "controller_model": disk.model,
        "address": disk.address,
    }


def _machine(found: FoundMachine) -> dict[str, t.Any]:
    machine = found.machine
    return {
        "path": found.path,
        "name": machine.name,
        "memory": machine.memory,
        "cores": machine.cores,
        "sockets": machine.sockets,
        "firmware": machine.firmware,
        "secure_boot": machine.secure_boot,
        "tpm": machine.tpm,
        "ostype": machine.ostype,
        "os_description": machine.os_description,
        "disks": [_disk(disk) for disk in machine.disks],
        "nics": [
            {"name": nic.name, "network": nic.network, "model": nic.model, "macaddr": nic.mac} for nic in machine.nics
        ],
        "warnings": list(machine.warnings),
    }
