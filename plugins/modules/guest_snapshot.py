#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_snapshot
short_description: Takes and removes snapshots of a Proxmox VE guest, and goes back to them
description:
  - Makes sure that a guest has a snapshot, does not have it, or is as it was when the snapshot was taken.
  - Says before anything is written whether a snapshot can be taken of every disk of the guest, and if not, of which
    disk it can't, why, and what to do about it. Proxmox VE itself only says that it is not available.
  - Says as well when a storage could not go back to a snapshot because there are newer ones (ZFS, and storages with
    volume chains).
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._guest
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.actiongroup_api
attributes:
  check_mode:
    support: full
    details:
      - The plan is the one that a real run carries out.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - Nothing tells what a guest has written since it was rolled back. See O(state=rolled_back).
options:
  snapshot:
    description: Name of the snapshot. It begins with a letter and has 2 to 40 letters, digits, V(-) and V(_).
    type: str
    required: true
  state:
    description:
      - With V(present), there is a snapshot of this name. One that is there already is kept, however old it is.
      - With V(absent), there is none.
      - With V(rolled_back), the guest's disks and its configuration are as in the snapshot. B(Everything that has
        happened since is lost). Disks that were made since are kept as unused volumes. A running guest is stopped for
        it, without being asked to shut down, because what it would write is lost anyway.
      - A guest is left alone only if nothing can have happened since it was rolled back, that is if it is stopped, its
        present state goes back to this snapshot, its configuration is the snapshot's, no task has touched it since
        the rollback, and the user may see every task (C(Sys.Audit) on the node). In every other case it is rolled
        back, possibly once more, which does no harm.
    type: str
    choices: [present, absent, rolled_back]
    default: present
  description:
    description:
      - What the snapshot is for. An existing one's description is changed. If not given, it is left as it is.
      - Only with O(state=present).
    type: str
  vmstate:
    description:
      - Whether the memory of the running guest is in the snapshot, so that going back to it continues from there.
      - A snapshot is taken without it by default. If an existing one is not as given here, the task is refused, because
        that can't be changed.
      - Only with O(state=present).
    type: bool
  start:
    description:
      - Whether to start the guest after it was rolled back. From a snapshot with O(vmstate=true) it goes on by itself.
      - Only with O(state=rolled_back).
    type: bool
    default: false
notes:
  - The user needs the rights C(VM.Audit) and C(VM.Snapshot) on the guest (C(VM.Snapshot.Rollback) is enough for
    O(state=rolled_back)), and C(VM.PowerMgmt) for O(start=true). To be told which disk stands in the way and why, it
    needs C(Datastore.Audit) on the storages.
  - A snapshot is no backup. It is lost together with the storage.
  - The option C(snapshot) of a drive, which threw away at the stop what was written, does not work any more with
    machine versions from 10.0. The example below does the same with a snapshot.
seealso:
  - module: diskwright.proxmox.guest_power
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: A snapshot before an upgrade
  diskwright.proxmox.guest_snapshot:
    name: shop1
    snapshot: before-upgrade
    description: Before the upgrade to version 2

- name: The old snapshot is not needed any more
  diskwright.proxmox.guest_snapshot:
    name: shop1
    snapshot: last-year
    state: absent

# Throw-away changes: take a snapshot, work, and go back
- name: Throw-away changes begin
  diskwright.proxmox.guest_snapshot:
    vmid: 129
    snapshot: throw-away

- name: Throw-away changes are made, for example a disk too much
  diskwright.proxmox.guest_disks:
    vmid: 129
    disks:
      - {slot: scsi1, storage: local-lvm, size: 64M}

- name: Throw-away changes end
  diskwright.proxmox.guest_snapshot:
    vmid: 129
    snapshot: throw-away
    state: rolled_back
"""

RETURN = r"""
vmid:
  description: Number of the guest.
  returned: success
  type: int
  sample: 128
name:
  description: Name of the guest.
  returned: success
  type: str
  sample: shop1
node:
  description: Node that it is on.
  returned: success
  type: str
  sample: pve1
status:
  description: Whether the guest is V(running) or V(stopped), in check mode before, otherwise afterwards.
  returned: success
  type: str
  sample: running
step:
  description:
    - What was done, or in check mode would be, V(take), V(describe), V(delete), V(roll back), or V(null) for nothing.
  returned: success
  type: str
  sample: take
snapshots:
  description: All snapshots of the guest, the oldest first, in check mode as they are before.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the snapshot.
      type: str
      returned: always
      sample: before-upgrade
    parent:
      description: The snapshot that the guest's state went back to when this one was taken, V(null) for none.
      type: str
      returned: always
      sample: last-year
    time:
      description: When it was taken, in seconds since 1970.
      type: int
      returned: always
      sample: 1795557600
    vmstate:
      description: Whether the memory is in it.
      type: bool
      returned: always
      sample: false
    description:
      description: What it is for.
      type: str
      returned: always
      sample: Before the upgrade to version 2
    incomplete:
      description: What a job that was interrupted was doing to it, V(prepare) or V(delete), empty for a sound one.
      type: str
      returned: always
      sample: ""
parent:
  description: The snapshot that the guest's present state goes back to, V(null) for none.
  returned: success
  type: str
  sample: before-upgrade
upid:
  description: The task that had not ended when the time was over, and goes on.
  returned: if there is one
  type: str
  sample: "UPID:pve1:0004C3D2:0A3F5B1C:69218F10:qmsnapshot:128:root@pam!ansible:"
"""

from ..module_utils._ansible.guest_snapshot import GuestSnapshot, snapshot_spec
from ..module_utils._ansible.one_guest import ONE_GUEST
from ..module_utils._ansible.runner import run_api_module


def main() -> None:
    """Run the module."""
    run_api_module(snapshot_spec(), GuestSnapshot, ONE_GUEST)


if __name__ == "__main__":
    main()
