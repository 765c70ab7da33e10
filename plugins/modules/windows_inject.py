#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: windows_inject
short_description: Puts VirtIO storage drivers into a stopped Windows guest's disk
description:
  - Makes C(vioscsi) and C(viostor) boot-critical in a Windows that is not running, so that it starts from a VirtIO disk
    although it has never seen one. For guests that come from another hypervisor and have no guest agent. Where Windows
    runs and has one, M(diskwright.proxmox.windows_drivers) does it from inside.
  - Runs on the Proxmox VE node that has the disk. Takes the driver for this Windows from the driver ISO, puts it beside
    Windows' own, and writes into the registry what makes Windows load it while it boots.
  - What is there stays. A driver that Windows has installed itself is not replaced, only switched on.
  - Before anything is changed, the registry and every file that is replaced are saved, in C(Windows\diskwright) on the
    volume and under O(state_dir) on the node. O(state=reverted) takes everything back that nobody has changed since.
  - A run that was killed at any moment is finished by the next one.
  - Refused before the first write, with the reason and what to do - a guest that runs or is locked, a disk that
    something has open, a hibernated Windows (fast startup counts), an NTFS volume or a registry that was not left in
    order, BitLocker, a Windows that is not known, another processor, and a driver whose signature this Windows would
    not accept.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.node_plane
options:
  path:
    description: The image of the disk, raw or qcow2. One of O(path) and O(volume) is needed.
    type: path
  volume:
    description: The volume id of the disk on a Proxmox VE storage, as C(pvesm list) shows it.
    type: str
  partition:
    description:
      - Number of the partition that Windows is on, as Linux counts. By default it is looked for.
      - Needed only if there are several.
    type: int
  state:
    description:
      - V(injected) makes the drivers boot-critical.
      - V(reverted) takes back what this module has changed. Registry values and files that were changed by somebody
        else since are kept, with a warning. So is a driver that Windows has installed itself in the meantime.
    type: str
    choices: [injected, reverted]
    default: injected
  iso:
    description:
      - Path of the driver ISO on the node, such as C(/var/lib/vz/template/iso/virtio-win-0.1.271.iso). Required for
        O(state=injected). It is read, not mounted.
      - Which one fits which Windows says the guide L(Which driver ISO for which
        Windows,https://github.com/diskwright/diskwright.proxmox/blob/main/docs/windows-which-driver.md).
    type: path
  drivers:
    description:
      - The drivers. V(vioscsi) for disks on SCSI, V(viostor) for those on VirtIO block.
      - By default all that there are for this Windows, both since Vista, and V(viostor) before.
    type: list
    elements: str
    choices: [vioscsi, viostor]
  allow_test_signed:
    description:
      - Take a driver although its signature is one that this Windows loads only with test signing switched on.
      - A driver without any signature is never taken, nor is one that was changed after it was signed.
    type: bool
    default: false
  legacy_boot:
    description:
      - Switch Windows' own drivers for IDE and SATA on again, if they are switched off. After some time on VirtIO,
        Windows may have done that, and would not start from its old bus any more. Is done for both states, and is not
        taken back.
    type: bool
    default: true
  backend:
    description:
      - V(own) is this module.
      - V(virt-v2v-in-place) runs that program, for those who want what else it does, the guest agent among it. It takes
        one driver, has no way back, and may leave a damaged disk if it fails. Make a snapshot before.
    type: str
    choices: [own, virt-v2v-in-place]
    default: own
  state_dir:
    description: Folder on the node for backups and for what must survive a crash.
    type: path
    default: /var/lib/diskwright
requirements:
  - Runs as root.
  - C(python3-hivex) and C(ntfs-3g). As root C(apt-get install --no-install-recommends python3-hivex ntfs-3g). Never
    name a package of QEMU with them, as apt would remove C(proxmox-ve).
  - C(virt-v2v) for O(backend=virt-v2v-in-place)
notes:
  - What is proven of a driver's signature is that it belongs to the file, and that it was made with the key of the
    certificate that it names. That a certificate which calls itself Microsoft's is Microsoft's can't be proven here.
    Check the ISO with a checksum, as M(diskwright.proxmox.storage_file) does.
  - Do not start the guest while this module runs. Proxmox VE does not know of it.
  - Check mode mounts the volume for a moment, read-only. Nothing is written to it, not even a journal replayed.
seealso:
  - module: diskwright.proxmox.windows_drivers
  - module: diskwright.proxmox.windows_migrate
  - module: diskwright.proxmox.storage_file
"""

EXAMPLES = r"""
- name: A guest from VMware learns to start from VirtIO
  diskwright.proxmox.windows_inject:
    volume: local:120/vm-120-disk-0.qcow2
    iso: /var/lib/vz/template/iso/virtio-win-0.1.271.iso
  register: windows

- name: What it is
  ansible.builtin.debug:
    msg: "{{ windows.windows.title }} ({{ windows.windows.build }}) can start with {{ windows.injected | join(', ') }}"

- name: One driver, into an image that is not on a storage yet
  diskwright.proxmox.windows_inject:
    path: /mnt/import/old1.raw
    iso: /var/lib/vz/template/iso/virtio-win-0.1.271.iso
    drivers: [viostor]

- name: All of it back
  diskwright.proxmox.windows_inject:
    volume: local:120/vm-120-disk-0.qcow2
    state: reverted
"""

RETURN = r"""
image:
  description: The image's path, links resolved, or the volume id.
  returned: success
  type: str
  sample: local:120/vm-120-disk-0.qcow2
partition:
  description: Number of the partition that Windows is on.
  returned: success
  type: int
  sample: 1
windows:
  description: Which Windows it is.
  returned: success
  type: dict
  contains:
    release:
      description: A short name for its release.
      type: str
      returned: always
      sample: "2022"
    title:
      description: The release, as people call it.
      type: str
      returned: always
      sample: Windows Server 2022
    name:
      description: How it calls itself.
      type: str
      returned: always
      sample: Windows Server 2022 Standard
    version:
      description: Version of the kernel.
      type: str
      returned: always
      sample: "10.0"
    build:
      description: Number of the build.
      type: int
      returned: always
      sample: 20348
    edition:
      description: V(client) or V(server).
      type: str
      returned: always
      sample: server
    architecture:
      description: V(x86) or V(amd64).
      type: str
      returned: always
      sample: amd64
injected:
  description: The drivers that this Windows loads while it boots, of those that were asked for.
  returned: success
  type: list
  elements: str
  sample: [vioscsi, viostor]
drivers:
  description: The same with what is known of each. Empty for O(state=reverted).
  returned: success
  type: dict
  sample:
    vioscsi:
      version: 07/21/2024,100.0.104.27100
      signer: >-
        Microsoft Windows Hardware Compatibility Publisher, certified by Microsoft Windows Third Party Component CA 2014
        (sha256)
      test_signed: false
      installed_by_windows: false
      start_before: null
      switched_off_before: false
iso:
  description: Label of the driver ISO.
  returned: with O(iso)
  type: str
  sample: virtio-win-0.1.271
kept:
  description: What could not be taken back, because it was changed since.
  returned: success
  type: list
  elements: str
  sample: []
backups:
  description: Where the registry is as it was, and what was replaced.
  returned: for O(state=injected), if it is done by this module
  type: dict
  sample: {volume: Windows\diskwright, node: /var/lib/diskwright/windows_inject/0d7dd2e3a3a34a3fb6c6}
"""

from ..module_utils._ansible.node import run_node_module
from ..module_utils._ansible.runner import Rules
from ..module_utils._ansible.windows_inject import BACKENDS, DRIVERS, STATES, WindowsInject


def main() -> None:
    """Run the module."""
    run_node_module(
        {
            "path": {"type": "path"},
            "volume": {"type": "str"},
            "partition": {"type": "int"},
            "state": {"type": "str", "choices": list(STATES), "default": "injected"},
            "iso": {"type": "path"},
            "drivers": {"type": "list", "elements": "str", "choices": list(DRIVERS)},
            "allow_test_signed": {"type": "bool", "default": False},
            "legacy_boot": {"type": "bool", "default": True},
            "backend": {"type": "str", "choices": list(BACKENDS), "default": "own"},
            "state_dir": {"type": "path", "default": "/var/lib/diskwright"},
        },
        WindowsInject,
        Rules(mutually_exclusive=(("path", "volume"),), required_one_of=(("path", "volume"),)),
    )


if __name__ == "__main__":
    main()
