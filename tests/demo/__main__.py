# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, shown on real images: `./dev demo`.

Starts the lab with three guests, shows the plan in check mode, carries it out, looks into the images with qemu-img,
runs again, and ends the lab. Exits with 1 when anything is not as declared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.drive import Drive, parse_drive
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.size import human_size
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.slot import find_slot
from lab import Lab

HERE = Path(__file__).resolve().parent
PLAYBOOK = "diskwright.proxmox.converge"
GUESTS = {120: "db1", 121: "web1", 122: "new1"}
NODES = {120: "pve2", 121: "pve1", 122: "pve1"}


def title(text: str) -> None:
    """A heading between the steps."""
    print(f"\n\033[1m== {text}\033[0m\n" if sys.stdout.isatty() else f"\n== {text}\n", flush=True)


def converge(lab: Lab, *arguments: str) -> str:
    """Run the playbook as a user would, show what it prints, and return that."""
    environment = os.environ | {
        "PROXMOX_HOST": f"{lab.host}:{lab.port}",
        "PROXMOX_USER": "root@pam",
        "PROXMOX_TOKEN_ID": "test",
        "PROXMOX_TOKEN_SECRET": lab.token("root@pam!test"),
        "PROXMOX_VALIDATE_CERTS": "true",
        "PROXMOX_CA_PATH": str(lab.cafile),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty()).lower(),
    }
    command = ["ansible-playbook", "-i", "tests/demo/inventory", PLAYBOOK, *arguments]
    print("$", *command, flush=True)
    command[:3] = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(HERE / "inventory")]
    run = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    shown = [line for line in run.stdout.splitlines() if not line.startswith(("TASK", "PLAY [")) and line.strip()]
    print("\n".join(shown), flush=True)
    if run.returncode:
        raise SystemExit(f"{PLAYBOOK} ended with {run.returncode}")
    return run.stdout


def image_row(lab: Lab, vmid: int, slot: str, drive: Drive) -> tuple[str, bool]:
    """What qemu-img says of a volume, as a line, and whether it is what the configuration says."""
    output = subprocess.run(
        ["qemu-img", "info", "--force-share", "--output=json", str(lab.file(drive.volume, NODES[vmid]))],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    info = json.loads(output)
    right = info["format"] == drive.format and drive.size is not None and info["virtual-size"] >= drive.size
    shown = f"{info['format']:<6} {human_size(info['virtual-size']):<8} {human_size(info['actual-size']):<11}"
    return f"  {'ok ' if right else 'NOT'} {GUESTS[vmid]:<5} {slot:<9} {shown} {drive.volume}", right


def images_are_right(lab: Lab) -> bool:
    """Look into every image of every guest."""
    print("      guest slot      format virtual  on disk     volume")
    rows = []
    for vmid in GUESTS:
        for key, text in sorted(lab.config(vmid).items()):
            slot = find_slot(key)
            if slot is not None and not slot.is_unused and parse_drive(text).is_disk:
                rows.append(image_row(lab, vmid, key, parse_drive(text)))
    print("\n".join(line for line, _right in rows))
    return all(right for _line, right in rows)


def contents_are_there(lab: Lab) -> bool:
    """The data that the guests had is where it is declared to be now."""
    found = []
    for vmid, slot, text in (
        (120, "scsi0", "the root disk of db1"),
        (120, "scsi1", "the tables of db1"),
        (121, "scsi1", "the uploads of web1"),
        (120, "virtio0", "nobody remembers what this is"),
    ):
        drive = parse_drive(lab.config(vmid)[slot])
        with tempfile.NamedTemporaryFile() as raw:
            subprocess.run(
                [
                    "qemu-img",
                    "convert",
                    "-U",
                    "-f",
                    drive.format,
                    "-O",
                    "raw",
                    str(lab.file(drive.volume, NODES[vmid])),
                    raw.name,
                ],
                check=True,
            )
            right = raw.read(len(text)) == text.encode()
        found.append(right)
        print(f'  {"ok " if right else "NOT"} {vmid} {slot}: it begins with "{text}"')
    return all(found)


def main() -> int:
    """The demo. :returns: the exit status."""
    seed = yaml.safe_load((HERE / "seed.yml").read_text())
    with tempfile.TemporaryDirectory(prefix="diskwright-demo-") as state, Lab(Path(state), seed=seed) as lab:
        title("Three guests on a Proxmox VE lookalike with real images. The plan, in check mode:")
        plan = converge(lab, "--check", "--diff")
        if lab.writes():
            raise SystemExit("check mode has written")
        title("The same, carried out")
        if _plan_of(converge(lab, "--diff")) != _plan_of(plan):
            raise SystemExit("the real run was not what check mode had said")
        title("What is in the images now: qemu-img info, held against the configuration")
        right = images_are_right(lab) and contents_are_there(lab)
        title("Again: nothing to do")
        before = len(lab.writes())
        quiet = "changed=1" not in converge(lab, "--diff") and len(lab.writes()) == before
    title("Everything is as declared, and the lab has ended" if right and quiet else "SOMETHING IS NOT AS DECLARED")
    return 0 if right and quiet else 1


def _plan_of(output: str) -> list[str]:
    return [line for line in output.splitlines() if line[:4].strip() in {"~", "+", "-", ">", "!", "?"}]


if __name__ == "__main__":
    sys.exit(main())
