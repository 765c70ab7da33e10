#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_disks_info
short_description: Reads the disks of Proxmox VE guests, and the storages below
description:
  - Returns the drives of guests as data, their unused volumes, what waits for the next start of a running guest, their
    snapshots, and the storages of their nodes.
  - One task reads a whole cluster, with one list and one read for each guest.
  - What selects guests can be combined. A guest is returned if it fits everything that is given.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._policy
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.info_module
  - diskwright.proxmox._attributes.actiongroup_api
options:
  vmid:
    description: Numbers of guests. A number that does not exist is an error.
    type: list
    elements: int
  name:
    description: Names of guests. A name that does not exist is an error.
    type: list
    elements: str
  node:
    description: Nodes. Their storages are returned even if no guest is on them.
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
  gather:
    description:
      - What to read. The list of storages is one call for each node, snapshots are one call for each guest that has
        any, and one for each snapshot. Bridges are one call for each node, pools are one call.
    type: list
    elements: str
    choices: [guests, snapshots, storages, bridges, pools]
    default: [guests, snapshots, storages]
notes:
  - The user sees the guests on which it has the right C(VM.Audit), and the storages on which it has C(Datastore.Audit)
    or C(Datastore.AllocateSpace), the bridges on which it has C(SDN.Use) or C(SDN.Audit), and the pools on which it has
    C(Pool.Audit).
seealso:
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: Every guest of the cluster
  diskwright.proxmox.guest_disks_info:
  register: cluster

- name: Disks with the host cache on
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ cached | map(attribute='key') | join(', ') }}"
  vars:
    cached: >-
      {{ item.drives | dict2items | selectattr('value.options.cache', 'defined')
         | selectattr('value.options.cache', 'eq', 'writeback') }}
  loop: "{{ cluster.guests | selectattr('drives', 'defined') }}"
  loop_control:
    label: "{{ item.name }}"

- name: One guest, by its name
  diskwright.proxmox.guest_disks_info:
    name: [db1]
    gather: [guests]
  register: db

- name: Guests with a tag, and what they have not taken up yet
  diskwright.proxmox.guest_disks_info:
    tag: [production]
    gather: [guests]
  register: production
  failed_when: production.guests | selectattr('restart_required') | length > 0

- name: Hold a guest against the recommendations of today
  diskwright.proxmox.guest_disks_info:
    name: [db1]
    policy: current
    facts:
      need: {workload: database, durability: strict}
      storages:
        local-lvm: {medium: ssd}
  register: audit

- name: What to do about the worst
  ansible.builtin.debug:
    msg: "{{ item.slot }}: {{ item.reason }} ({{ item.source }})"
  loop: "{{ audit.findings | selectattr('severity', 'eq', 'danger') }}"
  loop_control:
    label: "{{ item.name }} {{ item.slot }} {{ item.rule }}"

- name: Free space where the guests of a node live
  diskwright.proxmox.guest_disks_info:
    node: [pve1]
    gather: [storages]
  register: node
"""

RETURN = r"""
guests:
  description: The guests, by number. Empty unless guests or snapshots are gathered.
  returned: success
  type: list
  elements: dict
  contains:
    vmid:
      description: Number of the guest.
      type: int
      returned: always
      sample: 120
    name:
      description: Name of the guest.
      type: str
      returned: always
      sample: db1
    node:
      description: Node that it is on.
      type: str
      returned: always
      sample: pve1
    tags:
      description: Its tags.
      type: list
      elements: str
      returned: always
      sample: [production]
    pool:
      description: Its resource pool, V(null) for none.
      type: str
      returned: always
      sample: databases
    error:
      description: Why it could not be read. The other values are missing then, and the module warns.
      type: str
      returned: if it could not be read
      sample: "GET /nodes/pve1/qemu/120/pending: 403 Permission check failed (/vms/120, VM.Audit)"
    status:
      description: V(running), V(stopped) or V(template).
      type: str
      returned: if it could be read
      sample: running
    lock:
      description: What it is locked for, V(null) for nothing.
      type: str
      returned: if it could be read
      sample: backup
    protection:
      description: Whether it is protected against removal.
      type: bool
      returned: if it could be read
      sample: false
    scsihw:
      description: Its SCSI controller, V(null) if the configuration names none, which means V(lsi).
      type: str
      returned: if it could be read
      sample: virtio-scsi-single
    boot:
      description: The devices of its boot order.
      type: list
      elements: str
      returned: if it could be read
      sample: [scsi0, net0]
    drives:
      description:
        - Drives by slot, as P(diskwright.proxmox.parse_drive#filter) returns them.
        - What waits for the next start counts as done here. See RV(guests[].waiting).
      type: dict
      returned: if it could be read
      sample:
        scsi0:
          volume: local-lvm:vm-120-disk-0
          storage: local-lvm
          format: raw
          size: 34359738368
          media: disk
          options: {cache: none, iothread: true}
    unused:
      description: Volumes that no slot uses, by their V(unusedN).
      type: dict
      returned: if it could be read
      sample: {unused0: local-lvm:vm-120-disk-3}
    unreadable:
      description: Slots whose text is no drive, with that text.
      type: dict
      returned: if it could be read
      sample: {}
    config:
      description: Drives, unused volumes, boot order and controller as Proxmox VE writes them.
      type: dict
      returned: if it could be read
      sample: {boot: order=scsi0, scsi0: "local-lvm:vm-120-disk-0,cache=none,size=32G"}
    waiting:
      description: What differs between now and the next start, by slot or key, V(null) for nothing.
      type: dict
      returned: if it could be read
      sample: {sata1: {now: null, then: "local:120/vm-120-disk-1.raw,size=1G"}}
    restart_required:
      description: The same as slots, or as options of slots.
      type: list
      elements: str
      returned: if it could be read
      sample: [sata1, scsi0.cache]
    leftovers:
      description: Keys of C(waiting) that a failed call has left, and that the next change would apply.
      type: list
      elements: str
      returned: if it could be read
      sample: []
    digest:
      description: The digest of the configuration.
      type: str
      returned: if it could be read
      sample: 59c4c1d1a1e1c9c1a1e1c9c1a1e1c9c1a1e1c9c1
    snapshots:
      description: Its snapshots and the volumes that each names.
      type: list
      elements: dict
      returned: if snapshots are gathered
      sample: [{name: before, volumes: ["local-lvm:vm-120-disk-0"]}]
bridges:
  description: The bridges that guests can use, by node, SDN's networks among them. V(null) if the node does not answer.
  returned: if bridges are gathered
  type: dict
  sample: {pve1: [vmbr0, vmbr1]}
pools:
  description: The resource pools.
  returned: if pools are gathered
  type: list
  elements: str
  sample: [web]
findings:
  description: What the policy, or common sense, has against the guests' disks, the worst first.
  returned: with a policy
  type: list
  elements: dict
  contains:
    vmid:
      description: Number of the guest.
      type: int
      returned: always
      sample: 120
    name:
      description: Name of the guest.
      type: str
      returned: always
      sample: db1
    node:
      description: Node that it is on.
      type: str
      returned: always
      sample: pve1
    slot:
      description: The slot, or V(scsihw), V(boot), V(pending) or V(restart) for the guest as a whole.
      type: str
      returned: always
      sample: scsi0
    option:
      description: The option, or V(bus), V(format), V(volume) and the like.
      type: str
      returned: always
      sample: cache
    actual:
      description: What the guest has.
      type: str
      returned: always
      sample: unsafe
    recommended:
      description: What it should have, empty where only a person can say.
      type: str
      returned: always
      sample: none
    rule:
      description: The rule that says so.
      type: str
      returned: always
      sample: cache-unsafe
    severity:
      description:
        - V(danger), V(warning) or V(info). The rule V(restart-required) is as bad as what the running guest still has.
      type: str
      returned: always
      sample: danger
    reason:
      description: Why, in a sentence.
      type: str
      returned: always
      sample: "The guest's flushes are thrown away."
    source:
      description: On whose authority.
      type: str
      returned: always
      sample: qemu-server 9.2.6, PVE/QemuServer/Blockdev.pm (no-flush)
    since:
      description: The version of Proxmox VE since which it holds, empty for all.
      type: str
      returned: always
      sample: ""
    mend:
      description:
        - What to write into the guest's variables in the inventory. The next run of the role
          P(diskwright.proxmox.guest_disks#role) mends it. V(null) where a declaration can't.
        - Unused volumes are destroyed only with C(guest_disks_allow_destroy=true).
      type: dict
      returned: always
      sample: {proxmox_disks: {scsi0: {cache: none}}}
    decides:
      description:
        - A fact about the guest that nobody knows and that would let a declaration mend it, if it holds. Say it in
          O(facts), below C(guests) and the guest's name. V(null) where that is not what lacks.
      type: dict
      returned: always
      sample: {guest: {virtio_drivers: all}}
    bytes:
      description: Space that it is about.
      type: int
      returned: for unused volumes whose size is known
      sample: 1073741824
storages:
  description: The storages that each node sees, by node. Empty unless storages are gathered.
  returned: success
  type: dict
  sample:
    pve1:
      - storage: local-lvm
        type: lvmthin
        level: block
        content: [images, rootdir]
        formats: [raw]
        snapshot_formats: [raw]
        thin: always
        shared: false
        enabled: true
        active: true
        available: 42949672960
        total: 42949672960
"""

from ..module_utils._ansible.guest_disks_info import GATHER, MORE, GuestDisksInfo
from ..module_utils._ansible.policy import policy_spec
from ..module_utils._ansible.runner import run_api_module


def main() -> None:
    """Run the module."""
    run_api_module(
        {
            **policy_spec(),
            "vmid": {"type": "list", "elements": "int"},
            "name": {"type": "list", "elements": "str"},
            "node": {"type": "list", "elements": "str"},
            "pool": {"type": "list", "elements": "str"},
            "tag": {"type": "list", "elements": "str"},
            "gather": {"type": "list", "elements": "str", "choices": [*GATHER, *MORE], "default": list(GATHER)},
        },
        GuestDisksInfo,
    )


if __name__ == "__main__":
    main()
