# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves a lab: `./dev lab [--state DIR] [--seed FILE.yml]`. Prints how to reach it; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
from pathlib import Path

from lab import Lab, node
from lab.seed import SeedError, load

TOP = Path(__file__).resolve().parents[2]
STATE = TOP / ".cache" / "lab"
SEED = TOP / "tests" / "demo" / "seed.yml"


def near(path: Path) -> str:
    """A path as people in the checkout write it."""
    return str(path.relative_to(TOP))


def environment(lab: Lab) -> dict[str, str]:
    """The variables that the collection's modules read."""
    user, _, token = "root@pam!test".partition("!")
    return {"PROXMOX_HOST": lab.host, "PROXMOX_PORT": str(lab.port), "PROXMOX_USER": user, "PROXMOX_TOKEN_ID": token,
            "PROXMOX_TOKEN_SECRET": lab.token(f"{user}!{token}"), "PROXMOX_VALIDATE_CERTS": "true",
            "PROXMOX_CA_PATH": str(lab.cafile.resolve())}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lab", description="A Proxmox VE lookalike that holds real images.")
    parser.add_argument("--state", type=Path, default=STATE,
                        help=f"folder that keeps everything; made when missing (default: {near(STATE)})")
    parser.add_argument("--seed", type=Path, default=SEED,
                        help=f"YAML file with what a new lab holds (default: the demo's guests, {near(SEED)}); "
                             "tests/lab/seed.py says what it takes")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8006, help="port to listen on; 0 takes a free one")
    parser.add_argument("--time-scale", type=float, default=1.0, help="real seconds for each second that PVE waits")
    options = parser.parse_args()
    try:
        seed = load(options.seed)
    except SeedError as error:
        parser.exit(2, f"lab: {error}\n")
    with Lab(options.state, seed, host=options.host, port=options.port,
             time_scale=options.time_scale) as lab:
        print(f"Serving {', '.join(lab.cluster.nodes)} at {lab.url}, root@pam's password is {lab.password!r}.")
        print(f"API token: root@pam!test={lab.token()}\n")
        for name, value in environment(lab).items():
            print(f"export {name}={shlex.quote(value)}")
        tools = options.state.resolve() / "bin"
        node.environment(options.state, tools)
        print(f'\nThis shell as {lab.cluster.nodes[0]}, for what runs on a node (pvesm works on the lab\'s storages):\n'
              f'export PATH={shlex.quote(str(tools))}:"$PATH"\n', flush=True)
        pid = options.state / "lab.pid"
        pid.write_text(f"{os.getpid()}\n")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    pid.unlink(missing_ok=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
