#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: windows_drivers
short_description: Reads and stages VirtIO drivers in a running Windows guest
description:
  - Asks a running Windows guest, through the guest agent, what decides whether it would start from a VirtIO disk. Its
    release, the bus and driver of its boot disk, how far each VirtIO driver is installed, BitLocker, fast startup, the
    SAN policy, disks that are offline, and drive letters.
  - With O(state=staged) installs drivers from the driver ISO that is in one of the guest's drives, or from a folder
    where the task runs.
  - Sets what has to be guarded before a boot disk changes its bus, and sets it back. Every such option declares a
    value. To restore something, declare the value that it had in an earlier RV(gathered).
  - Without O(state) and without such an option it only reads.
  - Nothing in the guest is recognised by words that Windows translates.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._guest
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.declares_state
  - diskwright.proxmox._attributes.actiongroup_api
options:
  state:
    description:
      - With V(staged), the O(drivers) are in the guest's driver store, and installed for every device that has need of
        them and is there.
      - A driver is able to start Windows only after it was installed for a device. Attach a small VirtIO disk first, in
        the slot that the boot disk will get. RV(gathered.drivers.boot_critical) says whether it can.
    type: str
    choices: [staged]
  drivers:
    description:
      - The drivers to stage, as the ISO calls them.
    type: list
    elements: str
    choices: [vioscsi, viostor, vioserial, netkvm, balloon]
    default: [vioscsi, viostor]
  folder:
    description:
      - Folder where the task runs, with the files of the driver ISO. They are written through the agent.
      - Without it the ISO must be in a drive of the guest. It is found by its label, V(virtio-win*).
    type: path
  allow_test_signed:
    description:
      - Whether to stage a driver whose signature only a Windows in test mode accepts, or that has none.
      - Windows would not start from such a driver. Nothing is staged if one of the O(drivers) is refused for it.
    type: bool
    default: false
  bitlocker:
    description:
      - With V(suspended), BitLocker keeps O(bitlocker_volumes) readable without a key for O(bitlocker_reboots) starts,
        so that a change of the hardware does not ask for the recovery key.
      - With V(resumed), it protects them again.
      - Volumes that are not encrypted are left alone.
    type: str
    choices: [suspended, resumed]
  bitlocker_reboots:
    description:
      - For how many starts to suspend it. Before Windows 8 it stays suspended until it is resumed.
    type: int
    default: 3
  bitlocker_volumes:
    description:
      - The volumes that are meant, as V(C:). By default all that are protected, or with O(bitlocker=resumed) all that
        are suspended.
    type: list
    elements: str
  fast_startup:
    description:
      - Whether Windows may hibernate its kernel when it is shut down. Must be V(false) before anything outside
        writes to its disks.
    type: bool
  san_policy:
    description:
      - Whether disks that Windows has not seen come online. V(online_all) brings up all of them.
      - Not for guests that share disks with others.
    type: str
    choices: [online_all, offline_shared, offline_all, offline_internal]
  online:
    description:
      - Disks to bring online and make writable, by their RV(gathered.disks[].id).
    type: list
    elements: str
  letters:
    description:
      - Drive letters, and the RV(gathered.volumes[].id) that each belongs to. A letter that another volume has is taken
        from it.
    type: dict
  boot_start:
    description:
      - Services of storage controllers that must be able to start Windows, for example V(storahci) before the boot disk
        goes back to SATA. Windows disables those whose hardware was absent for a while.
      - Services that do not exist are left out.
    type: list
    elements: str
notes:
  - The guest agent must be enabled in the guest's configuration and run in the guest. A Windows from another hypervisor
    has none. See M(diskwright.proxmox.windows_inject).
  - Each step looks first, acts, and looks again. What it found is written to a file in the guest before it is answered,
    so an answer that is lost costs nothing. The files are removed.
  - Windows without PowerShell (XP, 2003, Vista, 2008 as installed) is read through C(reg.exe), which shows neither
    BitLocker nor disks that are offline. These values are V(null) then, and nothing can be set.
  - The user needs the rights C(VM.Audit) and C(VM.GuestAgent.Unrestricted) on the guest, before Proxmox VE 9
    C(VM.Monitor).
  - O(task_timeout) limits each step inside the guest.
seealso:
  - module: diskwright.proxmox.guest_disks
  - module: diskwright.proxmox.windows_inject
"""

EXAMPLES = r"""
- name: What would Windows need to start from a VirtIO disk?
  diskwright.proxmox.windows_drivers:
    name: win2
  register: windows

- name: Say it
  ansible.builtin.debug:
    msg: >-
      {{ windows.gathered.product }} starts from {{ windows.gathered.boot_disk.bus }};
      vioscsi can start it: {{ windows.gathered.drivers.vioscsi.boot_critical }}

- name: Install the drivers from the ISO in the guest's drive
  diskwright.proxmox.windows_drivers:
    name: win2
    state: staged

- name: Before the boot disk changes its bus
  diskwright.proxmox.windows_drivers:
    name: win2
    bitlocker: suspended
    fast_startup: false
    san_policy: online_all

- name: Afterwards, as it was
  diskwright.proxmox.windows_drivers:
    name: win2
    bitlocker: resumed
    fast_startup: "{{ windows.gathered.fast_startup }}"
    san_policy: "{{ windows.gathered.san_policy }}"
    letters: "{{ windows.gathered.letters }}"
"""

RETURN = r"""
vmid:
  description: Number of the guest.
  returned: success
  type: int
  sample: 140
name:
  description: Name of the guest.
  returned: success
  type: str
  sample: app2
node:
  description: Node that it is on.
  returned: success
  type: str
  sample: pve1
gathered:
  description:
    - What Windows says, after everything that was done. In check mode as it was found.
    - V(null) stands for what this Windows cannot tell.
  returned: success
  type: dict
  contains:
    release:
      description: Key of the release, V(null) if it is not known here.
      type: str
      returned: always
      sample: "2022"
    folder:
      description: How the driver ISO calls it, V(null) if there are no drivers for it.
      type: str
      returned: always
      sample: 2k22
    product:
      description: How Windows calls itself.
      type: str
      returned: always
      sample: Windows Server 2022 Standard
    edition:
      description: Its edition.
      type: str
      returned: always
      sample: ServerStandard
    version:
      description: Version and build.
      type: str
      returned: always
      sample: 10.0.20348
    build:
      description: The build alone.
      type: int
      returned: always
      sample: 20348
    server:
      description: Whether it is a server.
      type: bool
      returned: always
      sample: true
    architecture:
      description: V(amd64), V(x86) or V(arm64).
      type: str
      returned: always
      sample: amd64
    firmware:
      description: V(uefi) or V(bios).
      type: str
      returned: always
      sample: uefi
    secure_boot:
      description: Whether Secure Boot is on.
      type: bool
      returned: always
      sample: false
    test_signing:
      description: Whether Windows was started in test mode, and accepts test-signed drivers.
      type: bool
      returned: always
      sample: false
    powershell:
      description: Version of PowerShell, V(null) for none.
      type: str
      returned: always
      sample: "5.1"
    boot_disk:
      description: The disk that Windows is on, an entry of RV(gathered.disks), V(null) if it was not found.
      type: dict
      returned: always
      sample:
        number: 0
        id: 6f1b0c4e-8a3c-4a0e-9c39-3f5a86a1d7f0
        bus: sata
        service: storahci
        paravirtual: false
        size: 34359738368
        serial: QM00005
        model: QEMU HARDDISK
        offline: false
        read_only: false
        partitioning: gpt
    disks:
      description: All disks, with the driver that each hangs on.
      type: list
      elements: dict
      returned: always
      contains:
        number:
          description: Number of the disk.
          type: int
          returned: always
          sample: 0
        id:
          description: What it is recognised by whatever bus it is on, GPT identifier or MBR signature.
          type: str
          returned: always
          sample: 6f1b0c4e-8a3c-4a0e-9c39-3f5a86a1d7f0
        bus:
          description: V(ide), V(sata), V(scsi) or V(virtio), V(null) for others.
          type: str
          returned: always
          sample: sata
        service:
          description: The driver of its controller.
          type: str
          returned: always
          sample: storahci
        paravirtual:
          description: Whether this is a VirtIO driver.
          type: bool
          returned: always
          sample: false
        size:
          description: Size in bytes.
          type: int
          returned: always
          sample: 34359738368
        serial:
          description: Serial number.
          type: str
          returned: always
          sample: QM00005
        model:
          description: What it calls itself.
          type: str
          returned: always
          sample: QEMU HARDDISK
        offline:
          description: Whether it is offline.
          type: bool
          returned: always
          sample: false
        read_only:
          description: Whether Windows lets nobody write to it.
          type: bool
          returned: always
          sample: false
        partitioning:
          description: V(gpt), V(mbr) or V(raw).
          type: str
          returned: always
          sample: gpt
    drivers:
      description: How far each driver is installed, by its name.
      type: dict
      returned: always
      contains:
        store:
          description: Its packages in the driver store.
          type: list
          elements: dict
          returned: always
          sample: [{inf: oem3.inf, version: 100.94.104.24800}]
        service:
          description: Whether its service exists.
          type: bool
          returned: always
          sample: true
        start:
          description: When the service starts. 0 is at boot, 3 on demand, 4 never.
          type: int
          returned: always
          sample: 0
        start_override:
          description: What Windows has put in the place of RV(gathered.drivers.start), V(null) for nothing.
          type: int
          returned: always
          sample: null
        image:
          description: Whether the driver's file is there.
          type: bool
          returned: always
          sample: true
        version:
          description: Version of the file.
          type: str
          returned: always
          sample: 100.94.104.24800
        signer:
          description: Who signed the file, V(null) for nobody.
          type: str
          returned: always
          sample: "CN=Microsoft Windows Hardware Compatibility Publisher, O=Microsoft Corporation, C=US"
        hardware:
          description: How many devices for it are there, V(null) if it cannot be told.
          type: int
          returned: always
          sample: 1
        devices:
          description: How many devices it drives now.
          type: int
          returned: always
          sample: 1
        boot_critical:
          description:
            - Whether Windows would start from a disk on it. It starts at boot and nothing overrides that, its file is
              there, and it drives a device now.
          type: bool
          returned: always
          sample: true
        missing:
          description: What stands against it, in words.
          type: list
          elements: str
          returned: always
          sample: []
    controllers:
      description: The services of other storage controllers that Windows brings along, by name.
      type: dict
      returned: always
      sample: {storahci: {start: 0, start_override: null, devices: 1}}
    bitlocker:
      description:
        - Encrypted volumes by letter or volume, V(on), V(suspended), or V(locked). V(null) if it cannot be told.
      type: dict
      returned: always
      sample: {"C:": "on"}
    fast_startup:
      description: Whether fast startup is on.
      type: bool
      returned: always
      sample: true
    san_policy:
      description: The SAN policy, as the option O(san_policy).
      type: str
      returned: always
      sample: offline_shared
    volumes:
      description: Volumes on disks.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: What it is recognised by whatever bus it is on.
          type: str
          returned: always
          sample: 0b7e5f0c-0000-0000-0000-100000000000
        letter:
          description: Its letter, V(null) for none.
          type: str
          returned: always
          sample: "C:"
        label:
          description: Its label.
          type: str
          returned: always
          sample: System
        filesystem:
          description: Its file system.
          type: str
          returned: always
          sample: NTFS
        size:
          description: Size in bytes.
          type: int
          returned: always
          sample: 34252783616
    letters:
      description: RV(gathered.volumes) as the option O(letters) takes them.
      type: dict
      returned: always
      sample: {"C:": 0b7e5f0c-0000-0000-0000-100000000000}
    iso:
      description: The driver ISO in a drive of the guest, V(null) for none.
      type: dict
      returned: always
      sample: {letter: "E:", label: virtio-win-0.1.271, version: 0.1.271}
    restart_pending:
      description: Whether Windows waits for a restart to finish an installation.
      type: bool
      returned: always
      sample: false
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description: The driver, volume, disk, letter or setting.
      type: str
      returned: always
      sample: vioscsi
    text:
      description: What happens to it.
      type: str
      returned: always
      sample: "staged from E:\\vioscsi\\2k22\\amd64"
    state:
      description: V(planned) or V(done).
      type: str
      returned: always
      sample: done
restart_required:
  description: Whether something that was done takes effect only when Windows starts again.
  returned: success
  type: bool
  sample: false
"""

from ..module_utils._ansible.one_guest import ONE_GUEST
from ..module_utils._ansible.runner import run_api_module
from ..module_utils._ansible.windows_drivers import WindowsDrivers, windows_drivers_spec


def main() -> None:
    """Run the module."""
    run_api_module(windows_drivers_spec(), WindowsDrivers, ONE_GUEST)


if __name__ == "__main__":
    main()
