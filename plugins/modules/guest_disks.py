#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_disks
short_description: Declares the disks of Proxmox VE guests, and converges them
description:
  - Takes a declaration of which disk is to be in which slot, of one guest or of a thousand, works out what that takes,
    and does it. Disks are created, imported, attached, resized, moved, converted, brought to another bus or to another
    guest, detached, and their options changed.
  - Everything that can't be done, or would lose data, is found before the first write and reported together.
  - Nothing is removed because it is not mentioned. Neither drives, nor options of drives.
  - A guest that is as declared costs one read.
  - Works beside C(community.proxmox), with the same connection options and environment variables.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._drive
  - diskwright.proxmox._policy
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  recommend:
    description:
      - Where a O(policy) fills in what the declaration leaves open (format, cache, AIO, I/O thread, discard and the
        like, and the controller of a guest that has no SCSI disk yet).
      - With V(on_create) only for disks that the task makes. A disk that is there is never changed.
      - With V(always) for every declared disk, except that the format of an image that is there stays, and that a disk
        with O(disks[].moved_from_guest) is left as it comes.
      - With V(never) nowhere.
      - The result says which value came from which rule, and the diff names the rules.
    type: str
    choices: [on_create, always, never]
    default: on_create
notes:
  - A run that was killed is finished by the next one. Three jobs that take several calls (a drive that changes its bus
    while the guest runs, a guest that is shut down for a change, and the first disk of a guest that comes from another
    one) are noted for that purpose in the guest's notes, as a comment that the web interface does not show, until they
    are done.
  - Where one task declares both the guest that gives a disk and the one that takes it, the latter comes first. What is
    returned of the former is what is left after that. It may declare the slot with O(disks[].state=detached) only.
  - After growing a disk, partitions and file systems inside the guest are as they were.
    M(diskwright.proxmox.guest_grow) lets them have the space.
  - The user needs the rights C(VM.Audit) and C(VM.Config.Disk) on the guests, those of O(disks[].moved_from_guest)
    among them, C(VM.Config.CDROM) for CD-ROM drives,
    C(VM.Config.HWType) for O(scsihw), C(VM.Config.Options) for changes that are noted in the guest,
    C(VM.Config.Cloudinit) for cloud-init drives, C(VM.PowerMgmt) for O(power=stop_if_needed), C(VM.Clone) on a guest
    whose disk is copied, C(Datastore.AllocateSpace) on storages where volumes are made, grow, are destroyed or get
    another owner, and C(Datastore.Audit) on storages whose volumes or images are named.
seealso:
  - module: diskwright.proxmox.guest_disks_info
  - module: diskwright.proxmox.guest_grow
"""

EXAMPLES = r"""
- name: The disks of one guest
  diskwright.proxmox.guest_disks:
    vmid: 120
    scsihw: virtio-scsi-single
    disks:
      - slot: scsi0
        size: 2G
        cache: none
      - slot: scsi1
        storage: tank
        size: 500M
        iothread: true
        discard: "on"
        ssd: true
        backup: false

- name: From SATA to SCSI, without copying, the boot order follows
  diskwright.proxmox.guest_disks:
    name: db1
    disks:
      - slot: scsi2
        moved_from: sata0

- name: Take the data disk of a guest that is replaced, without copying
  diskwright.proxmox.guest_disks:
    name: wiki2
    disks:
      - slot: scsi1
        moved_from: sata2
        moved_from_guest: wiki1
        cache: none

- name: Move a disk to another storage while the guest runs, and convert it
  diskwright.proxmox.guest_disks:
    vmid: 121
    disks:
      - slot: virtio1
        storage: local
        format: qcow2
        delete_source: true

- name: A disk from an image, a driver ISO, and an EFI disk with Secure Boot keys
  diskwright.proxmox.guest_disks:
    vmid: 122
    disks:
      - slot: scsi0
        storage: local-lvm
        import_from: local:import/img.qcow2
        size: 1G
      - slot: ide0
        iso: local:iso/virtio-win.iso
      - slot: efidisk0
        storage: local-lvm
        efitype: 4m
        pre_enrolled_keys: true
    boot: [scsi0, ide0]

- name: Let a policy choose what is left open
  diskwright.proxmox.guest_disks:
    vmid: 120
    policy: current
    facts:
      need: {workload: database, durability: strict}
      storages:
        tank: {medium: nvme}
    disks:
      - slot: scsi3
        storage: tank
        size: 100M

- name: Keep one disk's volume as unused, destroy another
  diskwright.proxmox.guest_disks:
    vmid: 123
    allow_destroy: true
    disks:
      - slot: scsi1
        state: detached
      - slot: scsi2
        state: absent

- name: Many guests in one task, and what needs a restart
  diskwright.proxmox.guest_disks:
    guests:
      - vmid: 120
        disks:
          - slot: scsi0
            cache: writeback
      - name: web1
        disks:
          - slot: scsi0
            cache: writeback
  register: disks

- name: Say which guests have not taken everything up yet
  ansible.builtin.debug:
    msg: "{{ item.name }} needs a restart for {{ item.restart_required | join(', ') }}"
  loop: "{{ disks.guests | selectattr('restart_required') }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
guests:
  description: Every guest's outcome, in the order in which they were declared.
  returned: always, as soon as the API could be asked
  type: list
  elements: dict
  contains:
    vmid:
      description: Number of the guest.
      type: int
      returned: always, V(null) if it was declared by name and not found
      sample: 120
    name:
      description: Name of the guest.
      type: str
      returned: always, V(null) if it was declared by number and not found
      sample: db1
    node:
      description: Node that the guest is on.
      type: str
      returned: if the guest could be read
      sample: pve1
    status:
      description: What the guest was doing when it was planned, V(running), V(stopped) or V(template).
      type: str
      returned: if the guest could be read
      sample: stopped
    changed:
      description: Whether anything was done, or in check mode would be.
      type: bool
      returned: always
      sample: true
    failed:
      description: Whether the guest is not as declared.
      type: bool
      returned: always
      sample: false
    actions:
      description: The steps, in their order.
      type: list
      elements: dict
      returned: always
      contains:
        action:
          description: What kind of step, for example V(create), V(change), V(switch), V(reassign), V(resize), V(move),
            V(detach).
          type: str
          returned: always
          sample: change
        slot:
          description: The slot, empty for the guest as a whole.
          type: str
          returned: always
          sample: scsi0
        summary:
          description: The step in words.
          type: str
          returned: always
          sample: cache writeback -> none
        state:
          description: V(planned) in check mode, else V(done), V(failed) or V(remaining).
          type: str
          returned: always
          sample: done
    before:
      description: Drives, unused volumes, boot order and controller as they were configured, as Proxmox VE writes them.
      type: dict
      returned: if the guest could be read
      sample: {"boot": "order=scsi0", "scsi0": "local-lvm:vm-120-disk-0,cache=writeback,size=1G"}
    after:
      description:
        - The same afterwards. In check mode, as they would be, with V((new\)) for names that Proxmox VE will choose.
      type: dict
      returned: if the guest could be read
      sample: {"boot": "order=scsi0", "scsi0": "local-lvm:vm-120-disk-0,cache=none,size=2G"}
    restart_required:
      description:
        - What the running guest takes up only at its next start, as slots or as options of slots.
        - Options that Proxmox VE does not show as pending (V(serial), V(wwn), V(model), V(detect_zeroes), V(rerror),
          V(werror)) are returned by the run that changes them.
      type: list
      elements: str
      returned: if the guest could be read
      sample: ["scsi0.cache"]
    undeclared:
      description: Slots with a drive that the declaration does not list.
      type: list
      elements: str
      returned: if the guest could be read
      sample: ["virtio0"]
    unused:
      description: Volumes of the guest that no slot uses, by their V(unusedN).
      type: dict
      returned: if the guest could be read
      sample: {"unused0": "local-lvm:vm-120-disk-3"}
    leftovers:
      description: Keys that an earlier call has left waiting, see O(revert_leftovers).
      type: list
      elements: str
      returned: if the guest could be read
      sample: []
    recommended:
      description: What a policy has filled in, each with its rule, the reason, who says so, and since when.
      type: list
      elements: dict
      returned: if a policy was asked about the guest
      sample: [{slot: scsi3, option: cache, value: none, rule: database-cache, reason: …, source: …, since: ""}]
    warnings:
      description: What is worth knowing, the warnings of Proxmox VE's tasks among it.
      type: list
      elements: str
      returned: always
      sample: []
    errors:
      description: Why the guest is not as declared, each reason with what to do.
      type: list
      elements: str
      returned: always
      sample: []
    upid:
      description: The task that had not ended when the time was over, and goes on.
      type: str
      returned: if there is one
      sample: "UPID:pve1:0004C3D2:0A3F5B1C:69218F10:qmmove:120:root@pam!ansible:"
"""

from ..module_utils._ansible.argspec import layout_spec
from ..module_utils._ansible.guest_disks import GuestDisks
from ..module_utils._ansible.policy import recommend_spec
from ..module_utils._ansible.runner import Rules, run_api_module

_FOR_ONE = ("vmid", "name", "node", "disks", "scsihw", "boot")


def main() -> None:
    """Run the module."""
    run_api_module(
        {**layout_spec(), **recommend_spec()},
        GuestDisks,
        Rules(
            mutually_exclusive=tuple(("guests", option) for option in _FOR_ONE),
            required_one_of=(("vmid", "name", "guests"),),
            spares_guests=True,
        ),
    )


if __name__ == "__main__":
    main()
