# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two Windows guests on their way to VirtIO, one that gets there and one that does not: `./dev demo-windows`.

The lab plays the Windows: what it installs, which disks it starts from, and what its guest agent answers. Nothing else
is played: disk images, configuration, tasks and snapshots are the lab's own. Exits with 1 when anything ends otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from demo.__main__ import title
from lab import Lab
from lab.windows import windows_of

HERE = Path(__file__).resolve().parent
PLAYBOOK = "diskwright.proxmox.windows_virtio"
GUESTS = {130: "files1", 131: "erp1"}
SHOWN = ("boot", "ide2", "sata0", "sata1", "scsi0", "scsi1", "scsihw")
#: What Ansible prints around the things that matter.
NOISE = ("TASK", "PLAY", "ok:", "skipping:", "included:", "changed:", "fatal:")


def play(lab: Lab, *arguments: str, fails: bool = False) -> str:
    """Run the playbook as a user would, and show what it prints."""
    environment = os.environ | {
        "PROXMOX_HOST": f"{lab.host}:{lab.port}",
        "PROXMOX_USER": "root@pam",
        "PROXMOX_TOKEN_ID": "test",
        "PROXMOX_TOKEN_SECRET": lab.token("root@pam!test"),
        "PROXMOX_VALIDATE_CERTS": "true",
        "PROXMOX_CA_PATH": str(lab.cafile),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_FORCE_COLOR": "false",
    }
    inventory = str(HERE / "windows_inventory.yml")
    print("$ ansible-playbook -i inventory.yml", PLAYBOOK, *arguments, end="\n\n", flush=True)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, PLAYBOOK, *arguments]
    command += ["-e", "windows_virtio_agent_timeout=5"]
    run = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print("\n".join(shown(run.stdout)), flush=True)
    if (run.returncode != 0) != fails:
        raise SystemExit(f"{run.stdout}\n{PLAYBOOK} ended with {run.returncode}")
    return run.stdout


def shown(output: str) -> Iterator[str]:
    """What a person wants to see of it: plans, the table, warnings, and why it failed but not where in the role."""
    error = False
    for line in output.partition("PLAY RECAP")[0].splitlines():
        text = line.strip().strip('",')
        error = (error or line.startswith("[ERROR]")) and not line.startswith("fatal:")
        if line.startswith("[ERROR]"):
            yield text
        elif text and not error and text not in ('msg": [', "]", "}") and not line.startswith(NOISE):
            yield f"  {text}" if line.startswith('        "') else line


def configurations(lab: Lab) -> None:
    """The lines that matter of each guest."""
    for vmid, name in GUESTS.items():
        config = lab.config(vmid)
        print(f"  {name}")
        for key in SHOWN:
            if key in config:
                print(f"    {key}: {config[key]}")
        print(f"    snapshots: {', '.join(lab.guest(vmid).conf.snapshots) or 'none'}; notes: {notes(config)}")


def notes(config: dict[str, Any]) -> str:
    """The user's notes, and the journal behind them as far as it is readable."""
    return str(config.get("description", "")).replace("\n", " | ")


def breaks(lab: Lab, vmid: int) -> Any:
    """From now on this Windows says that it has the driver, and does not start from it. :returns: what mends it."""
    windows = windows_of(lab.guest(vmid))
    answers = windows.answers
    windows.answers = lambda guest: answers(guest) and windows.disks(guest)[0][2] != "vioscsi"  # type: ignore[method-assign]

    def mend() -> None:
        windows.answers = answers  # type: ignore[method-assign]

    return mend


def is_on(lab: Lab, vmid: int, slots: tuple[str, str]) -> bool:
    """Whether a guest runs, its Windows is up, and its two disks are in these slots and no others."""
    config = lab.config(vmid)
    volumes = [config.get(slot, "").partition(",")[0] for slot in slots]
    others = [key for key in config if key.startswith(("sata", "scsi", "unused")) and key not in (*slots, "scsihw")]
    guest = lab.guest(vmid)
    return all(volumes) and not others and guest.running is not None and windows_of(guest).up


def main() -> int:
    """The demo. :returns: the exit status."""
    seed = yaml.safe_load((HERE / "windows_seed.yml").read_text())
    old, new = ("sata0", "sata1"), ("scsi0", "scsi1")
    with tempfile.TemporaryDirectory(prefix="diskwright-demo-") as state, Lab(Path(state), seed, time_scale=0.1) as lab:
        mend = breaks(lab, 131)
        title("Two Windows servers that came from elsewhere. Where do they stand?")
        play(lab)
        title("What would be done? In check mode, nothing is touched:")
        before = {vmid: lab.config(vmid) for vmid in GUESTS}
        plan = play(lab, "-e", "windows_virtio_entry=migrate", "--check", "--diff")
        right = all(lab.config(vmid) == before[vmid] for vmid in GUESTS) and "was sata0" in plan
        title("Carried out. The driver of erp1 turns out to be broken, and the play says so in the end:")
        play(lab, "-e", "windows_virtio_entry=migrate", fails=True)
        title("files1 runs on VirtIO. erp1 runs where it did before, and its notes say why:")
        configurations(lab)
        right = right and is_on(lab, 130, new) and is_on(lab, 131, old)
        title("Again: nothing is done, and erp1 is left alone until somebody says otherwise")
        seen = len([one for one in lab.writes() if "/agent/" not in one.path])
        play(lab, "-e", "windows_virtio_entry=migrate")
        right = right and seen == len([one for one in lab.writes() if "/agent/" not in one.path])
        title("The driver of erp1 is mended, and it is tried again:")
        mend()
        play(lab, "-e", "windows_virtio_entry=migrate", "-e", "windows_virtio_retry=true")
        print()
        play(lab)
        right = right and is_on(lab, 130, new) and is_on(lab, 131, new)
    title("Both run on VirtIO, and the lab has ended" if right else "SOMETHING IS NOT AS IT SHOULD BE")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
