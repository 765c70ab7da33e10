#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: image_convert
short_description: Converts disk images to raw or qcow2, into a file or a volume of Proxmox VE
description:
  - Converts whatever M(diskwright.proxmox.image_info) accepts, a VMDK of any kind, a chain of them, a disk in an OVA
    (without unpacking the archive), raw, qcow2, VHD, VHDX and VDI, to a file, or to a new volume on a Proxmox VE
    storage.
  - Every image is inspected first, and refused unless it is understood fully. What was inspected is what is read.
  - It can be killed at any time, or the node can lose its power. The same task goes on where it was, or up to a few
    seconds before.
  - The result is verified. What was written is read back from the disk and compared with what was read from the source,
    an OVA's files are held against the manifest, and a qcow2 image is checked.
  - A second run changes nothing and takes no time. A changed source and a damaged or missing target are noticed and
    reported with what to do.
  - Nothing is ever overwritten. A volume that a guest's configuration names, or a file or device that anything on the
    node has open, is not written to. Nothing is removed but an unfinished target that this module has made itself.
  - While it runs, a line for each image shows how far it is. See the notes.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.node_plane
attributes:
  async:
    description: Supports being used with the C(async) keyword.
    support: full
options:
  path:
    description:
      - The image, its descriptor, or the OVA or OVF that it is in, as an absolute path. Required unless O(images) is
        given.
    type: path
  member:
    description: The disk in O(path), if that is an OVA, or the file that an OVF refers to.
    type: str
    default: ""
  format:
    description: What to make.
    type: str
    choices: [raw, qcow2]
    default: raw
  dest:
    description:
      - The file to make, as an absolute path. While it is not finished it is called C(<dest>.partial). It can be read
        by the user that runs the task, and by nobody else.
      - If its ending is that of a format, such as C(.qcow2), it must be that of O(format).
      - Mutually exclusive with O(storage).
    type: path
  storage:
    description:
      - The Proxmox VE storage on which to make a volume. It is called C(vm-<vmid>-<name>-<fingerprint>) after the
        source, so that a volume whose import was given up can be told from others.
      - Needs O(vmid).
    type: str
  vmid:
    description:
      - The guest that the volume is for, from 100 up. It need not exist yet. The volume is not attached to it.
    type: int
  size:
    description:
      - Size of the disk, if it is to be larger than the source, with a unit, V(64G). As everywhere in this collection a
        plain number means GiB.
      - A smaller one is refused.
    type: str
  cluster_size:
    description: Cluster size of a qcow2 image. QEMU chooses V(64K) by default.
    type: str
    choices: [4K, 8K, 16K, 32K, 64K, 128K, 256K, 512K, 1M, 2M]
  preallocation:
    description:
      - How space is taken from the start, as in C(qemu-img create). For a volume, the default is what the storage's
        definition says. For a file it is V(off) with O(format=raw) and V(metadata) with O(format=qcow2), as Proxmox
        VE's own.
      - V(off) with O(format=qcow2) makes the shortest file, which matters if it will be copied by something that
        doesn't know holes. It is slower, because QEMU lays the image out.
      - V(metadata) is for qcow2 only.
    type: str
    choices: ["off", metadata, falloc, full]
  compress:
    description:
      - Compress a qcow2 image. That is slow to make, and not for guests that run for long.
      - The disk's size is rounded up to a whole cluster.
    type: bool
    default: false
  verify:
    description:
      - V(true) reads the target back from the disk and compares it with what was read from the source.
      - V(strict) lets C(qemu-img compare) read source and target once more, by QEMU's own understanding of both. That
        takes about as long as a conversion by C(qemu-img).
      - V(false) trusts the disk. A later run with V(true) verifies the finished target.
    type: str
    choices: ["false", "true", strict]
    default: "true"
  checksum:
    description:
      - Return the SHA-256 of the disk's raw content, which is that of a raw image's file.
      - Zeros have to be hashed for it, too, so that it takes long for large disks. RV(images[].content_id) costs
        nothing.
    type: bool
    default: false
  images:
    description:
      - Several images, each with the options above. One's failure is reported at the end and does not stop the others.
      - Mutually exclusive with O(path).
    type: list
    elements: dict
    suboptions:
      path:
        description: As O(path).
        type: path
        required: true
      member:
        description: As O(member).
        type: str
        default: ""
      format:
        description: As O(format).
        type: str
        choices: [raw, qcow2]
        default: raw
      dest:
        description: As O(dest).
        type: path
      storage:
        description: As O(storage).
        type: str
      vmid:
        description: As O(vmid).
        type: int
      size:
        description: As O(size).
        type: str
      cluster_size:
        description: As O(cluster_size).
        type: str
        choices: [4K, 8K, 16K, 32K, 64K, 128K, 256K, 512K, 1M, 2M]
      preallocation:
        description: As O(preallocation).
        type: str
        choices: ["off", metadata, falloc, full]
      compress:
        description: As O(compress).
        type: bool
        default: false
      verify:
        description: As O(verify).
        type: str
        choices: ["false", "true", strict]
        default: "true"
      checksum:
        description: As O(checksum).
        type: bool
        default: false
  bwlimit:
    description:
      - KiB a second that all images of the task together may read, and then again to verify, as in Proxmox VE's own
        limits. V(0) for no limit.
    type: int
    default: 0
  nice:
    description: Priority of the processor, V(-20) to V(19). Higher numbers leave more of it to others.
    type: int
    default: 0
  ionice:
    description:
      - Priority at the disks, V(0) to V(8) as in C(vzdump.conf). V(7) comes after all others, V(8) only when they are
        idle. It works with the I/O scheduler C(bfq).
    type: int
  concurrency:
    description: How many images are converted at a time. One is best if source and target are on one spinning disk.
    type: int
    default: 2
  lock_timeout:
    description: Seconds to wait for another run that works on the same target.
    type: int
    default: 60
  state_dir:
    description:
      - Where the journals are, and for a short while the parts of an image that QEMU has to unpack or pack, up to
        256 MiB for each image at work.
      - It must be the same in later runs.
    type: path
    default: /var/lib/diskwright
  progress_file:
    description:
      - A file in which the module keeps, as JSON, how far each image is. The module's action plugin chooses one by
        itself when it is left out, and removes it at the end.
    type: path
notes:
  - The progress is shown by the action plugin, which starts the module in the background as C(async) does and asks how
    far it is. On a terminal the lines are renewed in place. Elsewhere, and if the play has several hosts, there is a
    line at each tenth and at the end.
  - If the play is interrupted, the module on the node notices within two minutes that nobody asks any more, and ends.
    The same task goes on where it was. It waits O(lock_timeout) for a run that has not ended yet.
  - If the module is killed on the node, or the node is started anew, the task fails soon after and says so.
  - With C(async), C(environment) and C(become) it behaves like any other module. With C(async) there is no progress.
  - Raw bytes are copied by the kernel where they can be, qcow2 images are made by the node's own C(qemu-img), which
    also reads qcow2, VHD, VHDX and VDI. It never opens a VMDK or raw image.
  - A VMDK beside which there are snapshots of it is an old state of its disk. It is converted all the same, with a
    warning that names the file of the last snapshot.
  - RV(images[].content_id) is the SHA-256 of the disk's size in bytes as text, a line feed, and 32 bytes for each 4 MiB
    of the disk. These are zero bytes if the 4 MiB are all zeros, else the SHA-256 of 8 bytes and of those of its blocks
    of 64 KiB that aren't all zeros. The 8 bytes are a little-endian number whose bit n says that block n is one of
    these. It is the same for every format.
seealso:
  - module: diskwright.proxmox.image_info
  - module: diskwright.proxmox.image_mount
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: A VMDK becomes a volume for guest 120
  diskwright.proxmox.image_convert:
    path: /srv/vmware/web/web.vmdk
    storage: local-lvm
    vmid: 120
  register: web

- name: Attach it
  diskwright.proxmox.guest_disks:
    vmid: 120
    disks:
      - slot: scsi0
        volume: "{{ web.volume }}"
  delegate_to: localhost

- name: A disk of an OVA becomes a qcow2 file, larger than it was
  diskwright.proxmox.image_convert:
    path: /srv/vmware/db.ova
    member: db-disk1.vmdk
    dest: /srv/converted/db.qcow2
    format: qcow2
    size: 64G

- name: Several images, gently, at night
  diskwright.proxmox.image_convert:
    images:
      - {path: /srv/vmware/web/web.vmdk, dest: /srv/converted/web.raw}
      - {path: /srv/vmware/mail/mail.vmdk, dest: /srv/converted/mail.raw, verify: strict}
    bwlimit: 102400
    nice: 10
    ionice: 7
    concurrency: 1
"""

RETURN = r"""
images:
  description:
    - What became of each image, in the order of the task.
    - With O(path), the same values without the path stand beside it.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The image.
      type: str
      returned: always
      sample: /srv/vmware/web/web.vmdk
    member:
      description: The disk in it.
      type: str
      returned: always
      sample: ""
    vmid:
      description: The guest that the volume is for, or V(null).
      type: int
      returned: always
      sample: 120
    action:
      description:
        - V(convert), V(resume), V(name) (only the name was missing), V(verify) or V(reread) (a finished target was
          read), or V(none).
      type: str
      returned: always
      sample: convert
    changed:
      description: Whether something was, or in check mode would be, written.
      type: bool
      returned: always
      sample: true
    dest:
      description: The file, or empty.
      type: str
      returned: always
      sample: ""
    volume:
      description: The volume id, or empty. In check mode, the volume's name on its storage.
      type: str
      returned: always
      sample: local-lvm:vm-120-web-1f0c5a77
    format:
      description: Its format.
      type: str
      returned: always
      sample: raw
    virtual_size:
      description: Bytes of the source's disk.
      type: int
      returned: always
      sample: 34359738368
    target_size:
      description: Bytes of the target's disk.
      type: int
      returned: always
      sample: 34359738368
    fingerprint:
      description: The source's, as M(diskwright.proxmox.image_info) returns it.
      type: str
      returned: always
      sample: 1f0c5a77c1ab8f5e5f5f7bd1a5c1a5db9d9b4f6a0e6f7c3c0d0f9e3f5a7c1b2d
    content_id:
      description: Digest of the disk's content, see the notes. Empty if it was not verified.
      type: str
      returned: always
      sample: c27755c0eb82095137ffb46c1d1cf1da9b2a9bbd7a5ad5ee4c1dd3b1dbe4e0a4
    checksum:
      description: SHA-256 of the raw content, if O(checksum=true).
      type: str
      returned: always
      sample: ""
    verified:
      description: Whether the target was verified, in this run or an earlier one.
      type: bool
      returned: always
      sample: true
    resumed:
      description: Whether an earlier run had done a part of it, with which this one went on.
      type: bool
      returned: always
      sample: false
    needed:
      description: Bytes that the target takes, at most. Beside them 64 MiB must be free.
      type: int
      returned: always
      sample: 12884901888
    available:
      description: Bytes that were free for it.
      type: int
      returned: always
      sample: 107374182400
    seconds:
      description: How long each phase took.
      type: dict
      returned: always
      sample: {inspect: 0.02, convert: 61.4, verify: 40.9}
    error:
      description: Why it failed, or empty.
      type: str
      returned: always
      sample: ""
    code:
      description: The code of the refusal, if the source was refused, see M(diskwright.proxmox.image_info).
      type: str
      returned: always
      sample: ""
"""

from ..module_utils._ansible.image_convert import ImageConvert, spec
from ..module_utils._ansible.node import run_node_module
from ..module_utils._ansible.runner import Rules


def main() -> None:
    """Run the module."""
    rules = Rules(mutually_exclusive=(("path", "images"),), required_one_of=(("path", "images"),))
    run_node_module(spec(), ImageConvert, rules)


if __name__ == "__main__":
    main()
