# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes plugins/doc_fragments/_drive.py from the core's tables: `python tests/tools/drive_fragment.py`.

A documentation fragment has to be plain text, and the options of a drive are data: so the text is made from the data,
and tests/unit/test_documentation.py fails when somebody changed one of them alone.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WIDTH = 118

HEAD = '''\
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: this doc fragment is not part of its public API and may change in any release.
# Note that this is a doc fragment: GNU General Public License v3.0+
# (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How guests and their disks are declared. Made by tests/tools/drive_fragment.py from the tables; do not edit."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
'''

GUEST = """\
vmid:
  description: Number of the guest.
  type: int
name:
  description: Name of the guest, instead of its number. It must be unique in the cluster.
  type: str
node:
  description:
    - Node that the guest is expected on. If it is on another one, nothing is done and the task fails.
    - Need not be given. Guests are found wherever they are.
  type: str
disks:
  description:
    - What is to be in which slot. Slots that are not listed are left alone.
    - Options of a drive that are not named stay as they are, those that this version does not know among them.
  type: list
  elements: dict
  suboptions:
@DISK@
scsihw:
  description:
    - SCSI controller of the guest. V(virtio-scsi-single) is what O(@P@disks[].iothread) needs on SCSI slots.
    - A running guest takes it up at its next start.
  type: str
  choices: @CONTROLLERS@
boot:
  description:
    - Devices in the order in which the guest tries to start from them, for example V([scsi0, net0]).
    - If not given, the order is kept right by itself. A listed drive that moves to another slot stays listed under its
      new name, and the first disk of a guest that has none goes into an empty order.
  type: list
  elements: str
undeclared:
  description:
    - What happens to drives that the guest has and O(@P@disks) does not list.
    - With V(keep) nothing. The result names them, and so does the diff of a guest that something else changes.
    - With V(report) nothing either, but the diff names them also when nothing changes.
    - With V(detach) undeclared disks are detached. Their volumes are kept as unused. CD-ROM, cloud-init, EFI and TPM
      drives are never touched in this way.
  type: str
  choices: @UNDECLARED@@D_UNDECLARED@
power:
  description:
    - What to do about changes that Proxmox VE can't make while the guest runs, such as moving the boot disk to another
      bus.
    - With V(never) they are refused before anything is written.
    - With V(stop_if_needed) the guest is shut down for them, and started again. It is never stopped by force.
    - Changes that merely wait for the next start never stop a guest. They are returned in
      RV(guests[].restart_required).
  type: str
  choices: @POWER@@D_POWER@
revert_leftovers:
  description:
    - Whether to take back first what somebody's failed call has left waiting in the guest's configuration.
    - Proxmox VE applies such left-overs together with the next change, whatever that is about. Without this option
      they are named, and a guest that has them is not changed.
  type: bool@D_REVERT@
"""

DISK = """\
slot:
  description: Where the drive is, V(ide0) to V(ide3), V(sata0) to V(sata5), V(scsi0) to V(scsi30), V(virtio0) to
    V(virtio15), V(efidisk0), V(tpmstate0), or with O(@P@disks[].state=absent) also V(unused0) to V(unused255).
  type: str
  required: true
state:
  description:
    - With V(detached) the slot is emptied and its volume kept as C(unusedN).
    - With V(absent) the slot is emptied and its volume destroyed, which needs O(allow_destroy=true).
  type: str
  choices: @STATES@
  default: present
storage:
  description:
    - Storage of the volume. Needed for a new one.
    - A disk that is on another storage is moved, while the guest runs if it runs.
  type: str
size:
  description:
    - Size, for example V(64G), V(64GiB), V(1.5T), V(65536M). A plain number means GiB.
    - Disks grow and never shrink. A size below the real one is refused, unless O(@P@disks[].minimum=true).
  type: str
minimum:
  description: Whether a disk that is larger than O(@P@disks[].size) is right as it is.
  type: bool
  default: false
format:
  description:
    - Format of the image. By default Proxmox VE chooses for a new disk.
    - A disk that has another format is converted.
  type: str
  choices: @FORMATS@
volume:
  description:
    - An existing volume of the guest to attach, V(local-lvm:vm-100-disk-3) or V(unused0).
    - A V(unusedN) is only ever put into an empty slot, because its number says nothing in a second run.
  type: str
moved_from:
  description:
    - The slot where the disk was. The same volume comes into O(@P@disks[].slot), on another bus if that is one.
      Nothing is copied.
    - With O(@P@disks[].moved_from_guest) the slot of another guest, or the V(unusedN) that keeps the volume there.
    - Once it has moved this option says nothing more, and can stay or go.
  type: str
moved_from_guest:
  description:
    - Another guest, by its number or its name, that O(@P@disks[].moved_from) is a slot of. Proxmox VE gives the volume
      a new name and takes the drive out of the other guest and its boot order. Nothing is copied.
    - Both guests have to be on one node, and the other one must not run, unless an V(unusedN) of it is named. A disk
      that a snapshot needs stays where it is, and so do CD-ROM and cloud-init drives.
    - The drive keeps its options. Those that the new bus does not have are taken off it. What else is declared for
      O(@P@disks[].slot) is done once it is there.
    - Once it has moved this option says nothing more, and can stay or go together with O(@P@disks[].moved_from). The
      other guest may be gone by then.
  type: str
import_from:
  description:
    - Volume that a new disk is a copy of. An image with the content type import, V(local:import/web.qcow2), a disk of
      another guest, V(local-lvm:vm-9000-disk-0), or a member of an OVA, V(local:import/app.ova/disk1.vmdk).
    - Absolute paths work only for C(root@pam) with a password.
    - Says nothing about a disk that is there.
  type: str
media:
  description: With V(cdrom) the slot holds a CD-ROM drive.
  type: str
  choices: [disk, cdrom]
iso:
  description:
    - What is in the CD-ROM drive, V(local:iso/virtio-win.iso), V(none) for an empty drive, or V(cdrom) for the drive of
      the node. If not given, the medium is left as it is.
    - Makes the slot a CD-ROM drive by itself.
  type: str
cloudinit:
  description: Whether the slot holds the cloud-init drive. It is made on O(@P@disks[].storage).
  type: bool
  default: false
unset:
  description: Options to remove from the drive, so that Proxmox VE's defaults hold.
  type: list
  elements: str
  default: []
delete_source:
  description:
    - Whether a move or a conversion destroys the volume that it leaves. By default that is kept as unused.
  type: bool
  default: false
flatten:
  description:
    - Whether a linked clone's disk is made independent of its base volume, by copying it.
    - On its own storage Proxmox VE copies only into another format. So this needs another O(@P@disks[].storage),
      another O(@P@disks[].format), or O(@P@disks[].delete_source=true) for two copies.
  type: bool
  default: false
"""

TAIL = '''"""
'''


def disk_text(prefix: str) -> str:
    """The options of one disk, those of the table included."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.argspec import (
        argument_name,
        disk_spec,
    )
    from ansible_collections.diskwright.proxmox.plugins.module_utils._core.options import TABLE, Effect

    effects = {
        Effect.RESTART: "A running guest takes a change up at its next start.",
        Effect.LIVE: "A running guest takes a change up at once.",
        Effect.SILENT: "A running guest takes a change up at its next start, although Proxmox VE shows it at once.",
        Effect.FIXED: "Belongs to the volume as it was made. A different value for an existing volume is refused.",
    }
    lines = [DISK.rstrip("\n")]
    spec = disk_spec()
    for row in sorted(TABLE.values(), key=lambda row: row.name):
        argument = spec[argument_name(row.name)]
        about = f"{row.about[0].upper()}{row.about[1:]}."
        where = f"For {', '.join(sorted(row.buses))}."
        needs = f" Only together with O({prefix}disks[].{argument_name(row.needs)})." if row.needs else ""
        default = f" Proxmox VE's default is V({_shown(row)})." if row.default is not None else ""
        lines.append(f"{argument_name(row.name)}:\n  description:")
        for sentence in (f"{about}{default}", f"{where}{needs} {effects[row.effect]}"):
            lines.append(textwrap.fill(sentence, 100, initial_indent="    - ", subsequent_indent="      "))
        lines.append(f"  type: {argument['type']}")
        if row.choices:
            lines.append(f"  choices: [{', '.join(_quoted(choice) for choice in row.choices)}]")
    return "\n".join(lines).replace("@P@", prefix)


def _shown(row: object) -> str:
    kind, default = getattr(row, "kind"), getattr(row, "default")  # noqa: B009
    return {"1": "true", "0": "false"}[default] if kind.value == "boolean" else default


def _quoted(choice: str) -> str:
    return f'"{choice}"' if choice in ("on", "off", "yes", "no") or choice.isdigit() else choice


def guest_text(prefix: str, *, defaults: bool) -> str:
    """The options of one guest; those for many guests have no defaults of their own."""
    from ansible_collections.diskwright.proxmox.plugins.module_utils._core import layout

    disk = textwrap.indent(disk_text(prefix), "    ")
    text = GUEST.replace("@DISK@", disk).replace("@P@", prefix)
    for name, value in (
        ("CONTROLLERS", layout.CONTROLLERS),
        ("UNDECLARED", layout.UNDECLARED),
        ("POWER", layout.POWER),
        ("STATES", layout.STATES),
        ("FORMATS", layout.FORMATS),
    ):
        text = text.replace(f"@{name}@", f"[{', '.join(value)}]")
    for name, value in (("D_UNDECLARED", "keep"), ("D_POWER", "never"), ("D_REVERT", "false")):
        text = text.replace(f"@{name}@", f"\n  default: {value}" if defaults else "")
    return text


FACTS = """\
facts:
  description: What rules of O(policy) may look at of this guest, in the groups of O(facts). It goes before what is said
    there.
  type: dict
"""

GUESTS = """\
guests:
  description:
    - Many guests, each declared like one alone. They are read together and changed side by side.
    - What a guest does not say of O(undeclared), O(power) and O(revert_leftovers) is taken from the task.
    - One guest's failure does not keep the others from being changed.
  type: list
  elements: dict
  suboptions:
@GUEST@
allow_destroy:
  description:
    - Whether O(disks[].state=absent) may destroy data. Without it such a declaration is refused.
    - Nothing else is ever destroyed, except what O(disks[].delete_source) names.
  type: bool
  default: false
concurrency:
  description: How many guests are changed at a time.
  type: int
  default: 4
bwlimit:
  description: Limit for moves and conversions in KiB/s. By default the limit that is set in Proxmox VE.
  type: int
"""


def fragment() -> str:
    """The text of the fragment's file."""
    one = guest_text("", defaults=True)
    many = GUESTS.replace("@GUEST@", textwrap.indent(guest_text("guests[].", defaults=False) + FACTS, "    "))
    lines = textwrap.indent(one + many, "  ").splitlines()
    return HEAD + "\n".join(folded(line) for line in lines) + "\n" + TAIL


def folded(line: str) -> str:
    """A line of YAML text, folded where deeper nesting has made it too long."""
    if len(line) <= WIDTH:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Write the file."""
    sys.path.insert(0, str(ROOT / ".cache" / "collections"))
    text = fragment()
    (ROOT / "plugins" / "doc_fragments" / "_drive.py").write_text(text)


if __name__ == "__main__":
    main()
