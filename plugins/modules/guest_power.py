#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_power
short_description: Starts, stops and restarts a Proxmox VE guest, and waits for it
description:
  - Makes a guest run, or not run, or take up what waits in its configuration, and waits until it is so, or until its
    guest agent answers.
  - A guest is asked to shut down. Proxmox VE asks its guest agent if that is enabled and answers, and presses the ACPI
    power button otherwise. Only with O(force_stop=true) the plug is pulled, and only after the guest had its time.
  - When time runs out, the error says what the guest was seen doing last.
author:
  - The diskwright.proxmox authors (@diskwright)
extends_documentation_fragment:
  - diskwright.proxmox._connection
  - diskwright.proxmox._guest
  - diskwright.proxmox._attributes
  - diskwright.proxmox._attributes.actiongroup_api
attributes:
  check_mode:
    support: full
    details:
      - The steps are those of a real run. Nothing is waited for.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=restarted) restarts a guest each time, unless O(if_pending=true).
options:
  state:
    description:
      - With V(started), the guest runs. One that is halted (paused by somebody, or by an I/O error) is resumed.
      - With V(stopped), it does not run.
      - With V(restarted), it is shut down and started again, which makes it take up its configuration. A reboot from
        inside the guest does not. A guest that is stopped is started.
    type: str
    choices: [started, stopped, restarted]
    required: true
  if_pending:
    description:
      - With O(state=restarted), restart only a guest that runs and has something waiting in its configuration. A guest
        that is stopped stays so, and takes everything up whenever it is started.
      - Proxmox VE shows some options of drives at once, although a running guest does not have them yet (C(serial),
        C(wwn), C(model), C(detect_zeroes), C(rerror), C(werror)). They are not seen here. The task
        of M(diskwright.proxmox.guest_disks) that sets them returns them.
    type: bool
    default: false
  force_stop:
    description:
      - Whether a guest that does not shut down within O(shutdown_timeout) is stopped by force, as if the plug were
        pulled. What it had not written to its disks is lost.
      - A guest that HA manages is not shut down without this, because the HA manager always stops by force when the
        time is over.
      - Not together with O(if_pending=true).
    type: bool
    default: false
  wait_for:
    description:
      - What to wait for after Proxmox VE has done its part. By default until the guest is as O(state) says.
      - With V(agent), until the guest agent answers, also if the guest runs already.
      - With V(none), nothing.
    type: str
    choices: [none, running, agent]
  shutdown_timeout:
    description: Seconds that the guest has to shut down, at most O(task_timeout).
    type: int
    default: 180
  wait_timeout:
    description: Seconds to wait for the guest to run, and again as many for its agent.
    type: int
    default: 300
notes:
  - The user needs the rights C(VM.Audit) and C(VM.PowerMgmt) on the guest, and C(VM.GuestAgent.Audit) (Proxmox VE 8
    C(VM.Monitor)) for O(wait_for=agent) and to be told RV(method) of a guest whose agent is enabled.
  - A run that was killed, or ran out of time, is finished by the next one. Starts and stops that are under way are
    waited for before anything is decided.
seealso:
  - module: diskwright.proxmox.guest_disks
  - module: diskwright.proxmox.guest_snapshot
"""

EXAMPLES = r"""
- name: A guest runs, and its agent answers
  diskwright.proxmox.guest_power:
    vmid: 125
    state: started
    wait_for: agent

- name: Restart a guest if something waits in its configuration, and only then
  diskwright.proxmox.guest_power:
    name: cache1
    state: restarted
    if_pending: true

- name: A guest is off within two minutes, whatever it takes
  diskwright.proxmox.guest_power:
    vmid: 127
    state: stopped
    shutdown_timeout: 120
    force_stop: true
"""

RETURN = r"""
vmid:
  description: Number of the guest.
  returned: success
  type: int
  sample: 125
name:
  description: Name of the guest.
  returned: success
  type: str
  sample: files1
node:
  description: Node that it is on.
  returned: success
  type: str
  sample: pve1
before:
  description:
    - What the guest did before, V(running) or V(stopped), or V(running) with what QEMU says of itself, for example
      V(running, io-error).
  returned: success
  type: str
  sample: stopped
status:
  description: The same afterwards.
  returned: success
  type: str
  sample: running
steps:
  description: What was done, or in check mode would be, out of V(start), V(resume), V(shutdown), V(stop), V(reboot).
  returned: success
  type: list
  elements: str
  sample: [start]
method:
  description:
    - How the guest was stopped, through V(agent), by V(acpi), or by V(stop), that is by force. V(null) if it was not,
      or if the user may not ask the agent.
  returned: success
  type: str
  sample: agent
agent_answers:
  description: Whether the guest agent answered when it was asked last, V(null) if it was not asked.
  returned: success
  type: bool
  sample: true
restart_required:
  description: What waits for the next start all the same, as slots, options of slots, or other keys.
  returned: success
  type: list
  elements: str
  sample: []
upid:
  description: The task that had not ended when the time was over, and goes on.
  returned: if there is one
  type: str
  sample: "UPID:pve1:0004C3D2:0A3F5B1C:69218F10:qmshutdown:125:root@pam!ansible:"
"""

from ..module_utils._ansible.guest_power import GuestPower, power_spec
from ..module_utils._ansible.one_guest import ONE_GUEST
from ..module_utils._ansible.runner import run_api_module


def main() -> None:
    """Run the module."""
    run_api_module(power_spec(), GuestPower, ONE_GUEST)


if __name__ == "__main__":
    main()
