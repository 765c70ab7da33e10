# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Errors of files that are open already say which file they are about."""

from __future__ import annotations

import contextlib
import os
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterator


def path_of(fd: int) -> str:
    """Where an open file is; for one without a name, the folder that it takes its room in."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    return os.path.dirname(path) if path.endswith(" (deleted)") else path


@contextlib.contextmanager
def named(fd: int) -> Iterator[None]:
    """Let an error of the block say which file it is about; the kernel does not, for a file that is open already."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path_of(fd)
        raise
