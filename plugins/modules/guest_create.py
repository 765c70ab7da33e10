#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_create
short_description: Makes a Proxmox VE guest that is not there, without disks
description:
  - Makes a guest with the given number or name, unless there is one. Its disks, the EFI disk and the TPM among them,
    are the business of M(diskwright.proxmox.guest_disks).
  - A guest that is there is never changed. What it has otherwise than declared is returned as RV(different).
  - Options are called as Proxmox VE calls them. What is not given is left to its defaults.
  - Several runs may make guests at the same time. A number that another one took in between is given up for the next.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  vmid:
    description:
      - Number of the guest. Without it, the guest is the one called O(name), and a new one gets the next free number.
      - If the guest of this number has another name than O(name), the task fails.
    type: int
  name:
    description: Name of the guest. Without O(vmid) it is required, and only one guest of the cluster may have it.
    type: str
  node:
    description: Node on which a new guest is made.
    type: str
    required: true
  memory:
    description: Memory in MiB.
    type: int
  cores:
    description: Cores of each socket.
    type: int
  sockets:
    description: Sockets.
    type: int
  cpu:
    description: Type of the CPU, with its flags if you like, for example V(host) or V(x86-64-v2-AES).
    type: str
  ostype:
    description: The guest's operating system. V(l26) is every Linux since 2.6, V(win10) Windows 10, 2016 and 2019,
      V(win11) Windows 11, 2022 and 2025.
    type: str
    choices: [other, wxp, w2k, w2k3, w2k8, wvista, win7, win8, win10, win11, l24, l26, solaris]
  bios:
    description: Firmware. V(ovmf) is UEFI, and needs an C(efidisk0) to keep its boot entries.
    type: str
    choices: [seabios, ovmf]
  machine:
    description: Type of the machine, V(pc) (the default of Proxmox VE) or V(q35), or one of them with its version.
    type: str
  scsihw:
    description: SCSI controller. M(diskwright.proxmox.guest_disks) can choose it as well.
    type: str
    choices: [lsi, lsi53c810, virtio-scsi-pci, virtio-scsi-single, megasas, pvscsi]
  agent:
    description: Whether the QEMU guest agent is used, V(true) or V(false), or Proxmox VE's own text, for example
      V(enabled=1,fstrim_cloned_disks=1).
    type: str
  tags:
    description: Tags. Proxmox VE keeps them in lower case and sorted.
    type: list
    elements: str
  description:
    description: Notes.
    type: str
  onboot:
    description: Whether the guest starts with its node.
    type: bool
  net:
    description: Network cards.
    type: list
    elements: dict
    suboptions:
      slot:
        description: Slot, V(net0) to V(net31).
        type: str
        required: true
      model:
        description: Model of the card.
        type: str
        choices:
          - e1000
          - e1000-82540em
          - e1000-82544gc
          - e1000-82545em
          - e1000e
          - i82551
          - i82557b
          - i82559er
          - ne2k_isa
          - ne2k_pci
          - pcnet
          - rtl8139
          - virtio
          - vmxnet3
        default: virtio
      macaddr:
        description: MAC address. Without it Proxmox VE chooses one.
        type: str
      bridge:
        description:
          - Bridge that the card is connected to.
          - Without it Proxmox VE gives the guest a network of its own behind the node's address. Write
            O(net[].link_down=true) for a card that is not connected at all.
          - Proxmox VE does not look whether the bridge exists before the guest starts.
        type: str
      tag:
        description: VLAN.
        type: int
      firewall:
        description: Whether the firewall of Proxmox VE looks at the card's traffic.
        type: bool
      link_down:
        description: Whether the cable is pulled.
        type: bool
      mtu:
        description: MTU, V(1) for that of the bridge. Only for VirtIO.
        type: int
      queues:
        description: Packet queues. Only for VirtIO.
        type: int
      rate:
        description: Limit in MB/s.
        type: float
      trunks:
        description: VLANs that pass through, for example V(10;20-29).
        type: str
  pool:
    description: Resource pool that a new guest becomes a member of.
    type: str
notes:
  - The user needs C(VM.Allocate) and C(VM.Audit) on the guest or on its pool, and for what is given
    C(VM.Config.Memory), C(VM.Config.CPU), C(VM.Config.HWType), C(VM.Config.Options) and C(VM.Config.Network), with
    C(SDN.Use) on the bridge and C(Pool.Audit) on the pool.
seealso:
  - module: diskwright.proxmox.guest_disks
"""

EXAMPLES = r"""
- name: A guest for a Linux, with the next free number
  diskwright.proxmox.guest_create:
    name: app2
    node: pve1
    memory: 2048
    cores: 2
    ostype: l26
    scsihw: virtio-scsi-single
    agent: "true"
    tags: [imported]
    net:
      - slot: net0
        bridge: vmbr0
  register: app2

- name: Its disk
  diskwright.proxmox.guest_disks:
    vmid: "{{ app2.vmid }}"
    disks:
      - slot: scsi0
        storage: local-lvm
        size: 1G

- name: A Windows with UEFI, whose network card is not connected yet
  diskwright.proxmox.guest_create:
    vmid: 140
    name: win2
    node: pve1
    memory: 4096
    cores: 4
    cpu: x86-64-v2-AES
    ostype: win11
    bios: ovmf
    machine: q35
    net:
      - slot: net0
        model: e1000e
        link_down: true
"""

RETURN = r"""
vmid:
  description: Number of the guest. In check mode, for one that would get the next free number, the one that is free
    now.
  returned: success
  type: int
  sample: 125
name:
  description: Name of the guest.
  returned: success
  type: str
  sample: app2
node:
  description: Node that the guest is on.
  returned: success
  type: str
  sample: pve1
different:
  description:
    - What a guest that was there has otherwise than declared, by option, each with C(declared) and C(actual), as
      Proxmox VE writes them. C(actual) is V(null) if the guest's configuration does not name the option.
    - Empty for a new guest.
  returned: success
  type: dict
  sample: {memory: {declared: "2048", actual: "4096"}}
"""

from ..module_utils._ansible.guest_create import GuestCreate, create_spec
from ..module_utils._ansible.runner import Rules, run_api_module


def main() -> None:
    """Run the module."""
    run_api_module(create_spec(), GuestCreate, Rules(required_one_of=(("vmid", "name"),)))


if __name__ == "__main__":
    main()
