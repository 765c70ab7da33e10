#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_mount
short_description: Mounts a partition of a disk image on the host
description:
  - Shows the files of a guest's disk on the host, without starting the guest. The image may be a raw or qcow2 file, a
    VMDK of any kind, a disk in an OVA, whatever M(diskwright.proxmox.image_info) accepts, or a volume of a Proxmox VE
    storage.
  - Read-only, unless O(writable=true). Nothing is written then, not even the journal of a file system that was not
    left cleanly, and programs, setuid bits and device nodes in the image have no effect on the host.
  - Only the one partition is shown to the host. LVM, RAID and ZFS of the host never see what is theirs on the disk, so
    that a volume group of a guest is never activated on the host. Partitions that hold such things are listed and
    refused.
  - What is mounted is written down under O(state_dir). After a crash at any moment, or a reboot, the same task
    finishes the job, and O(state=unmounted) clears away what is left.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.node_plane
options:
  path:
    description:
      - The image. It is inspected first, as M(diskwright.proxmox.image_info) does, and refused unless it is understood
        fully.
      - An image that somebody writes to is refused. For the disk of a guest that runs, use O(volume).
    type: path
  member:
    description: The disk in O(path), if that is an OVA, or the file that an OVF refers to.
    type: str
    default: ""
  volume:
    description:
      - The volume id of a disk on a Proxmox VE storage, as C(pvesm list) shows it. Linked clones and chains are read
        with what is below them.
      - If a guest that runs has it, the module warns. Its file system changes under the eyes of the host then, and what
        is seen may contradict itself.
    type: str
  partition:
    description:
      - Number of the partition, as Linux counts. V(0) is the whole disk, if it has no partitions.
      - Can be left out if there is just one. The error names all that there are.
    type: int
  mountpoint:
    description:
      - Where to mount, an absolute path. Required for O(state=mounted).
      - It must be an empty folder, or nothing yet. A folder that was made is removed by O(state=unmounted).
    type: path
  state:
    description:
      - V(mounted) mounts the partition, unless it is mounted there already. Another one is not replaced but refused.
      - V(unmounted) unmounts what this module has mounted at O(mountpoint), or wherever it has mounted the image.
        Nothing is torn away from processes that use it. The error names them. Afterwards the image is checked.
      - V(gathered) only looks into the image and returns its partitions.
    type: str
    choices: [mounted, unmounted, gathered]
    default: mounted
  writable:
    description:
      - Mount for writing, a raw or qcow2 image.
      - Refused if a guest that has the disk runs or is locked, anywhere in the cluster, and if anything on this host
        has the disk open. Do not start the guest before it is unmounted. Proxmox VE does not know of the mount.
    type: bool
    default: false
  backend:
    description:
      - How the image becomes a device.
      - V(auto) takes V(loop) for a raw image and V(fuse) for all others.
      - V(fuse) lets C(qemu-storage-daemon) show the image as a plain file.
      - V(loop) is a loop device alone, for raw images.
      - V(kpartx) maps all partitions with C(kpartx), which needs that package and the device mapper. It is refused if
        any partition is something that the host would take for its own.
    type: str
    choices: [auto, fuse, loop, kpartx]
    default: auto
  state_dir:
    description: Folder for what must survive a crash. Use the same for mounting and unmounting.
    type: path
    default: /var/lib/diskwright
requirements:
  - C(qemu-storage-daemon), which a Proxmox VE node has, for images that are not raw
  - C(ntfs-3g), or a kernel with ntfs3, for NTFS
notes:
  - A file system is read by the kernel of the host, or by a program that runs as root. One that was made to attack them
    could succeed. Of guests that you do not trust at all, attach the disk to a throw-away guest instead.
  - Looking into an image that is not raw runs a C(qemu-storage-daemon) for a moment, also in check mode. Nobody else
    sees what it shows, and it ends with the module.
seealso:
  - module: diskwright.proxmox.image_info
  - module: diskwright.proxmox.image_convert
"""

EXAMPLES = r"""
- name: What is on the disk?
  diskwright.proxmox.image_mount:
    path: /mnt/vmware/web1/web1.vmdk
    state: gathered
  register: disk

- name: Say so
  ansible.builtin.debug:
    msg: "{{ item.number }}: {{ item.filesystem }} {{ item.label }} {{ item.size | diskwright.proxmox.human_size }}"
  loop: "{{ disk.partitions }}"
  loop_control:
    label: "{{ item.number }}"

- name: Show its files
  diskwright.proxmox.image_mount:
    path: /mnt/vmware/web1/web1.vmdk
    partition: 1
    mountpoint: /mnt/web1

- name: Take one out
  ansible.builtin.copy:
    remote_src: true
    src: /mnt/web1/etc/hostname
    dest: /root/web1-hostname
    mode: "0600"

- name: Put everything away
  diskwright.proxmox.image_mount:
    mountpoint: /mnt/web1
    state: unmounted
"""

RETURN = r"""
image:
  description: The image's path, links resolved, or the volume id.
  returned: success
  type: str
  sample: /mnt/vmware/web1/web1.vmdk
member:
  description: The disk in an archive, empty for none.
  returned: unless unmounted
  type: str
  sample: ""
format:
  description: The image's format, as QEMU calls it.
  returned: unless unmounted
  type: str
  sample: vmdk
virtual_size:
  description: Size of the disk in bytes.
  returned: unless unmounted
  type: int
  sample: 67108864
table:
  description: The kind of partition table, V(gpt), V(mbr), or V(none) for a disk without partitions.
  returned: unless unmounted
  type: str
  sample: gpt
partitions:
  description: The partitions. A disk that has none is its own partition 0.
  returned: unless unmounted
  type: list
  elements: dict
  contains:
    number:
      description: Its number, as Linux counts. Logical partitions of an MBR begin with 5.
      type: int
      returned: always
      sample: 1
    start:
      description: Where it begins on the disk, in bytes.
      type: int
      returned: always
      sample: 1048576
    size:
      description: Its size in bytes.
      type: int
      returned: always
      sample: 33554432
    type:
      description: What the table says that it is for, the GUID of a GPT, or the number of an MBR.
      type: str
      returned: always
      sample: 0fc63daf-8483-4772-8e79-3d69d8477de4
    name:
      description: Its name in a GPT.
      type: str
      returned: always
      sample: root
    uuid:
      description: C(PARTUUID), as Linux writes it.
      type: str
      returned: always
      sample: 4f68bce3-e8cd-4db1-96e7-fbcaf984b709
    filesystem:
      description:
        - What it holds, as C(blkid) calls it. V(LVM2_member) and the like are no file systems.
        - Empty if nothing is recognised, V(ambiguous) if there are the marks of several.
      type: str
      returned: always
      sample: ext4
    label:
      description: Label of the file system.
      type: str
      returned: always
      sample: root
    filesystem_uuid:
      description: UUID of the file system.
      type: str
      returned: always
      sample: 0e3b1c36-6f29-4f0e-a2a9-6f0f2c3c5d11
mount:
  description: The mount, or in check mode what it would be.
  returned: if mounted
  type: dict
  sample:
    mountpoint: /mnt/web1
    image: /mnt/vmware/web1/web1.vmdk
    member: ""
    partition: 1
    filesystem: ext4
    options: [ro, noload, nosuid, nodev, noexec]
    backend: fuse
    writable: false
mounts:
  description: All mounts that this module keeps on the host, each as RV(mount).
  returned: success
  type: list
  elements: dict
  sample: []
"""

from ..module_utils._ansible.image_mount import BACKENDS, STATE_DIR, STATES, ImageMount
from ..module_utils._ansible.node import run_node_module
from ..module_utils._ansible.runner import Rules


def main() -> None:
    """Run the module."""
    run_node_module(
        {
            "path": {"type": "path"},
            "member": {"type": "str", "default": ""},
            "volume": {"type": "str"},
            "partition": {"type": "int"},
            "mountpoint": {"type": "path"},
            "state": {"type": "str", "choices": list(STATES), "default": "mounted"},
            "writable": {"type": "bool", "default": False},
            "backend": {"type": "str", "choices": list(BACKENDS), "default": "auto"},
            "state_dir": {"type": "path", "default": STATE_DIR},
        },
        ImageMount,
        Rules(
            mutually_exclusive=(("path", "volume"),),
            required_one_of=(("path", "volume", "mountpoint"),),
        ),
    )


if __name__ == "__main__":
    main()
