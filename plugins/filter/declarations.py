# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From guests as they are to an inventory that declares them so."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._core.declaration import declare_guests
from ..module_utils._core.errors import ParseError

if t.TYPE_CHECKING:
    from collections.abc import Callable


def guest_declarations(guests: t.Any) -> dict[str, dict[str, t.Any]]:
    """The variables of each guest's host, by host."""
    if not isinstance(guests, (list, tuple)) or not all(isinstance(guest, Mapping) for guest in guests):
        raise AnsibleFilterError(
            "diskwright.proxmox.guest_declarations: this is no list of guests; give what guest_disks_info returns as "
            "'guests'"
        )
    try:
        return declare_guests(guests)
    except (ParseError, KeyError) as error:
        raise AnsibleFilterError(f"diskwright.proxmox.guest_declarations: {error}") from error


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        return {"guest_declarations": guest_declarations}
