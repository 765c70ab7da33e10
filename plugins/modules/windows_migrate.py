#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: windows_migrate
short_description: Brings the disks of Windows guests to VirtIO, watches them start, and takes it back if they don't
description:
  - A Windows that is switched to VirtIO without its driver stops with INACCESSIBLE_BOOT_DEVICE. This module brings the
    driver in, asks Windows for proof that it loads it while it boots, switches all disks in one call, starts the guest,
    and waits until Windows answers and says that it runs from VirtIO. If it does not, everything goes back to where it
    was, by itself.
  - Where it stands is kept in the guest's own notes, as a comment that the web interface does not show. A run that was
    killed is finished by the next one, from whatever machine.
  - A guest ends on VirtIO or exactly as it began. A guest whose disk is in two slots is never started.
  - Without a guest agent it stops when the guest is off and its disk needs the driver (RV(guests[].state) is
    V(needs_offline_staging)). M(diskwright.proxmox.windows_inject) puts it there, and the same task with O(injected)
    goes on. The role P(diskwright.proxmox.windows_virtio#role) does all of it.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._guest
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  vmid:
    description: Number of the guest. One of this, O(name) and O(guests) is needed.
  guests:
    description:
      - Several guests, instead of the options for one. What one of them does not say is taken from the task.
    type: list
    elements: dict
    suboptions: &wishes
      vmid:
        description: Number of the guest.
        type: int
      name:
        description: Name of the guest.
        type: str
      node:
        description: Node that the guest must be on.
        type: str
      bus: &bus
        description:
          - The bus that its disks go to. V(scsi) with the controller C(virtio-scsi-single), or the VirtIO SCSI
            controller that the guest has already; V(virtio) for VirtIO block.
          - Windows before Vista has a driver for V(virtio) only.
          - By default V(scsi).
        type: str
        choices: [scsi, virtio]
      data_disks: &data_disks
        description:
          - Whether all disks on IDE, SATA and other controllers go there, or only the one that Windows starts from.
          - By default V(true).
        type: bool
      staging: &staging
        description:
          - How the driver comes into Windows. V(online) installs it through the guest agent, V(offline) leaves it to
            M(diskwright.proxmox.windows_inject) while the guest is off, V(auto) takes V(online) if the agent answers.
          - With V(online) a stopped guest is started for it, and is stopped again at the end.
          - By default V(auto).
        type: str
        choices: [auto, online, offline]
      iso: &iso
        description:
          - Driver ISO, as Proxmox VE lists it. Needed for V(online), unless Windows has the driver already or sees such
            an ISO in a drive.
        type: str
      injected: &injected
        description:
          - Drivers that M(diskwright.proxmox.windows_inject) has put into the stopped guest's disk. They count as
            proven.
        type: list
        elements: str
        choices: [vioscsi, viostor]
      snapshot: &snapshot
        description:
          - Whether a snapshot is made of the stopped guest before the switch. With V(required) a guest of which none
            can be made is refused. It is deleted when Windows has proven itself, or is back where it was and answers.
          - By default V(required).
        type: str
        choices: [required, if_possible, never]
      keep_snapshot: &keep_snapshot
        description:
          - Whether the snapshot stays when all went well.
          - By default V(false).
        type: bool
      switch_without_proof: &switch_without_proof
        description:
          - Whether to switch although nothing proves that Windows loads the driver while it boots.
          - By default V(false).
        type: bool
      verdict: &verdict
        description:
          - Who says whether Windows runs well after the switch. With V(agent) its guest agent does.
          - For a guest without an agent a person has to look at the console. V(commit) says that all is well,
            V(roll_back) that everything is to go back.
          - V(roll_back) also turns back a migration that has not come so far. A guest of which none is under way is
            refused.
          - By default V(agent).
        type: str
        choices: [agent, commit, roll_back]
      retry: &retry
        description:
          - Whether to try again with a guest that was rolled back. Without it such a guest is left alone, with a
            warning. With it, it is looked at as if nothing had been tried yet.
          - By default V(false).
        type: bool
      force_stop: &force_stop
        description:
          - Whether a running Windows that does not shut down in time may be switched off.
          - A Windows that does not come up on VirtIO is switched off without this, because it can't shut down.
          - By default V(false).
        type: bool
  bus:
    <<: *bus
    default: scsi
  data_disks:
    <<: *data_disks
    default: true
  staging:
    <<: *staging
    default: auto
  iso: *iso
  injected: *injected
  snapshot:
    <<: *snapshot
    default: required
  keep_snapshot:
    <<: *keep_snapshot
    default: false
  switch_without_proof:
    <<: *switch_without_proof
    default: false
  verdict:
    <<: *verdict
    default: agent
  retry:
    <<: *retry
    default: false
  force_stop:
    <<: *force_stop
    default: false
  concurrency:
    description: How many guests are migrated at a time.
    type: int
    default: 4
  shutdown_timeout:
    description: Seconds that Windows has to shut down.
    type: int
    default: 180
  agent_timeout:
    description:
      - Seconds that Windows has to come up and answer through its agent. After the switch this decides whether
        everything goes back, so leave it time for updates that it installs while it starts.
    type: int
    default: 600
notes:
  - BitLocker is suspended for a few starts, fast startup switched off, and disks allowed to come online, before the
    guest is shut down. In the end Windows has its own settings and drive letters again.
  - While the driver is installed, a disk of 1 GiB is in the boot disk's new slot, on the same storage. It is removed
    again while the guest is off, and the snapshot is made after that.
  - A guest that was stopped is stopped again in the end.
  - Do not run it for guests that share disks with others.
  - The user needs the rights C(VM.Audit), C(VM.Config.Disk), C(VM.Config.CDROM), C(VM.Config.HWType),
    C(VM.Config.Options), C(VM.PowerMgmt), C(VM.Snapshot) and C(VM.GuestAgent.Unrestricted) (before Proxmox VE 9
    C(VM.Monitor)) on the guests, and C(Datastore.AllocateSpace) on their storages and on that of the ISO. What of it is
    missing is said of each guest in one list, before anything is done to it.
seealso:
  - module: diskwright.proxmox.windows_migrate_info
  - module: diskwright.proxmox.windows_inject
  - module: diskwright.proxmox.windows_drivers
"""

EXAMPLES = r"""
- name: One guest, whose agent answers
  diskwright.proxmox.windows_migrate:
    name: erp1
    iso: local:iso/virtio-win-0.1.271.iso

- name: Many guests, three at a time
  diskwright.proxmox.windows_migrate:
    iso: local:iso/virtio-win-0.1.271.iso
    concurrency: 3
    guests:
      - name: mail1
      - name: print1
        data_disks: false

- name: Take back what is under way
  diskwright.proxmox.windows_migrate:
    name: crm1
    verdict: roll_back
"""

RETURN = r"""
guests:
  description: What became of each guest, in the order in which they were given.
  returned: always
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
      returned: if it could be read
      sample: pve1
    changed:
      description: Whether anything was done, or in check mode would be.
      type: bool
      returned: always
      sample: true
    failed:
      description:
        - Whether it was refused, was rolled back by this run without having been told to, or needs a person, that is
          RV(guests[].state) is V(stuck) or V(needs_verdict). In check mode a verdict that will be needed later is no
          failure.
      type: bool
      returned: always
      sample: false
    standing:
      description: Where it stood before, as in M(diskwright.proxmox.windows_migrate_info).
      type: str
      returned: if it could be read
      sample: needs_drivers
    state:
      description:
        - How it ended, or in check mode how it will if all goes well.
        - V(on_virtio) if there was nothing to do, V(committed) if it runs on VirtIO now, V(rolled_back) if everything
          is as it was, V(refused) if nothing was done.
        - V(needs_offline_staging) if it is off and its disk needs the driver. V(needs_verdict) if it was started from
          VirtIO and has no agent to say how it is, so that O(verdict) has to.
        - V(stuck) if it can't go on by itself; RV(guests[].reason) says what to do.
      type: str
      returned: always
      sample: committed
    reason:
      description: Why, and what to do.
      type: str
      returned: always
      sample: ""
    boot_slot:
      description: The slot that it started from before this run.
      type: str
      returned: if it could be read
      sample: sata0
    volume:
      description: The volume there.
      type: str
      returned: if it could be read
      sample: local-lvm:vm-122-disk-0
    actions:
      description: The steps.
      type: list
      elements: dict
      returned: always
      contains:
        what:
          description: The slot, or what else changes.
          type: str
          returned: always
          sample: scsi0
        summary:
          description: The change.
          type: str
          returned: always
          sample: was sata0, same volume
        state:
          description: V(planned), V(done) or V(failed).
          type: str
          returned: always
          sample: done
        reason:
          description: Why it failed.
          type: str
          returned: if it failed
          sample: it was asked to shut down and did not within 180 s
"""

from ..module_utils._ansible.runner import Rules, run_api_module
from ..module_utils._ansible.windows_migrate import WindowsMigrate, migrate_spec


def main() -> None:
    """Run the module."""
    rules = Rules(
        mutually_exclusive=(("guests", "vmid"), ("guests", "name"), ("guests", "node")),
        required_one_of=(("vmid", "name", "guests"),),
    )
    run_api_module(migrate_spec(), WindowsMigrate, rules)


if __name__ == "__main__":
    main()
