#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: windows_migrate_info
short_description: Says where Windows guests stand on their way to VirtIO
description:
  - Looks at the Windows guests of a cluster, asks those that run and have an agent, and says of each whether its disks
    are on VirtIO, whether it could be switched now, what it needs, or why it can't be.
  - Guests that Proxmox VE does not take for a Windows (C(ostype)) are left out.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.info_module
  - diskwright.proxmox._attributes.actiongroup_api
options:
  vmid:
    description: Numbers of guests. Those that have one of them or one of the O(name) are meant, by default all.
    type: list
    elements: int
  name:
    description: Names of guests.
    type: list
    elements: str
  ignore_absent:
    description: Whether numbers and names that do not exist are left out with a warning, instead of being an error.
    type: bool
    default: false
  node:
    description: Nodes. This, O(pool) and O(tag) narrow down what is meant.
    type: list
    elements: str
  pool:
    description: Resource pools.
    type: list
    elements: str
  tag:
    description: Tags. A guest fits if it has one of them.
    type: list
    elements: str
  bus:
    description: The bus that they are to go to.
    type: str
    choices: [scsi, virtio]
    default: scsi
  data_disks:
    description: Whether all disks are looked at, or only the one that Windows starts from.
    type: bool
    default: true
  concurrency:
    description: How many guests are asked at a time.
    type: int
    default: 8
notes:
  - A Windows is asked by a script that its agent runs, which takes some seconds and changes nothing.
  - The user needs the rights C(VM.Audit) and C(VM.GuestAgent.Unrestricted) (before Proxmox VE 9 C(VM.Monitor)). Without
    the latter no Windows is asked, and RV(guests[].reason) says so.
seealso:
  - module: diskwright.proxmox.windows_migrate
"""

EXAMPLES = r"""
- name: Where do my Windows guests stand?
  diskwright.proxmox.windows_migrate_info:
  register: windows

- name: Those that are not on VirtIO
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.standing }} {{ item.reason }}"
  loop: "{{ windows.guests | selectattr('standing', 'defined') | rejectattr('standing', 'eq', 'on_virtio') }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
guests:
  description: The Windows guests, by number.
  returned: success
  type: list
  elements: dict
  contains:
    vmid:
      description: Number of the guest.
      type: int
      returned: always
      sample: 122
    name:
      description: Name of the guest.
      type: str
      returned: always
      sample: win1
    node:
      description: Node that it is on.
      type: str
      returned: always
      sample: pve1
    error:
      description: Why it could not be read. The other values are missing then, and the module warns.
      type: str
      returned: if it could not be read
      sample: "win1 (122): GET /nodes/pve1/qemu/122/pending: 403 Permission check failed (/vms/122, VM.Audit)"
    standing:
      description:
        - V(on_virtio) if all its disks are there, V(staged) if Windows would start from VirtIO now, V(needs_drivers) if
          it would not or nobody can say, V(impossible) if there is no way, V(under_way) if a migration has begun and
          not ended, V(needs_verdict) if it was started from VirtIO and somebody has to look at its console and run
          M(diskwright.proxmox.windows_migrate) with O(diskwright.proxmox.windows_migrate#module:verdict),
          V(rolled_back) if one was taken back.
      type: str
      returned: if it could be read
      sample: needs_drivers
    reason:
      description: Why.
      type: str
      returned: if it could be read
      sample: vioscsi is not installed
    hindrances:
      description: What has to be done before it can be migrated, and the rights that the user lacks for it.
      type: list
      elements: str
      returned: if it could be read
      sample: []
    status:
      description: V(running), V(stopped) or V(template).
      type: str
      returned: if it could be read
      sample: running
    ostype:
      description: What Proxmox VE takes it for.
      type: str
      returned: if it could be read
      sample: win11
    product:
      description: How Windows calls itself, V(null) if it was not asked.
      type: str
      returned: if it could be read
      sample: Windows Server 2022 Standard
    release:
      description: Key of its release, V(null) if it was not asked or is not known.
      type: str
      returned: if it could be read
      sample: "2022"
    agent:
      description: Whether its agent answers.
      type: bool
      returned: if it could be read
      sample: true
    virtio_win:
      description: Version of the driver ISO for it, V(null) if there is none.
      type: str
      returned: if it could be read
      sample: 0.1.271
    boot_slot:
      description: The slot that it starts from, V(null) if that is not known.
      type: str
      returned: if it could be read
      sample: sata0
    scsihw:
      description: Its SCSI controller, V(null) if the configuration names none.
      type: str
      returned: if it could be read
      sample: virtio-scsi-single
    phase:
      description: How far a migration that is under way has come, V(null) if none is.
      type: str
      returned: if it could be read
      sample: null
"""

from ..module_utils._ansible.runner import run_api_module
from ..module_utils._ansible.windows_migrate import WindowsMigrateInfo, info_spec


def main() -> None:
    """Run the module."""
    run_api_module(info_spec(), WindowsMigrateInfo)


if __name__ == "__main__":
    main()
