# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: this doc fragment is not part of its public API and may change in any release.
# Note that this is a doc fragment: GNU General Public License v3.0+
# (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module promises about check mode, diff mode and second runs; one block for each promise."""

from __future__ import annotations


class ModuleDocFragment:
    # What each attribute means. A module adds the support, by itself or with one of the blocks below.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled/queried by the module has not changed in a relevant way.
"""

    # Together with the standard fragment: a module that declares a state
    DECLARES_STATE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The plan is the one that a real run carries out.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # Together with the standard fragment: a module that only reads
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
  idempotent:
    support: full
    details:
      - This action does not modify state.
"""

    # A module that talks to the PVE API
    ACTIONGROUP_API = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/diskwright.proxmox.api) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - diskwright.proxmox.api
"""

    # A module that needs no PVE API
    NODE_PLANE = r"""
options: {}
attributes:
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
    details:
      - Made for Proxmox VE nodes, whose own C(qemu-img), C(qemu-storage-daemon) and C(pvesm) it uses.
        It never installs a package.
"""
