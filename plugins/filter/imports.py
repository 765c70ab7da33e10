# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From images and OVFs to guests: what the role vmdk_import decides, and where it stands."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from ansible.errors import AnsibleFilterError

from ..module_utils._core.errors import DiskwrightError, ParseError
from ..module_utils._core.guest import Guest, read_hardware
from ..module_utils._core.plain import plain
from ..module_utils._core.storage import Storage
from ..module_utils._policy.import_guest import NODE, ROUTES, Around
from ..module_utils._policy.import_plan import make_plans
from ..module_utils._policy.import_sources import Source, read_found, read_sources, settle_api, settle_node
from ..module_utils._policy.import_state import Results, State
from ..module_utils._policy.import_text import plan_data
from ..module_utils._policy.known import read_known
from ..module_utils._policy.load import load_policy

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Data = Mapping[str, t.Any]


def _import_sources(
    sources: Sequence[t.Any],
    hosts: Sequence[str],
    host: str,
    defaults: Data | None = None,
    spread: bool = False,
    folder: str = "/var/tmp/vmdk-import",
    located: Sequence[Data] | None = None,
    keep_mistakes: bool = False,
) -> list[dict[str, t.Any]]:
    """The sources that a host has to do with, each with the ``path`` at which it is looked at."""
    volumes = {str(row["item"]["volume"]): str(row["stdout"]) for row in located or () if row.get("stdout")}
    names = list(map(str, hosts))
    found = read_sources(sources, defaults or {}, host, names, spread=spread, folder=folder, volumes=volumes)
    mistakes = [] if keep_mistakes else [text for one in found for text in one.mistakes]
    if mistakes:
        raise ParseError("\n".join(mistakes))
    return [
        {
            "path": one.path,
            "upload_from": one.given.get("upload_from"),
            "volume": one.given.get("volume"),
            "given": dict(one.given),
            "fallback": dict(one.fallback),
            "mistakes": list(one.mistakes),
        }
        for one in found
    ]


def _import_plan(  # noqa: PLR0913 - a filter's arguments
    sources: Sequence[Data],
    cluster: Data,
    node: str,
    inspected: Sequence[Data],
    offered: Sequence[Data] | None = None,
    policy: str = "current",
    rules: Sequence[t.Any] | None = None,
    facts: Data | None = None,
    route: str = NODE,
    check: bool = False,
) -> dict[str, t.Any]:
    """What to do about sources, and what is against it."""
    if route not in ROUTES:
        raise ParseError(f"route={route} is not known; write one of {', '.join(ROUTES)}")
    around = Around(
        node=node,
        storages={str(row["storage"]): _storage(row) for row in cluster.get("storages", {}).get(node, ())},
        guests=tuple(_guest(row) for row in cluster.get("guests", ()) if "error" not in row),
        policy=load_policy(policy, rules or ()),
        known=read_known(facts),
        route=route,
        bridges=_names(cluster.get("bridges", {}).get(node)),
        pools=_names(cluster.get("pools")),
    )
    offers = {str(row["item"]["upload_from"]): row for row in offered or ()}
    pairs = []
    for one, there in zip_longest(sources, inspected):
        source = Source(str(one["path"]), one["given"], one["fallback"], tuple(one.get("mistakes") or ()))
        here = read_found(offers.get(str(one["upload_from"])))
        by_node = route == NODE
        found = settle_node(source, read_found(there), here, check=check) if by_node else settle_api(source, here)
        pairs.append((source, found))
    return plan_data(make_plans(pairs, around), policy)


def _names(found: Sequence[t.Any] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(map(str, found))


def _storage(row: Data) -> Storage:
    return Storage(
        name=str(row["storage"]),
        type=str(row["type"]),
        content=frozenset(row["content"]),
        formats=tuple(row["formats"]),
        enabled=bool(row["enabled"]),
        active=bool(row["active"]),
        shared=bool(row["shared"]),
        available=row.get("available"),
        total=row.get("total"),
    )


def _guest(row: Data) -> Guest:
    hardware = read_hardware({str(key): str(text) for key, text in row.get("config", {}).items()})
    return Guest(
        vmid=int(row["vmid"]),
        name=str(row["name"]),
        node=str(row["node"]),
        running=row.get("status") == "running",
        template=row.get("status") == "template",
        lock=row.get("lock"),
        configured=hardware,
        live=hardware,
    )


def _import_state(
    plan: Data,
    created: Data | None = None,
    converted: Data | None = None,
    attached: Data | None = None,
    route: str = NODE,
    check: bool = False,
) -> dict[str, t.Any]:
    """Where an import stands: what is to be converted and attached now, and what to report."""
    return State(plan, Results(created or {}, converted or {}, attached or {}), route, check=check).data()


def _failing_well(name: str, function: Callable[..., t.Any]) -> Callable[..., t.Any]:
    """The function as a filter, with errors that name it."""

    def filter_(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*map(plain, args), **{key: plain(value) for key, value in kwargs.items()})
        except DiskwrightError as error:
            raise AnsibleFilterError(f"diskwright.proxmox.{name}: {error}") from error

    return filter_


class FilterModule:
    """The filters of this file, by their names."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        """What Ansible asks for."""
        functions: Iterable[tuple[str, Callable[..., t.Any]]] = (
            ("import_sources", _import_sources),
            ("import_plan", _import_plan),
            ("import_state", _import_state),
        )
        return {name: _failing_well(name, function) for name, function in functions}
