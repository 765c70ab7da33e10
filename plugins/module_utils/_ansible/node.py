# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Runs the modules of the node plane, which work on the machine that they run on and need no API."""

from __future__ import annotations

import typing as t

from .._core.errors import DiskwrightError
from .runner import finish, make_module

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .runner import Rules, Work


def run_node_module(
    spec: Mapping[str, Mapping[str, t.Any]],
    make: Callable[[dict[str, t.Any]], Work],
    rules: Rules | None = None,
) -> None:
    """Run a module that needs no API, to its end.

    :param spec: the module's arguments.
    :param make: makes the module's work from the parameters.
    """
    module = make_module(spec, rules)
    try:
        finish(module, make(module.params))
    except DiskwrightError as error:
        module.fail_json(msg=str(error))
