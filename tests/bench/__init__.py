# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the collection is, beside a loop of community.proxmox and beside a client without Ansible: `./dev bench`."""
