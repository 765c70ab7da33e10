# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/windows-which-driver.md from the table of releases: `python tests/tools/windows_table.py`.

The text around the tables is here; tests/unit/_windows/test_which_driver.py fails when the page does not say what the
tables say.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Iterable, Iterator
from pathlib import Path

if t.TYPE_CHECKING:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import Iso, Release, Signature

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "windows-which-driver.md"

HEAD = """\
<!--
SPDX-FileCopyrightText: The diskwright.proxmox authors
SPDX-License-Identifier: GPL-3.0-or-later

Made by tests/tools/windows_table.py from the table of Windows releases; do not edit.
-->
# Which driver ISO for which Windows

Windows has no driver for VirtIO disks. It comes on an ISO of the virtio-win project, and not every ISO has one for
every Windows: the newest is wrong for an old Windows, and sometimes for a new one as well. Find your Windows, take the
ISO in the last column, and put it on a storage:

```yaml
- name: The driver ISO
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    virtio_win: "{iso}"
```

"""

CHOICE = """
PVE's `ostype` does not tell clients from servers, nor 2016 from 2019. The modules ask Windows itself, or read its
registry, and go by edition and build:

"""

WHY = """
## Why not simply the newest

"""

SIGNATURES = """
A Windows loads a driver while it boots only with a signature that it accepts. This is where the newest ISO fails: it
has a folder for every Windows back to XP, and what is in the old ones has been signed in different ways over the years.
So the table is not trusted alone. `windows_inject` checks the signature of the very file that it is going to use,
against what this Windows wants, and refuses one that would not be loaded:

"""

AFTER = """
32-bit releases before Windows 8 load every driver. With Secure Boot, Windows 10 and later accept Microsoft's own
signature alone. Secure Boot does not go together with test signing, so `allow_test_signed: true` is for machines on
which you have switched it off and `bcdedit /set testsigning on` yourself.

## The ISOs

Upstream publishes no checksums of the ISOs. The digests here are what others have seen: a file that has one of them is
the file that they had. For any other file, write down the checksum of the first download and hold the next ones against
it; `storage_file` does that with `trust_file`.

"""

FOLDERS = """
Each ISO has its drivers in folders by name, release and processor, `vioscsi/2k22/amd64` for example. Its volume label
is `virtio-win-` and the version, which is also how the modules find it inside a running Windows.

## Where this comes from

"""

SOURCES = """\
- Folders and processors: virtio-win-pkg-scripts fe58e15, `util/filemap.py`. Stable builds: `make-repo.py`. Drivers
  that are shipped as they once were: `data/old-drivers`, whose signatures were read with the code of `windows_inject`.
- `scripts#n` is an issue of virtio-win-pkg-scripts, `kvm#n` one of kvm-guest-drivers-windows.
- `ostype`: qemu-server 9.2.6, `PVE/QemuServer.pm`.
- Builds: Microsoft, "Windows release information". Signatures: Microsoft, "Driver signing policy".
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = list(head)
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"


def choices(rows: Iterable[Release], isos: t.Mapping[str, Iso]) -> Iterator[str]:
    yield from table(
        ("Windows", "`ostype`", "folder", "processors", "from a disk on", "ISO"),
        (
            (
                f"**{row.title}**",
                f"`{row.ostype}`",
                f"`{row.folder}`",
                ", ".join(row.architectures),
                ", ".join(row.buses),
                f"[{row.iso}]({isos[row.iso].url})",
            )
            for row in rows
        ),
    )


def builds(rows: Iterable[Release]) -> Iterator[str]:
    yield from table(
        ("Windows", "edition", "version", "builds", "looks up drivers in"),
        (
            (
                row.title,
                row.edition.value,
                row.version,
                str(row.builds[0]) if row.builds[0] == row.builds[1] else f"{row.builds[0]} to {row.builds[1]}",
                f"`{row.registry.value}`",
            )
            for row in rows
        ),
    )


def reasons(rows: list[Release]) -> Iterator[str]:
    """Each reason once, with all releases that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row.because, row.source), []).append(row.title)
    for (because, source), titles in found.items():
        yield f"- **{', '.join(titles)}**: {because}. ({source})"
    for row in rows:
        if row.setup_iso:
            yield f"- **{row.title}**, unattended Setup: {row.setup_because}; take {row.setup_iso} for it."


def signatures(rows: Iterable[Release]) -> Iterator[str]:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import Signature as Kind

    found: dict[Signature, list[str]] = {}
    words = {
        Kind.NONE: "none",
        Kind.CROSS_SHA1: "a publisher's, with SHA-1 digests, that an authority vouches for",
        Kind.CROSS: "a publisher's that an authority vouches for, or Microsoft's",
        Kind.MICROSOFT: "Microsoft's own",
    }
    for row in rows:
        found.setdefault(row.signature, []).append(row.title)
    rows_of_words = ((", ".join(names), words[key]) for key, names in found.items())
    yield from table(("64-bit Windows", "wants a signature"), rows_of_words)


def isos(rows: Iterable[Iso]) -> Iterator[str]:
    yield from table(
        ("ISO", "stable", "known defects", "bytes", "SHA-256 that others have seen"),
        (
            (
                f"[{row.version}]({row.url})",
                "yes" if row.stable else "no",
                f"{row.defect} ({row.source})" if row.defect else "",
                str(row.size) if row.size else "",
                " ".join(f"`{digest}`" for digest in row.digests),
            )
            for row in rows
        ),
    )


def page() -> str:
    """The text of the page."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import ISOS, TABLE

    rows = list(TABLE.values())
    lines = [HEAD.replace("{iso}", TABLE["2022"].iso).rstrip("\n"), "", *choices(rows, ISOS), CHOICE.rstrip("\n"), ""]
    lines += [*builds(rows), WHY.rstrip("\n"), "", *reasons(rows), SIGNATURES.rstrip("\n"), "", *signatures(rows)]
    lines += [AFTER.rstrip("\n"), "", *isos(ISOS.values()), FOLDERS.rstrip("\n"), "", SOURCES.rstrip("\n")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(ROOT / ".cache" / "collections"))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
