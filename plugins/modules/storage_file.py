#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_file
short_description: An ISO or an image to import is on a Proxmox VE storage, and is the right one
description:
  - Brings a file to a storage. The node downloads it, or it is sent from where the task runs.
  - Verifies a file that is there already. Its size costs nothing. Its checksum is computed by Proxmox VE, which reads
    the file for it and changes nothing.
  - Another file of the same name is never overwritten silently.
  - Knows the releases of the ISO with the VirtIO drivers for Windows.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  node:
    description: Node that sees the storage, and downloads or receives the file.
    type: str
    required: true
  storage:
    description: Storage that the file is on. It must take O(content).
    type: str
    required: true
  content:
    description: What the file is, an ISO for a CD-ROM drive, or an image that a disk is made from (C(import_from)
      of M(diskwright.proxmox.guest_disks)).
    type: str
    choices: [iso, import]
    default: iso
  name:
    description:
      - Name of the file on the storage. By default the one that it has in O(src), O(url) or O(virtio_win).
      - ISOs end with C(.iso) or C(.img), images with C(.ova), C(.qcow2), C(.raw) or C(.vmdk). Proxmox VE replaces
        characters other than letters, digits, C(_), C(.) and C(-), so such a name is refused.
    type: str
  state:
    description:
      - With V(present), the file is there. Without O(src), O(url) and O(virtio_win) it must be there already.
      - With V(absent), it is not. Guests that have it in a CD-ROM drive do not start any more.
    type: str
    choices: [present, absent]
    default: present
  src:
    description: File to send, where the task runs. Its size and checksum are what the stored file must have.
    type: path
  url:
    description:
      - Address that the node downloads from, C(http) or C(https), through the proxy that is set in the data centre.
      - It may hold a password or a token. It is never shown, only its host is. Proxmox VE writes it into the log of its
        own task.
    type: str
  virtio_win:
    description:
      - A release of the ISO with the VirtIO drivers for Windows, as V(0.1.271), or V(recommended) for the one that
        suits current releases of Windows. The node downloads it.
      - The newest one is not always the best, and old releases of Windows need old ones. This collection knows which
        (guide I(Which driver for which Windows)), and V(recommended) changes only with the collection.
      - Upstream publishes no checksums and has replaced files in place. Use O(checksum) or O(trust_file) with it.
    type: str
  checksum:
    description:
      - Checksum of the file in hexadecimal. Proxmox VE verifies it before the file is put in its place, and again
        each time, if O(verify=checksum).
      - Not together with O(trust_file).
    type: str
  checksum_algorithm:
    description: How O(checksum) is made.
    type: str
    choices: [md5, sha1, sha224, sha256, sha384, sha512]
    default: sha256
  verify:
    description:
      - How a file that is there already is verified.
      - With V(checksum), Proxmox VE computes its checksum, where one is known from O(checksum), O(src) or
        O(trust_file). That is a task of the node that reads the file, also in check mode. Without the right to it
        (see the notes), the module warns and compares the size.
      - With V(size), only its size is compared, where one is known from O(src) or O(trust_file).
    type: str
    choices: [checksum, size]
    default: checksum
  verify_certificates:
    description: Whether the certificate of O(url) must be valid.
    type: bool
    default: true
  trust_file:
    description:
      - File where the task runs that remembers checksums, trust on first use. Keep it with the playbooks, under
        version control.
      - A file whose name is in there must have the checksum and size that are in there. For one that is not, they are
        recorded once it is on the storage, and count from then on, on every node and cluster.
      - It is JSON, an object with C(sha256) and C(size) for each name. To trust a new file under an old name, remove
        its line.
      - To learn the checksum of a file that it has not sent itself, the module asks Proxmox VE to compare it with
        zeroes. That leaves a failed download in the list of tasks, once for each file.
    type: path
  replace:
    description:
      - Whether another file of this name may be overwritten. Without it the task is refused.
      - A file that the node downloads is removed first, because Proxmox VE does not overwrite it.
    type: bool
    default: false
notes:
  - The user needs the right C(Datastore.AllocateTemplate) on the storage, and to see it C(Datastore.Audit). To
    download, and to verify a checksum, it needs C(Sys.AccessNetwork) on the node as well, to remove a file
    C(Datastore.Allocate) on the storage.
  - A run that was killed is finished by the next one. Uploads and downloads that are under way are waited for.
  - Proxmox VE looks into images to import, and refuses those with a backing file and those that are split.
seealso:
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: An installer that the node downloads, verified
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    url: https://mirror.example.com/installer-13.2.iso
    checksum: 361267fae1b0aea42939036a332d9051e5ff69528519730245e768c59f70e649

- name: The driver ISO for Windows, trusted as it was when it was seen first
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    virtio_win: recommended
    trust_file: "{{ playbook_dir }}/trusted_files.json"
  register: drivers

- name: Say where it is
  ansible.builtin.debug:
    msg: "{{ drivers.volid }} has {{ drivers.checksum }}"

- name: An ISO with the answers for an installation, sent from here
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    src: "{{ playbook_dir }}/files/autounattend.iso"
    name: autounattend-win1.iso
    replace: true

- name: An image to import
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    content: import
    url: https://mirror.example.com/cloud/latest/genericcloud-amd64.qcow2
    name: cloud-13.qcow2

- name: An old ISO goes
  diskwright.proxmox.storage_file:
    node: pve1
    storage: local
    name: virtio-win-0.1.229.iso
    state: absent
"""

RETURN = r"""
volid:
  description: Proxmox VE's name of the file, as C(iso) and C(import_from) of M(diskwright.proxmox.guest_disks) take it.
  returned: success
  type: str
  sample: local:iso/virtio-win-0.1.271.iso
node:
  description: The node.
  returned: success
  type: str
  sample: pve1
storage:
  description: The storage.
  returned: success
  type: str
  sample: local
content:
  description: What the file is.
  returned: success
  type: str
  sample: iso
name:
  description: Its name.
  returned: success
  type: str
  sample: virtio-win-0.1.271.iso
size:
  description: Its size in bytes, V(null) if it is not there. In check mode as it is before.
  returned: success
  type: int
  sample: 725428224
verified:
  description:
    - What is known of the file that is there, V(checksum) if Proxmox VE has verified it or it was recorded just now,
      V(size) if it has the right size, V(presence) if nothing is known beyond its name, and V(null) if it is not there.
  returned: success
  type: str
  sample: checksum
checksum:
  description: The checksum that it must have, with its algorithm, V(null) if none is known.
  returned: success
  type: str
  sample: sha256:bbe6166ad86a490caefad438fef8aa494926cb0a1b37fa1212925cfd81656429
steps:
  description:
    - What was done, or in check mode would be, out of V(delete), V(upload), V(download), and V(record) for a checksum
      that is trusted from now on.
  returned: success
  type: list
  elements: str
  sample: [download, record]
upid:
  description: The task that had not ended when the time was over, and goes on.
  returned: if there is one
  type: str
  sample: "UPID:pve1:0004C3D2:0A3F5B1C:69218F10:download:virtio-win-0.1.271.iso:root@pam!ansible:"
"""

from ..module_utils._ansible.runner import run_api_module
from ..module_utils._ansible.storage_file import FILE_RULES, StorageFile, file_spec


def main() -> None:
    """Run the module."""
    run_api_module(file_spec(), StorageFile, FILE_RULES)


if __name__ == "__main__":
    main()
