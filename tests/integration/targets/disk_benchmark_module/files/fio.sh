#!/bin/sh
# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# Stands in for fio, which only has to say its version: the stand-in for QEMU answers for it.
echo fio-3.39
