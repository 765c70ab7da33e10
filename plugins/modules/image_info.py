#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_info
short_description: Inspects disk images, and says which must not be used
description:
  - Looks at an image, an export, or a folder of them, and returns facts about each image, or the reason why it must
    not be used.
  - It reads VMDKs of every kind (monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat,
    streamOptimized, vmfs, vmfsSparse, seSparse, and snapshots with all their parents), OVAs and OVFs, raw, qcow2, VHD,
    VHDX and VDI.
  - The tables of an image are walked in full. What is cut short, damaged or contradictory is found here, and not by a
    guest that has lost data. C(qemu-img) reads many such images without an error.
  - What an image, an OVF or an archive says about other files is not trusted. Only plain names in the same folder are
    followed, and only to regular files. A link, a device, a path or a network address is a reason to refuse.
  - The data itself is not read, except where a manifest has a digest of it, and for O(checksum).
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.info_module
  - diskwright.proxmox._attributes.node_plane
options:
  path:
    description:
      - A file or a folder, on the machine that the task runs on.
      - A file is an image (C(.vmdk), C(.raw), C(.img), C(.dd), C(.qcow2), C(.vhd), C(.vpc), C(.vhdx), C(.vdi)) or an
        export (C(.ova), C(.ovf)). Of a VMDK, name the small file that describes it, and of a chain of snapshots
        the newest.
      - In a folder and the folders below it, all of these are found. Files that are part of an image (extents, parents,
        disks of an OVF) are not listed once more. Links to folders are not followed.
    type: path
    required: true
  fail_on_refusal:
    description: Fail if an image must not be used. The results are the same.
    type: bool
    default: false
  checksum:
    description: Read every disk to its end, and return the SHA-256 of its content.
    type: bool
    default: false
notes:
  - An image that anyone has open for writing is refused, and so is one with a lock of VMware beside it (C(.lck)). Shut
    the guest down first.
  - Run it as root, or as the owner of the files. Others are not told by the kernel who writes to a file.
  - qcow2, VHD, VHDX and VDI need C(qemu-img), which is asked after a check of its own has passed. It never opens a VMDK
    or a raw image.
seealso:
  - module: diskwright.proxmox.image_convert
  - module: diskwright.proxmox.image_mount
"""

EXAMPLES = r"""
- name: Everything that came from VMware
  diskwright.proxmox.image_info:
    path: /srv/vmware
  register: found

- name: Say what must not be used, and why
  ansible.builtin.debug:
    msg: "{{ item.path }}: {{ item.refused.reason }}"
  loop: "{{ found.images | rejectattr('refused', 'none') }}"
  loop_control:
    label: "{{ item.refused.code }}"

- name: Say how much space the rest needs
  ansible.builtin.debug:
    msg: "{{ found.images | map(attribute='virtual_size') | sum | human_readable }}"

- name: Stop here unless this export is sound to the last byte
  diskwright.proxmox.image_info:
    path: /srv/vmware/db1.ova
    fail_on_refusal: true
    checksum: true
  register: export

- name: Show the guest that it describes
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.memory }} MiB, {{ item.disks | length }} disks, {{ item.os_description }}"
  loop: "{{ export.machines }}"
  loop_control:
    label: "{{ item.name }}"

- name: A snapshot with all that is below it
  diskwright.proxmox.image_info:
    path: /srv/vmware/web/web-000001.vmdk
"""

RETURN = r"""
images:
  description: The images, in the order of their paths, and in an export in the order of their disks.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file. For a disk of an export, the OVA or OVF.
      type: str
      returned: always
      sample: /srv/vmware/db1.ova
    member:
      description: The disk in the OVA, or beside the OVF. Empty for an image that stands alone.
      type: str
      returned: always
      sample: db1-disk1.vmdk
    format:
      description: V(vmdk), V(raw), V(qcow2), V(vpc), V(vhdx) or V(vdi). Empty if it is refused, as all facts are.
      type: str
      returned: always
      sample: vmdk
    subformat:
      description: The kind of VMDK, as its C(createType).
      type: str
      returned: always
      sample: streamOptimized
    virtual_size:
      description: Size of the disk in bytes.
      type: int
      returned: always
      sample: 34359738368
    allocated:
      description:
        - Bytes of the disk that are stored. All of them for raw and flat images, which may have holes all the same, and
          what the file occupies for qcow2, VHD, VHDX and VDI.
      type: int
      returned: always
      sample: 7516192768
    files:
      description: Names of all files that it is made of, parents included.
      type: list
      elements: str
      returned: always
      sample: [db1-disk1.vmdk]
    chain:
      description: The image itself and its parents, the newest first.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: The file with its descriptor.
          type: str
          returned: always
          sample: web-000001.vmdk
        subformat:
          description: The kind of VMDK.
          type: str
          returned: always
          sample: seSparse
        files:
          description: Names of the files that it is made of.
          type: list
          elements: str
          returned: always
          sample: [web-000001.vmdk, web-000001-sesparse.vmdk]
    snapshots:
      description:
        - Where O(path) is a VMDK, the last snapshots of it, files in the same folder. What was named is an old state
          of the disk then, and these are the files to name.
        - Empty for what is found in a folder, since that is the last state.
      type: list
      elements: str
      returned: always
      sample: []
    fingerprint:
      description:
        - SHA-256 over names, sizes, times and inodes of the files, their descriptors, and their first and last MiB. It
          changes when the image does, and is found quickly.
      type: str
      returned: always
      sample: 4ec591b303d0a6e09bedcba1e1a0ab36afe793382e92baecd0de2ac97948b615
    checksum:
      description: SHA-256 of the disk's content, the same in every format. V(null) without O(checksum).
      type: str
      returned: always
      sample: 7d8659f14f0d9c2f0a7b1bd1a9fa3c2a6ee9de3d0b8f5f9f5e1a4a3c1c2f4b5a
    machine:
      description: Name of the guest that the OVF gives it to, V(null) for none.
      type: str
      returned: always
      sample: db1
    disk:
      description: What the OVF says of it, as in RV(machines[].disks). V(null) if there is none.
      type: dict
      returned: always
      sample:
        member: db1-disk1.vmdk
        capacity: 34359738368
        controller: scsi
        controller_index: 0
        controller_model: virtualscsi
        address: 0
    refused:
      description: Why it must not be used, V(null) if it may.
      type: dict
      returned: always
      contains:
        code:
          description: A word that stays the same, for conditions.
          type: str
          returned: always
          sample: extent-truncated
        reason:
          description: The file, what is wrong with it, and what to do.
          type: str
          returned: always
          sample: >-
            web-flat.vmdk: has 1048576 bytes, its descriptor needs 4194304; copy it again: tools other than this one
            would read zeros instead of what is missing
machines:
  description: The guests that OVFs describe.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The OVA or OVF.
      type: str
      returned: always
      sample: /srv/vmware/db1.ova
    name:
      description: Its name.
      type: str
      returned: always
      sample: db1
    memory:
      description: MiB. V(0) if the OVF does not say.
      type: int
      returned: always
      sample: 4096
    cores:
      description: Cores of each socket.
      type: int
      returned: always
      sample: 2
    sockets:
      description: Sockets.
      type: int
      returned: always
      sample: 2
    firmware:
      description: V(bios) or V(efi).
      type: str
      returned: always
      sample: efi
    secure_boot:
      description: Whether Secure Boot is on.
      type: bool
      returned: always
      sample: false
    tpm:
      description: Whether it has a TPM. Its content is not exported.
      type: bool
      returned: always
      sample: false
    ostype:
      description: Its operating system as Proxmox VE calls it.
      type: str
      returned: always
      sample: l26
    os_description:
      description: The same in words.
      type: str
      returned: always
      sample: Debian GNU/Linux 12 (64-bit)
    disks:
      description: Its disks, by controller and address.
      type: list
      elements: dict
      returned: always
      contains:
        member:
          description: The file, V(null) for an empty disk.
          type: str
          returned: always
          sample: db1-disk1.vmdk
        capacity:
          description: Bytes, V(0) if the OVF does not say.
          type: int
          returned: always
          sample: 34359738368
        controller:
          description: V(ide), V(scsi), V(sata) or V(nvme).
          type: str
          returned: always
          sample: scsi
        controller_index:
          description: Which of the controllers of this kind, from 0.
          type: int
          returned: always
          sample: 0
        controller_model:
          description: What VMware calls the controller.
          type: str
          returned: always
          sample: virtualscsi
        address:
          description: Address of the disk on its controller.
          type: int
          returned: always
          sample: 0
    nics:
      description: Its network cards.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Name of the card.
          type: str
          returned: always
          sample: Network adapter 1
        network:
          description: Network that it was connected to.
          type: str
          returned: always
          sample: VM Network
        model:
          description: What it was.
          type: str
          returned: always
          sample: vmxnet3
        macaddr:
          description: Its address. Empty if the OVF leaves that open.
          type: str
          returned: always
          sample: "00:50:56:ab:cd:ef"
    warnings:
      description: What to know about the export.
      type: list
      elements: str
      returned: always
      sample: ["db1.mf has no digest of db1-disk2.vmdk: only its structure can be checked"]
"""

from ..module_utils._ansible.image_info import ImageInfo
from ..module_utils._ansible.node import run_node_module


def main() -> None:
    """Run the module."""
    run_node_module(
        {
            "path": {"type": "path", "required": True},
            "fail_on_refusal": {"type": "bool", "default": False},
            "checksum": {"type": "bool", "default": False},
        },
        ImageInfo,
    )


if __name__ == "__main__":
    main()
