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
      slot:
        description: Where the drive is, V(ide0) to V(ide3), V(sata0) to V(sata5), V(scsi0) to V(scsi30), V(virtio0)
          to
          V(virtio15), V(efidisk0), V(tpmstate0), or with O(disks[].state=absent) also V(unused0) to V(unused255).
        type: str
        required: true
      state:
        description:
          - With V(detached) the slot is emptied and its volume kept as C(unusedN).
          - With V(absent) the slot is emptied and its volume destroyed, which needs O(allow_destroy=true).
        type: str
        choices: [present, detached, absent]
        default: present
      storage:
        description:
          - Storage of the volume. Needed for a new one.
          - A disk that is on another storage is moved, while the guest runs if it runs.
        type: str
      size:
        description:
          - Size, for example V(64G), V(64GiB), V(1.5T), V(65536M). A plain number means GiB.
          - Disks grow and never shrink. A size below the real one is refused, unless O(disks[].minimum=true).
        type: str
      minimum:
        description: Whether a disk that is larger than O(disks[].size) is right as it is.
        type: bool
        default: false
      format:
        description:
          - Format of the image. By default Proxmox VE chooses for a new disk.
          - A disk that has another format is converted.
        type: str
        choices: [raw, qcow2, vmdk]
      volume:
        description:
          - An existing volume of the guest to attach, V(local-lvm:vm-100-disk-3) or V(unused0).
          - A V(unusedN) is only ever put into an empty slot, because its number says nothing in a second run.
        type: str
      moved_from:
        description:
          - The slot where the disk was. The same volume comes into O(disks[].slot), on another bus if that is one.
            Nothing is copied.
          - With O(disks[].moved_from_guest) the slot of another guest, or the V(unusedN) that keeps the volume there.
          - Once it has moved this option says nothing more, and can stay or go.
        type: str
      moved_from_guest:
        description:
          - Another guest, by its number or its name, that O(disks[].moved_from) is a slot of. Proxmox VE gives the
            volume
            a new name and takes the drive out of the other guest and its boot order. Nothing is copied.
          - Both guests have to be on one node, and the other one must not run, unless an V(unusedN) of it is named. A
            disk
            that a snapshot needs stays where it is, and so do CD-ROM and cloud-init drives.
          - The drive keeps its options. Those that the new bus does not have are taken off it. What else is declared
            for
            O(disks[].slot) is done once it is there.
          - Once it has moved this option says nothing more, and can stay or go together with O(disks[].moved_from).
            The
            other guest may be gone by then.
        type: str
      import_from:
        description:
          - Volume that a new disk is a copy of. An image with the content type import, V(local:import/web.qcow2), a
            disk of
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
          - What is in the CD-ROM drive, V(local:iso/virtio-win.iso), V(none) for an empty drive, or V(cdrom) for the
            drive of
            the node. If not given, the medium is left as it is.
          - Makes the slot a CD-ROM drive by itself.
        type: str
      cloudinit:
        description: Whether the slot holds the cloud-init drive. It is made on O(disks[].storage).
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
          - On its own storage Proxmox VE copies only into another format. So this needs another O(disks[].storage),
            another O(disks[].format), or O(disks[].delete_source=true) for two copies.
        type: bool
        default: false
      aio:
        description:
          - How QEMU does its I/O.
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
        type: str
        choices: [native, threads, io_uring]
      backup:
        description:
          - Whether backups include the drive. Proxmox VE's default is V(true).
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: bool
      bps_max_length:
        description:
          - How many seconds a burst of megabytes may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps_max). A running guest takes a
            change up at once.
        type: int
      bps_rd_max_length:
        description:
          - How many seconds a burst of read megabytes may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps_rd_max). A running guest takes
            a change up at once.
        type: int
      bps_wr_max_length:
        description:
          - How many seconds a burst of write megabytes may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps_wr_max). A running guest takes
            a change up at once.
        type: int
      cache:
        description:
          - How the host caches.
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
        type: str
        choices: [none, writethrough, writeback, unsafe, directsync]
      detect_zeroes:
        description:
          - Whether QEMU looks for zeroes in writes. Proxmox VE's default is V(true).
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: bool
      discard:
        description:
          - Whether the guest's discards reach the storage. Proxmox VE's default is V(ignore).
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
        type: str
        choices: [ignore, "on"]
      efitype:
        description:
          - The size class of the EFI variables. Proxmox VE's default is V(2m).
          - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
            refused.
        type: str
        choices: [2m, 4m]
      iops:
        description:
          - Limit of operations per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: int
      iops_max:
        description:
          - Limit of operations per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops). A running guest takes a
            change up at once.
        type: int
      iops_max_length:
        description:
          - How many seconds a burst of operations may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops_max). A running guest takes a
            change up at once.
        type: int
      iops_rd:
        description:
          - Limit of read operations per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: int
      iops_rd_max:
        description:
          - Limit of read operations per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops_rd). A running guest takes a
            change up at once.
        type: int
      iops_rd_max_length:
        description:
          - How many seconds a burst of read operations may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops_rd_max). A running guest takes
            a change up at once.
        type: int
      iops_wr:
        description:
          - Limit of write operations per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: int
      iops_wr_max:
        description:
          - Limit of write operations per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops_wr). A running guest takes a
            change up at once.
        type: int
      iops_wr_max_length:
        description:
          - How many seconds a burst of write operations may last.
          - For ide, sata, scsi, virtio. Only together with O(disks[].iops_wr_max). A running guest takes
            a change up at once.
        type: int
      iothread:
        description:
          - Whether the drive has its own I/O thread. Proxmox VE's default is V(false).
          - For scsi, virtio. A running guest takes a change up at its next start.
        type: bool
      mbps:
        description:
          - Limit of megabytes per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: float
      mbps_max:
        description:
          - Limit of megabytes per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps). A running guest takes a
            change up at once.
        type: float
      mbps_rd:
        description:
          - Limit of read megabytes per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: float
      mbps_rd_max:
        description:
          - Limit of read megabytes per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps_rd). A running guest takes a
            change up at once.
        type: float
      mbps_wr:
        description:
          - Limit of write megabytes per second.
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: float
      mbps_wr_max:
        description:
          - Limit of write megabytes per second in a burst.
          - For ide, sata, scsi, virtio. Only together with O(disks[].mbps_wr). A running guest takes a
            change up at once.
        type: float
      model:
        description:
          - The model that the guest sees.
          - For ide. A running guest takes a change up at its next start, although Proxmox VE shows it at
            once.
        type: str
      ms_cert:
        description:
          - The Microsoft certificates that are enrolled. Proxmox VE's default is V(2011).
          - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
            refused.
        type: str
        choices: ["2011", "2023", 2023w, 2023k]
      pre_enrolled_keys:
        description:
          - Whether Secure Boot keys are enrolled. Proxmox VE's default is V(false).
          - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
            refused.
        type: bool
      product:
        description:
          - The product that the guest sees.
          - For scsi. A running guest takes a change up at its next start.
        type: str
      queues:
        description:
          - The number of queues.
          - For scsi. A running guest takes a change up at its next start.
        type: int
      replicate:
        description:
          - Whether storage replication includes the drive. Proxmox VE's default is V(true).
          - For ide, sata, scsi, virtio. A running guest takes a change up at once.
        type: bool
      rerror:
        description:
          - What happens on a read error.
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: str
        choices: [ignore, report, stop]
      ro:
        description:
          - Whether the drive is read-only. Proxmox VE's default is V(false).
          - For scsi, virtio. A running guest takes a change up at its next start.
        type: bool
      scsiblock:
        description:
          - Whether a host block device is passed through as scsi-block. Proxmox VE's default is V(false).
          - For scsi. A running guest takes a change up at its next start, although Proxmox VE shows it at
            once.
        type: bool
      serial:
        description:
          - The serial number that the guest sees.
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: str
      shared:
        description:
          - Whether the volume can be reached from every node. Proxmox VE's default is V(false).
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: bool
      snapshot:
        description:
          - Whether writes are thrown away at the stop. Proxmox VE's default is V(false).
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: bool
      ssd:
        description:
          - Whether the guest sees a solid-state disk. Proxmox VE's default is V(false).
          - For ide, sata, scsi. A running guest takes a change up at its next start.
        type: bool
      vendor:
        description:
          - The vendor that the guest sees.
          - For scsi. A running guest takes a change up at its next start.
        type: str
      version:
        description:
          - The version of the TPM. Proxmox VE's default is V(v1.2).
          - For tpmstate. Belongs to the volume as it was made. A different value for an existing volume
            is refused.
        type: str
        choices: [v1.2, v2.0]
      werror:
        description:
          - What happens on a write error.
          - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
            Proxmox VE shows it at once.
        type: str
        choices: [enospc, ignore, report, stop]
      wwn:
        description:
          - The world wide name that the guest sees.
          - For ide, sata, scsi. A running guest takes a change up at its next start, although Proxmox VE
            shows it at once.
        type: str
  scsihw:
    description:
      - SCSI controller of the guest. V(virtio-scsi-single) is what O(disks[].iothread) needs on SCSI slots.
      - A running guest takes it up at its next start.
    type: str
    choices: [lsi, lsi53c810, virtio-scsi-pci, virtio-scsi-single, megasas, pvscsi]
  boot:
    description:
      - Devices in the order in which the guest tries to start from them, for example V([scsi0, net0]).
      - If not given, the order is kept right by itself. A listed drive that moves to another slot stays listed under
        its
        new name, and the first disk of a guest that has none goes into an empty order.
    type: list
    elements: str
  undeclared:
    description:
      - What happens to drives that the guest has and O(disks) does not list.
      - With V(keep) nothing. The result names them, and so does the diff of a guest that something else changes.
      - With V(report) nothing either, but the diff names them also when nothing changes.
      - With V(detach) undeclared disks are detached. Their volumes are kept as unused. CD-ROM, cloud-init, EFI and
        TPM
        drives are never touched in this way.
    type: str
    choices: [keep, report, detach]
    default: keep
  power:
    description:
      - What to do about changes that Proxmox VE can't make while the guest runs, such as moving the boot disk to
        another
        bus.
      - With V(never) they are refused before anything is written.
      - With V(stop_if_needed) the guest is shut down for them, and started again. It is never stopped by force.
      - Changes that merely wait for the next start never stop a guest. They are returned in
        RV(guests[].restart_required).
    type: str
    choices: [never, stop_if_needed]
    default: never
  revert_leftovers:
    description:
      - Whether to take back first what somebody's failed call has left waiting in the guest's configuration.
      - Proxmox VE applies such left-overs together with the next change, whatever that is about. Without this option
        they are named, and a guest that has them is not changed.
    type: bool
    default: false
  guests:
    description:
      - Many guests, each declared like one alone. They are read together and changed side by side.
      - What a guest does not say of O(undeclared), O(power) and O(revert_leftovers) is taken from the task.
      - One guest's failure does not keep the others from being changed.
    type: list
    elements: dict
    suboptions:
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
          slot:
            description: Where the drive is, V(ide0) to V(ide3), V(sata0) to V(sata5), V(scsi0) to V(scsi30),
              V(virtio0) to
              V(virtio15), V(efidisk0), V(tpmstate0), or with O(guests[].disks[].state=absent) also V(unused0) to
                V(unused255).
            type: str
            required: true
          state:
            description:
              - With V(detached) the slot is emptied and its volume kept as C(unusedN).
              - With V(absent) the slot is emptied and its volume destroyed, which needs O(allow_destroy=true).
            type: str
            choices: [present, detached, absent]
            default: present
          storage:
            description:
              - Storage of the volume. Needed for a new one.
              - A disk that is on another storage is moved, while the guest runs if it runs.
            type: str
          size:
            description:
              - Size, for example V(64G), V(64GiB), V(1.5T), V(65536M). A plain number means GiB.
              - Disks grow and never shrink. A size below the real one is refused, unless
                O(guests[].disks[].minimum=true).
            type: str
          minimum:
            description: Whether a disk that is larger than O(guests[].disks[].size) is right as it is.
            type: bool
            default: false
          format:
            description:
              - Format of the image. By default Proxmox VE chooses for a new disk.
              - A disk that has another format is converted.
            type: str
            choices: [raw, qcow2, vmdk]
          volume:
            description:
              - An existing volume of the guest to attach, V(local-lvm:vm-100-disk-3) or V(unused0).
              - A V(unusedN) is only ever put into an empty slot, because its number says nothing in a second run.
            type: str
          moved_from:
            description:
              - The slot where the disk was. The same volume comes into O(guests[].disks[].slot), on another bus if
                that is one.
                Nothing is copied.
              - With O(guests[].disks[].moved_from_guest) the slot of another guest, or the V(unusedN) that keeps the
                volume there.
              - Once it has moved this option says nothing more, and can stay or go.
            type: str
          moved_from_guest:
            description:
              - Another guest, by its number or its name, that O(guests[].disks[].moved_from) is a slot of. Proxmox VE
                gives the volume
                a new name and takes the drive out of the other guest and its boot order. Nothing is copied.
              - Both guests have to be on one node, and the other one must not run, unless an V(unusedN) of it is
                named. A disk
                that a snapshot needs stays where it is, and so do CD-ROM and cloud-init drives.
              - The drive keeps its options. Those that the new bus does not have are taken off it. What else is
                declared for
                O(guests[].disks[].slot) is done once it is there.
              - Once it has moved this option says nothing more, and can stay or go together with
                O(guests[].disks[].moved_from). The
                other guest may be gone by then.
            type: str
          import_from:
            description:
              - Volume that a new disk is a copy of. An image with the content type import, V(local:import/web.qcow2),
                a disk of
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
              - What is in the CD-ROM drive, V(local:iso/virtio-win.iso), V(none) for an empty drive, or V(cdrom) for
                the drive of
                the node. If not given, the medium is left as it is.
              - Makes the slot a CD-ROM drive by itself.
            type: str
          cloudinit:
            description: Whether the slot holds the cloud-init drive. It is made on O(guests[].disks[].storage).
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
              - On its own storage Proxmox VE copies only into another format. So this needs another
                O(guests[].disks[].storage),
                another O(guests[].disks[].format), or O(guests[].disks[].delete_source=true) for two copies.
            type: bool
            default: false
          aio:
            description:
              - How QEMU does its I/O.
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
            type: str
            choices: [native, threads, io_uring]
          backup:
            description:
              - Whether backups include the drive. Proxmox VE's default is V(true).
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: bool
          bps_max_length:
            description:
              - How many seconds a burst of megabytes may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps_max). A running guest
                takes a change up at once.
            type: int
          bps_rd_max_length:
            description:
              - How many seconds a burst of read megabytes may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps_rd_max). A running
                guest takes a change up at once.
            type: int
          bps_wr_max_length:
            description:
              - How many seconds a burst of write megabytes may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps_wr_max). A running
                guest takes a change up at once.
            type: int
          cache:
            description:
              - How the host caches.
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
            type: str
            choices: [none, writethrough, writeback, unsafe, directsync]
          detect_zeroes:
            description:
              - Whether QEMU looks for zeroes in writes. Proxmox VE's default is V(true).
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: bool
          discard:
            description:
              - Whether the guest's discards reach the storage. Proxmox VE's default is V(ignore).
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start.
            type: str
            choices: [ignore, "on"]
          efitype:
            description:
              - The size class of the EFI variables. Proxmox VE's default is V(2m).
              - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
                refused.
            type: str
            choices: [2m, 4m]
          iops:
            description:
              - Limit of operations per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: int
          iops_max:
            description:
              - Limit of operations per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops). A running guest
                takes a change up at once.
            type: int
          iops_max_length:
            description:
              - How many seconds a burst of operations may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops_max). A running guest
                takes a change up at once.
            type: int
          iops_rd:
            description:
              - Limit of read operations per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: int
          iops_rd_max:
            description:
              - Limit of read operations per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops_rd). A running guest
                takes a change up at once.
            type: int
          iops_rd_max_length:
            description:
              - How many seconds a burst of read operations may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops_rd_max). A running
                guest takes a change up at once.
            type: int
          iops_wr:
            description:
              - Limit of write operations per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: int
          iops_wr_max:
            description:
              - Limit of write operations per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops_wr). A running guest
                takes a change up at once.
            type: int
          iops_wr_max_length:
            description:
              - How many seconds a burst of write operations may last.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].iops_wr_max). A running
                guest takes a change up at once.
            type: int
          iothread:
            description:
              - Whether the drive has its own I/O thread. Proxmox VE's default is V(false).
              - For scsi, virtio. A running guest takes a change up at its next start.
            type: bool
          mbps:
            description:
              - Limit of megabytes per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: float
          mbps_max:
            description:
              - Limit of megabytes per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps). A running guest
                takes a change up at once.
            type: float
          mbps_rd:
            description:
              - Limit of read megabytes per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: float
          mbps_rd_max:
            description:
              - Limit of read megabytes per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps_rd). A running guest
                takes a change up at once.
            type: float
          mbps_wr:
            description:
              - Limit of write megabytes per second.
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: float
          mbps_wr_max:
            description:
              - Limit of write megabytes per second in a burst.
              - For ide, sata, scsi, virtio. Only together with O(guests[].disks[].mbps_wr). A running guest
                takes a change up at once.
            type: float
          model:
            description:
              - The model that the guest sees.
              - For ide. A running guest takes a change up at its next start, although Proxmox VE shows it at
                once.
            type: str
          ms_cert:
            description:
              - The Microsoft certificates that are enrolled. Proxmox VE's default is V(2011).
              - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
                refused.
            type: str
            choices: ["2011", "2023", 2023w, 2023k]
          pre_enrolled_keys:
            description:
              - Whether Secure Boot keys are enrolled. Proxmox VE's default is V(false).
              - For efidisk. Belongs to the volume as it was made. A different value for an existing volume is
                refused.
            type: bool
          product:
            description:
              - The product that the guest sees.
              - For scsi. A running guest takes a change up at its next start.
            type: str
          queues:
            description:
              - The number of queues.
              - For scsi. A running guest takes a change up at its next start.
            type: int
          replicate:
            description:
              - Whether storage replication includes the drive. Proxmox VE's default is V(true).
              - For ide, sata, scsi, virtio. A running guest takes a change up at once.
            type: bool
          rerror:
            description:
              - What happens on a read error.
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: str
            choices: [ignore, report, stop]
          ro:
            description:
              - Whether the drive is read-only. Proxmox VE's default is V(false).
              - For scsi, virtio. A running guest takes a change up at its next start.
            type: bool
          scsiblock:
            description:
              - Whether a host block device is passed through as scsi-block. Proxmox VE's default is V(false).
              - For scsi. A running guest takes a change up at its next start, although Proxmox VE shows it at
                once.
            type: bool
          serial:
            description:
              - The serial number that the guest sees.
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: str
          shared:
            description:
              - Whether the volume can be reached from every node. Proxmox VE's default is V(false).
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: bool
          snapshot:
            description:
              - Whether writes are thrown away at the stop. Proxmox VE's default is V(false).
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: bool
          ssd:
            description:
              - Whether the guest sees a solid-state disk. Proxmox VE's default is V(false).
              - For ide, sata, scsi. A running guest takes a change up at its next start.
            type: bool
          vendor:
            description:
              - The vendor that the guest sees.
              - For scsi. A running guest takes a change up at its next start.
            type: str
          version:
            description:
              - The version of the TPM. Proxmox VE's default is V(v1.2).
              - For tpmstate. Belongs to the volume as it was made. A different value for an existing volume
                is refused.
            type: str
            choices: [v1.2, v2.0]
          werror:
            description:
              - What happens on a write error.
              - For ide, sata, scsi, virtio. A running guest takes a change up at its next start, although
                Proxmox VE shows it at once.
            type: str
            choices: [enospc, ignore, report, stop]
          wwn:
            description:
              - The world wide name that the guest sees.
              - For ide, sata, scsi. A running guest takes a change up at its next start, although Proxmox VE
                shows it at once.
            type: str
      scsihw:
        description:
          - SCSI controller of the guest. V(virtio-scsi-single) is what O(guests[].disks[].iothread) needs on SCSI
            slots.
          - A running guest takes it up at its next start.
        type: str
        choices: [lsi, lsi53c810, virtio-scsi-pci, virtio-scsi-single, megasas, pvscsi]
      boot:
        description:
          - Devices in the order in which the guest tries to start from them, for example V([scsi0, net0]).
          - If not given, the order is kept right by itself. A listed drive that moves to another slot stays listed
            under its
            new name, and the first disk of a guest that has none goes into an empty order.
        type: list
        elements: str
      undeclared:
        description:
          - What happens to drives that the guest has and O(guests[].disks) does not list.
          - With V(keep) nothing. The result names them, and so does the diff of a guest that something else changes.
          - With V(report) nothing either, but the diff names them also when nothing changes.
          - With V(detach) undeclared disks are detached. Their volumes are kept as unused. CD-ROM, cloud-init, EFI
            and TPM
            drives are never touched in this way.
        type: str
        choices: [keep, report, detach]
      power:
        description:
          - What to do about changes that Proxmox VE can't make while the guest runs, such as moving the boot disk to
            another
            bus.
          - With V(never) they are refused before anything is written.
          - With V(stop_if_needed) the guest is shut down for them, and started again. It is never stopped by force.
          - Changes that merely wait for the next start never stop a guest. They are returned in
            RV(guests[].restart_required).
        type: str
        choices: [never, stop_if_needed]
      revert_leftovers:
        description:
          - Whether to take back first what somebody's failed call has left waiting in the guest's configuration.
          - Proxmox VE applies such left-overs together with the next change, whatever that is about. Without this
            option
            they are named, and a guest that has them is not changed.
        type: bool
      facts:
        description: What rules of O(policy) may look at of this guest, in the groups of O(facts). It goes before what
          is said
          there.
        type: dict

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
