# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The one place that makes an AnsibleModule, looks at check mode, and ends a run."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule

from .._core.errors import DiskwrightError
from .._pve.client import Client
from .connection import connection_argument_spec, endpoint
from .spared import SparingModule

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# How many v make Ansible show arguments.
_SHOWS_ARGUMENTS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What a module returns.

    :param failure: why the run failed, or ``None``.
    :param diff: for ``--diff``; an empty text prints nothing.
    """

    data: dict[str, t.Any]
    changed: bool = False
    failure: str | None = None
    diff: str = ""
    warnings: list[str] = field(default_factory=list)


class Work(t.Protocol):
    """What a module does, in three steps; only the second may write."""

    def prepare(self) -> None:
        """Read and plan."""

    def execute(self) -> None:
        """Carry the plan out. Not called in check mode."""

    def result(self, *, executed: bool) -> Result:
        """Say what was found, planned and done."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How arguments go together, as AnsibleModule takes it.

    :param spares_guests: whether a mistake in one guest's declaration is left to the work, as that guest's refusal.
    """

    mutually_exclusive: tuple[tuple[str, ...], ...] = ()
    required_one_of: tuple[tuple[str, ...], ...] = ()
    spares_guests: bool = False


def run_api_module(
    spec: Mapping[str, Mapping[str, t.Any]],
    make: Callable[[Client, dict[str, t.Any]], Work],
    rules: Rules | None = None,
) -> None:
    """Run a module that talks to the PVE API, to its end.

    :param spec: the module's own arguments; those of the connection are added.
    :param make: makes the module's work from a client and the parameters.
    """
    module = make_module({**connection_argument_spec(), **spec}, rules)
    try:
        with Client(endpoint(module.params)) as client:
            finish(module, make(client, module.params))
    except DiskwrightError as error:
        module.fail_json(msg=str(error))


def make_module(spec: Mapping[str, Mapping[str, t.Any]], rules: Rules | None) -> AnsibleModule:
    """The AnsibleModule with these arguments."""
    together = rules or Rules()
    kind = SparingModule if together.spares_guests else AnsibleModule
    return kind(
        argument_spec=dict(spec),
        supports_check_mode=True,
        mutually_exclusive=list(together.mutually_exclusive),
        required_one_of=list(together.required_one_of),
    )


def finish(module: AnsibleModule, work: Work) -> None:
    """Do the work and end the run.

    :raises DiskwrightError: if the work does.
    """
    executed = not module.check_mode
    work.prepare()
    if executed:
        work.execute()
    _exit(module, work.result(executed=executed))


def _exit(module: AnsibleModule, result: Result) -> None:
    for text in result.warnings:
        module.warn(text)
    data = dict(result.data, changed=result.changed, invocation={"module_args": _arguments(module)})
    if result.diff and module._diff:
        data["diff"] = [{"prepared": result.diff}]
    if result.failure is not None:
        # Ansible shows no diff of a task that failed; what happens to the other guests is worth knowing all the same.
        others = f"\n\n{result.diff}" if result.diff and module._diff else ""
        module.fail_json(msg=f"{result.failure}{others}", **data)
    module.exit_json(**data)


def _arguments(module: AnsibleModule) -> dict[str, t.Any]:
    """The arguments for the result: those that were given, and what is declared only for ``-vvv``, which shows it.

    AnsibleModule returns every one that there is. For a thousand guests four fifths of the result would be nulls and
    most of the rest what the playbook says anyway, and the controller would take seconds to read it.
    """
    given = t.cast("dict[str, t.Any]", _given(module.params))
    if module._verbosity >= _SHOWS_ARGUMENTS:
        return given
    return {name: value for name, value in given.items() if not isinstance(value, list)}


def _given(value: object) -> object:
    if isinstance(value, dict):
        return {name: _given(one) for name, one in value.items() if one is not None}
    return [_given(one) for one in value] if isinstance(value, list) else value
