#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_grow
short_description: Finishes the resize of a disk inside the guest
description:
  - Proxmox VE's resize ends at the disk. This module looks into a running guest through the guest agent, finds what is
    unused at the ends of its disks, and lets the last partition, the LVM volumes and the file system on it have it,
    while they are in use.
  - In Linux it knows GPT and MBR (logical partitions too), LVM, ext2 to ext4, XFS and Btrfs. In Windows 8, Server 2012
    and later it uses C(Resize-Partition).
  - Where a step would not be safe (swap, a recovery partition or anything else lies last on the disk, or there are
    layers such as LUKS, mdraid and ZFS) nothing on that disk is changed, and the result says what a person has to do.
  - Nothing ever shrinks or moves.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._guest
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  slot:
    description:
      - Slots of disks, for example V(scsi0).
      - A disk that is named and can't be grown is an error. Without this option all disks are looked at, and what can't
        be grown is a warning.
    type: list
    elements: str
  logical_volume:
    description:
      - The logical volume that takes the space where several of a volume group could, by its name, as V(group/name), or
        by its path.
      - Not needed where only one has a file system that can grow.
    type: str
notes:
  - Only the space that a disk has gained goes to a logical volume. What was free in its volume group before stays free.
    Until that is done, a tag of the volume group remembers how much that was.
  - A run that was cut short is finished by the next one.
  - Before a partition table is changed it is returned in RV(disks[].table). C(sfdisk) puts it back.
  - The guest agent must be enabled in the guest's configuration, run in the guest, and be allowed to execute commands
    and to write files there. Red Hat's distributions forbid both by default.
  - The user needs the rights C(VM.Audit) and C(VM.GuestAgent.Unrestricted) on the guest, before Proxmox VE 9
    C(VM.Monitor).
  - O(task_timeout) limits the work inside the guest.
seealso:
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: A larger disk
  diskwright.proxmox.guest_disks:
    vmid: 141
    disks:
      - slot: scsi0
        size: 2G

- name: And all of it for the file system
  diskwright.proxmox.guest_grow:
    vmid: 141
    slot: [scsi0]

- name: Whatever is unused at the ends of a guest's disks
  diskwright.proxmox.guest_grow:
    name: app2
  register: grown

- name: What remains for a person
  ansible.builtin.debug:
    msg: "{{ item.slot }}: {{ item.todo }}"
  loop: "{{ grown.disks | selectattr('todo') }}"
  loop_control:
    label: "{{ item.slot }}"
"""

RETURN = r"""
vmid:
  description: Number of the guest.
  returned: success
  type: int
  sample: 140
name:
  description: Name of the guest.
  returned: success
  type: str
  sample: app2
node:
  description: Node that it is on.
  returned: success
  type: str
  sample: pve1
disks:
  description: The disks that were looked at.
  returned: success
  type: list
  elements: dict
  contains:
    slot:
      description: Slot of the disk.
      type: str
      returned: always
      sample: scsi0
    device:
      description: How the guest calls it, in Windows its number, V(null) if that can't be told.
      type: str
      returned: always
      sample: sda
    actions:
      description: What was done, or in check mode would be.
      type: list
      elements: dict
      returned: always
      contains:
        what:
          description: The partition, volume, or mount point.
          type: str
          returned: always
          sample: sda2
        text:
          description: What happens to it.
          type: str
          returned: always
          sample: 31 GiB -> 63 GiB, to the end of sda
        state:
          description: V(planned) or V(done).
          type: str
          returned: always
          sample: done
    todo:
      description: What only a person can do, and why, V(null) for nothing.
      type: str
      returned: always
      sample: "sda5: it is the last on the disk, and is swap; move swap away from the end of the disk"
    table:
      description: The partition table before the change, as C(sfdisk) reads it, V(null) if nothing changes.
      type: str
      returned: always
      sample: "label: gpt\n..."
"""

from ..module_utils._ansible.guest_grow import GuestGrow, guest_grow_spec
from ..module_utils._ansible.one_guest import ONE_GUEST
from ..module_utils._ansible.runner import run_api_module


def main() -> None:
    """Run the module."""
    run_api_module(guest_grow_spec(), GuestGrow, ONE_GUEST)


if __name__ == "__main__":
    main()
