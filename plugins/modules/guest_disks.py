#!/usr/bin/python
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_disks
short_description: Declares the disks of Proxmox VE guests, and converges them
description:
  - x
"""
EXAMPLES = r""""""
RETURN = r""""""

from ..module_utils._ansible.argspec import layout_spec
from ..module_utils._ansible.guest_disks import GuestDisks
from ..module_utils._ansible.runner import Rules, run_api_module

_FOR_ONE = ("vmid", "name", "node", "disks", "scsihw", "boot")


def main() -> None:
    """Run the module."""
    run_api_module(
        layout_spec(),
        GuestDisks,
        Rules(
            mutually_exclusive=tuple(("guests", option) for option in _FOR_ONE),
            required_one_of=(("vmid", "name", "guests"),),
        ),
    )


if __name__ == "__main__":
    main()
