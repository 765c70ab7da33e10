# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver files as on the driver ISO: an INF, an executable that does nothing, and a catalogue that is really signed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from winguest.authenticode import catalogue, driver_file

# Folder and stem on the ISO, and the devices that the INF names.
KINDS = {
    "vioscsi": ("vioscsi", "vioscsi"), "viostor": ("viostor", "viostor"), "vioserial": ("vioserial", "vioser"),
    "netkvm": ("NetKVM", "netkvm"), "balloon": ("Balloon", "balloon"),
}  # fmt: skip
FOLDERS = ("2k8", "2k8R2", "w7", "2k12R2", "2k16", "w10", "w11", "2k22", "2k25")
SHA1 = ("2k8", "2k8R2", "w7")  # these can check no other digest
VERSION = "100.95.104.26200"
# Who signs: winguest.authenticode knows them by these names.
MICROSOFT, VIRTIO_WIN = "microsoft", "test"


@functools.cache
def standard() -> Mapping[str, bytes]:
    """The ISO that is in a drive when nobody says which."""
    return iso()


def iso(version: str = VERSION, *, signer: str = MICROSOFT, names: Iterable[str] = KINDS,
        folders: Iterable[str] = FOLDERS, architecture: str = "amd64") -> dict[str, bytes]:  # fmt: skip
    """The files of a driver ISO with their paths on it.

    :param signer: whose certificate signs.
    """
    found: dict[str, bytes] = {}
    for name in names:
        folder, stem = KINDS[name]
        for release in folders:
            place = f"{folder}/{release}/{architecture}/{stem}"
            digest = "sha1" if release in SHA1 else "sha256"
            found |= {place + suffix: data for suffix, data in package(stem, version, signer, digest).items()}
    return found


def package(stem: str, version: str, signer: str = MICROSOFT, digest: str = "sha256") -> dict[str, bytes]:
    """The files of one driver by suffix."""
    image = driver_file(text=f"{stem} {version}".encode())
    text = f'[Version]\nSignature="$WINDOWS NT$"\nCatalogFile={stem}.cat\nDriverVer = 08/22/2024,{version}\n'
    return {".inf": text.encode(), ".sys": image, ".cat": catalogue([image], signer, digest)}
