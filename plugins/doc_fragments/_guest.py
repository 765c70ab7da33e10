# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: this doc fragment is not part of its public API and may change in any release.
# Note that this is a doc fragment: GNU General Public License v3.0+
# (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that name one guest; the spec is in ``_ansible/one_guest.py``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  vmid:
    description: Number of the guest. Either this or O(name) is needed.
    type: int
  name:
    description: Name of the guest. If O(vmid) is given as well, the guest with that number must be called so.
    type: str
  node:
    description: Node that the guest must be on.
    type: str
"""
