#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_benchmark
short_description: Measures formats, buses and cache modes of virtual disks on a node's own storage
description:
  - Measures each combination of format, bus, cache mode and kind of I/O with C(fio), in a guest whose QEMU is told of
    the drive exactly as Proxmox VE tells it. The guest is a tiny Linux that is put together from the node's own kernel
    and programs. It needs no installation, no network, and no guest's configuration.
  - Everything is measured several times in rounds of random order. One combination of each place is measured against
    itself, which shows the noise.
  - Only scratch volumes are written to. They are made for the run and freed at its end, also when it fails or is
    interrupted. After it was killed, the next run frees them.
  - It can be killed at any time. The same task goes on where it was. When it has finished, the same task returns the
    results and measures nothing; for a new measurement take another O(name).
  - With O(durability=true) it also tries what a crash costs. QEMU, and a host that a guest plays, are killed in the
    middle of flushed writes, and what the guest was told is safe is looked for.
  - The role P(diskwright.proxmox.disk_benchmark#role) makes a page, and facts for policies, out of the results.
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
requirements:
  - The Debian package C(fio) on the node, or O(fio). It needs and replaces none of Proxmox VE's packages.
  - Outside of Proxmox VE, the Debian packages C(qemu-system-x86), C(qemu-utils) and a kernel, see O(kernel).
options:
  name:
    description: The name of the run. It becomes a folder below O(state_dir).
    type: str
    default: benchmark
  state:
    description:
      - V(present) measures, goes on measuring, or returns what was measured.
      - V(absent) frees the scratch volumes of a run that was killed, and removes the run and its results.
    type: str
    choices: [present, absent]
    default: present
  places:
    description:
      - Where to measure, by names of storages of this node, or absolute paths of folders.
      - Storages that QEMU reaches without a device of the node can't be measured. These are the types C(rbd) without
        C(krbd), and C(zfs), which is ZFS over iSCSI.
    type: list
    elements: str
    default: []
  formats:
    description:
      - The formats, each with options of C(qemu-img create -o) behind it if wanted, V(qcow2,cluster_size=2M). These are
        taken on storages of files only.
      - What a storage can't hold is left out, and RV(plan.left_out) says so.
    type: list
    elements: str
    default: [raw, qcow2]
  buses:
    description:
      - The buses. V(scsi) is with the controller C(virtio-scsi-single). V(+iothread) behind V(scsi) and V(virtio) gives
        the drive an I/O thread.
    type: list
    elements: str
    default: [scsi+iothread, scsi, virtio+iothread, virtio, sata, ide]
  caches:
    description: The cache modes.
    type: list
    elements: str
    default: [none, directsync, writethrough, writeback, unsafe]
  aios:
    description: The kinds of asynchronous I/O.
    type: list
    elements: str
    default: [io_uring, native, threads]
  vary:
    description:
      - V(each) measures the first combination that there is of the lists, and all that differ from it in one thing.
      - V(all) measures every combination of the lists, which can take days.
    type: str
    choices: [each, all]
    default: each
  workloads:
    description:
      - What is measured. V(randread-4k-q1), V(randread-4k-q32), V(randwrite-4k-q1) and V(randwrite-4k-q32) are random
        reads and writes of 4 KiB, one and 32 at a time. V(seqread-1m) and V(seqwrite-1m) are sequential ones of 1 MiB.
        V(mixed-8k) is 70% reads and 30% writes of 8 KiB, as of a database. V(commit-4k) flushes each write of 4 KiB.
        V(boot) replays the reads of a system that starts.
    type: list
    elements: str
    default:
      - randread-4k-q1
      - randread-4k-q32
      - randwrite-4k-q1
      - randwrite-4k-q32
      - seqread-1m
      - seqwrite-1m
      - mixed-8k
      - commit-4k
      - boot
  repetitions:
    description: How often each combination is measured, at least V(3).
    type: int
    default: 5
  seconds:
    description: How long each workload is measured each time.
    type: int
    default: 20
  ramp:
    description: Seconds before that, which do not count.
    type: int
    default: 3
  size:
    description:
      - The size of each scratch volume, such as V(4G). There is one for each format on each place, and it is filled.
      - Reads of a volume that is smaller than the caches of the storage are measured from these caches.
    type: str
    default: 4G
  seed:
    description: Which random order.
    type: int
    default: 1
  time_limit:
    description:
      - Seconds that all of it may take, interruptions not counted. V(0) is for no limit.
      - A plan that takes longer is cut. Repetitions are left out first, then combinations from the end of the lists.
    type: int
    default: 0
  durability:
    description:
      - Try also what crashes cost, for each format and cache mode. It takes about half a minute for each.
      - The node itself is not brought to crash. A guest plays it.
    type: bool
    default: false
  max_load:
    description:
      - Refuse to begin if the load of the node's last minute, divided by the number of its processors, is higher.
    type: float
    default: 0.3
  vmid:
    description: The number under which scratch volumes are made on storages. No guest may have it.
    type: int
    default: 999999999
  kernel:
    description: The guest's kernel. By default it is the one that runs on the node, C(/boot/vmlinuz-$(uname -r\)).
    type: path
  kernel_modules:
    description: The folder of the modules of O(kernel). By default it is the one below C(/lib/modules).
    type: path
  fio:
    description: The name or path of C(fio) on the node.
    type: str
    default: fio
  state_dir:
    description: Where the state of runs is kept, and their results. It must be the same in later runs.
    type: path
    default: /var/lib/diskwright
notes:
  - Without KVM, QEMU translates the guest's instructions. That works, but then latencies mean little, and the results
    say so.
  - On Proxmox VE, what QEMU is told is also compared with C(qm showcmd) of guests that run on the node. Differences are
    warnings, and notes in the results.
  - What the node has cached of an image is given up before each start of the guest, but not what disks, controllers,
    the ARC of ZFS, or other machines have cached.
  - A run takes hours. Use C(async) and C(poll), or start it so that it does not end with your connection.
seealso:
  - module: diskwright.proxmox.guest_disks
  - name: Know your storage
    description: The guide to what is measured, and how to read it.
    link: https://github.com/diskwright/diskwright.proxmox/blob/main/docs/benchmark.md
"""

EXAMPLES = r"""
- name: What would be measured on two storages, and how long would it take?
  diskwright.proxmox.disk_benchmark:
    places: [local-lvm, tank]
  check_mode: true
  register: planned

- name: Measure cache modes on a folder, in half an hour
  diskwright.proxmox.disk_benchmark:
    name: before-the-upgrade
    places: [/mnt/fast]
    formats: [raw, "qcow2,cluster_size=2M"]
    buses: [scsi+iothread]
    aios: [io_uring]
    workloads: [randread-4k-q32, commit-4k]
    seconds: 10
    time_limit: 1800
    durability: true
  async: 3600
  poll: 30
  register: measured

- name: Forget it
  diskwright.proxmox.disk_benchmark:
    name: before-the-upgrade
    state: absent
"""

RETURN = r"""
name:
  description: O(name).
  type: str
  returned: always
  sample: benchmark
plan:
  description: What is measured, unless it was measured by an earlier run.
  type: dict
  returned: with O(state=present), if the results are not there already
  contains:
    summary:
      description: The plan in a sentence.
      type: str
      returned: always
      sample: "12 combinations x 5 rounds x 9 workloads of 20 s: 65 starts of the guest, about 4 h 10 min"
    seconds:
      description: How long all of it takes, about, crashes included.
      type: int
      returned: always
      sample: 15000
    trials:
      description: How often the guest is started to measure.
      type: int
      returned: always
      sample: 65
    done:
      description: How many of these starts are done.
      type: int
      returned: always
      sample: 0
    combinations:
      description: The combinations by their keys, place, format, bus, cache mode and kind of I/O.
      type: list
      elements: str
      returned: always
      sample: [local-lvm/raw/scsi+iothread/none/io_uring]
    crashes:
      description: What is killed, with which combination.
      type: list
      elements: str
      returned: always
      sample: ["qemu: local-lvm/raw/scsi+iothread/none/io_uring"]
    left_out:
      description: What is not measured, and why.
      type: list
      elements: dict
      returned: always
      contains:
        what:
          description: The key of a combination, or a part of the plan.
          type: str
          returned: always
          sample: local-lvm/raw/scsi+iothread/writeback/native
        reason:
          description: Why.
          type: str
          returned: always
          sample: QEMU refuses to start with aio=native unless the cache mode is none or directsync.
benchmark:
  description:
    - The document of the results, see the guide. It has the method, the machine, every single measurement, what crashes
      have cost, and what was left out.
  type: dict
  returned: with O(state=present), if all is measured
  sample: {version: 1, id: pve1-benchmark-2026-11-25T01:55:21Z}
results_file:
  description: Where the results are on the node, or empty.
  type: str
  returned: always
  sample: /var/lib/diskwright/benchmarks/benchmark/results.json
"""

from ..module_utils._ansible.disk_benchmark import DiskBenchmark, spec
from ..module_utils._ansible.node import run_node_module


def main() -> None:
    """Run the module."""
    run_node_module(spec(), DiskBenchmark)


if __name__ == "__main__":
    main()
