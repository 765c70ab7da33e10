# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows guests made from nothing: registry hives, signed drivers, driver ISOs and NTFS volumes.

No file of them comes from Microsoft or Red Hat.
"""
