# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Policies in modules: their arguments, documented in the fragment ``_policy``, and what is made of them."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import asdict, dataclass

from .._core.errors import DiskwrightError, ParseError
from .._policy.audit import Auditor
from .._policy.fill import NEVER, ON_CREATE, WHEN, Adviser
from .._policy.findings import Surroundings as Around
from .._policy.known import Known, read_known
from .._policy.load import load_policy
from .._policy.rules import POLICIES
from .._pve.client import ApiError, path

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._core.guest import Guest
    from .._core.storage import Storage
    from .._pve.client import Client
    from .._pve.reads import Surroundings

NONE = "none"


def policy_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments that choose a policy."""
    return {
        "policy": {"type": "str", "default": NONE, "choices": [NONE, *POLICIES]},
        "policy_rules": {"type": "list", "elements": "dict", "default": []},
        "facts": {"type": "dict", "default": {}},
    }


def recommend_spec() -> dict[str, dict[str, t.Any]]:
    """The arguments of a module that follows a policy."""
    return {**policy_spec(), "recommend": {"type": "str", "default": ON_CREATE, "choices": list(WHEN)}}


def make_adviser(params: Mapping[str, t.Any], client: Client) -> Adviser | None:
    """The policy that a module's parameters ask for; its rules are checked before anything is read."""
    audit = make_audit(params)
    if audit is None or params["recommend"] == NEVER:
        return None
    version = pve_version(client)
    return Adviser(load_policy(audit.name, audit.rules, version), audit.known, params["recommend"], version)


def known_facts(params: Mapping[str, t.Any]) -> Known:
    """What the user says of guests, storages and needs.

    :raises DiskwrightError: for a fact that there is not, with what there is.
    """
    try:
        return read_known(params["facts"])
    except ParseError as error:
        raise DiskwrightError(f"facts: {error}") from error


def pve_version(client: Client) -> str:
    """The version of the node that answers."""
    return str(client.get(path("version")).get("version", ""))


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit to be made once guests are read."""

    name: str
    rules: list[dict[str, t.Any]]
    known: Known

    def findings(self, client: Client, surroundings: Surroundings, guests: Sequence[Guest]) -> list[dict[str, t.Any]]:
        """The findings about guests, as data, the worst first."""
        version = pve_version(client)
        nodes = sorted({guest.node for guest in guests})
        storages = {node: _storages(surroundings, node) for node in nodes}
        auditor = Auditor(
            load_policy(self.name, self.rules, version),
            self.known,
            storages,
            Around(_unused_sizes(surroundings, guests), _major_minor(version)),
            version,
        )
        return [_finding_data(asdict(one)) for one in auditor.audit(guests)]


def make_audit(params: Mapping[str, t.Any]) -> Audit | None:
    """The audit that a module's parameters ask for. What is wrong with them is told before anything is read."""
    if params["policy"] == NONE:
        if params["policy_rules"]:
            raise DiskwrightError("policy_rules is given and policy is not: write policy: current, or another one")
        return None
    load_policy(params["policy"], params["policy_rules"])
    return Audit(params["policy"], params["policy_rules"], known_facts(params))


def _storages(surroundings: Surroundings, node: str) -> Mapping[str, Storage]:
    """A node's storages; none when it does not answer, and what rules would look at is unknown then."""
    try:
        return surroundings.storages(node)
    except ApiError:
        return {}


def _unused_sizes(surroundings: Surroundings, guests: Sequence[Guest]) -> dict[str, int]:
    """The sizes of unused volumes: each storage that holds some is listed once."""
    places = {
        (guest.node, volume.partition(":")[0])
        for guest in guests
        for volume in guest.configured.unused.values()
        if ":" in volume
    }
    sizes: dict[str, int] = {}
    for node, storage in sorted(places):
        known = _storages(surroundings, node).get(storage)
        if known is not None and known.enabled and known.active:
            with contextlib.suppress(ApiError):  # how large an unused volume is may stay unknown
                sizes.update(surroundings.sizes(node, storage))
    return sizes


def _major_minor(version: str) -> float | None:
    try:
        return float(".".join(version.split(".")[:2]))
    except ValueError:
        return None


def _finding_data(finding: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"name" if key == "guest" else key: value for key, value in finding.items() if key != "bytes" or value}
