# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A cluster's findings, counted and put in order: what is wrong, where, and what to do first.

Takes what the module ``guest_disks_info`` returns with a policy, and returns plain data that templates print.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from .._core.errors import ParseError
from .._core.options import TABLE
from .._core.size import human_size
from .._core.slot import DISK_BUSES, find_slot
from .report_text import counted, flow_text, listed, one_line, option_text, value_text

Row = dict[str, t.Any]

#: The worst first.
SEVERITIES = ("danger", "warning", "info")
_NAMED = 6  # guests named in a line about many
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_DECLARATION, _BOOT = "proxmox_disks", "proxmox_disks_boot"
_DESTROYS = "destroys its data; needs -e guest_disks_allow_destroy=true"
_DECIDES = "says what nobody knows yet, if it is so; the next audit then says what mends it"
_TEMPLATE = re.compile(r"\{[{%#]")


def report_data(cluster: Mapping[str, t.Any], to_yaml: Callable[[t.Any], str]) -> Row:
    """Everything that a report on a cluster says.

    :param cluster: the result of ``guest_disks_info`` with ``findings``.
    :param to_yaml: writes data as YAML; this room has no library for it.
    :raises ParseError: the result has no findings, because no policy was given.
    """
    if not isinstance(cluster, Mapping) or not isinstance(cluster.get("findings"), (list, tuple)):
        raise ParseError("there are no 'findings' in it; give the result of guest_disks_info with a policy")
    findings = sorted((_finding(row) for row in cluster["findings"]), key=_order)
    guests = _guests(cluster.get("guests") or (), findings, to_yaml)
    storages = _storages(guests, cluster.get("storages") or {}, findings)
    summary = _summary(guests, findings)
    return {
        "summary": summary,
        "failing": _failing(summary),
        "rules": _rules(guests, findings, to_yaml),
        "nodes": _nodes(guests, findings),
        "storages": storages,
        "formats": _formats(storages),
        "guests": guests,
        "findings": findings,
    }


# ---- findings and guests


def _finding(row: Mapping[str, t.Any]) -> Row:
    """A finding with texts that fit on one line, and its declaration as a dictionary of variables."""
    severity = row.get("severity")
    mend = _mend(row.get("mend"))
    decision, note = ("", "")
    if mend is not None and _destroys(mend):  # that is for a person, who writes it on purpose
        decision, note, mend = flow_text(mend), _DESTROYS, None
    elif row.get("decides"):
        decision, note = flow_text({"disk_audit_facts": {"guests": {_called(row): row["decides"]}}}), _DECIDES
    return {
        "vmid": row["vmid"],
        "name": one_line(row.get("name")),
        "node": one_line(row.get("node")),
        "slot": one_line(row.get("slot")),
        "option": one_line(row.get("option")),
        "actual": value_text(row.get("actual")),
        "recommended": value_text(row.get("recommended")),
        "rule": one_line(row.get("rule")),
        "severity": severity if severity in SEVERITIES else "info",
        "reason": one_line(row.get("reason")),
        "source": one_line(row.get("source")),
        "since": one_line(row.get("since")),
        "mend": mend,
        "decision": decision,
        "note": note,
    }


def _mend(mend: Mapping[str, t.Any] | None) -> Row | None:
    """A finding's declaration as variables of a host; ``None`` for one that nobody should paste.

    In an inventory a text with braces is a template, and what a guest is called must not become one, nor hide.
    """
    text = json.dumps(mend, ensure_ascii=False)
    if not mend or _TEMPLATE.search(text) or one_line(text) != text or "\\" in text:
        return None
    if any(str(name).startswith(_DECLARATION) for name in mend):
        return dict(mend)
    return {_DECLARATION: dict(mend)}


def _called(row: Mapping[str, t.Any]) -> str:
    """What facts about a guest go by: its name, or its number where the name is none that Proxmox VE gives."""
    name = str(row.get("name"))
    return name if _NAME.fullmatch(name) else str(row["vmid"])


def _destroys(mend: Mapping[str, t.Any]) -> bool:
    disks = mend.get(_DECLARATION) or {}
    return any(disk.get("state") == "absent" or disk.get("delete_source") for disk in disks.values())


def _order(finding: Row) -> tuple[t.Any, ...]:
    slot = find_slot(finding["slot"])
    place = (1, slot.bus, slot.index) if slot else (0, finding["slot"], 0)
    return (SEVERITIES.index(finding["severity"]), finding["vmid"], *place, finding["option"], finding["rule"])


def _guests(rows: Iterable[Mapping[str, t.Any]], findings: list[Row], to_yaml: Callable[[t.Any], str]) -> list[Row]:
    mine: dict[int, list[Row]] = {}
    for finding in findings:
        mine.setdefault(finding["vmid"], []).append(finding)
    known = {row["vmid"]: row for row in rows}
    for vmid, found in mine.items():  # a result that was cut down to its findings
        known.setdefault(vmid, {"vmid": vmid, "name": found[0]["name"], "node": found[0]["node"]})
    return [_guest(row, mine.get(vmid, []), to_yaml) for vmid, row in sorted(known.items())]


def _guest(row: Mapping[str, t.Any], findings: list[Row], to_yaml: Callable[[t.Any], str]) -> Row:
    drives = [_drive(str(slot), drive) for slot, drive in (row.get("drives") or {}).items()]
    volumes = {drive["volume"]: drive["bytes"] for drive in drives}  # a volume in two slots takes its space once
    guest = {
        "vmid": row["vmid"],
        "name": one_line(row.get("name")),
        "node": one_line(row.get("node")),
        "status": one_line(row.get("status")),
        "tags": [one_line(tag) for tag in row.get("tags") or ()],
        "pool": one_line(row.get("pool")),
        "controller": one_line(row.get("scsihw")),
        "boot": [one_line(device) for device in row.get("boot") or ()],
        "restart_required": [one_line(key) for key in row.get("restart_required") or ()],
        "unused": {str(slot): one_line(volume) for slot, volume in (row.get("unused") or {}).items()},
        "error": one_line(row.get("error")),
        "drives": drives,
        "disks": sum(drive["is_disk"] for drive in drives),
        "bytes": sum(volumes.values()),
        "size": human_size(sum(volumes.values())),
        "findings": findings,
        "worst": findings[0]["severity"] if findings else "",
        **_counts(findings),
    }
    guest["declaration"] = _declaration(findings, to_yaml)
    return guest


def _drive(slot: str, drive: Mapping[str, t.Any]) -> Row:
    found = find_slot(slot)
    size = drive.get("size") if drive.get("media") == "disk" else None
    return {
        "slot": slot,
        "storage": one_line(drive.get("storage")),
        "format": one_line(drive.get("format")),
        "bytes": size or 0,
        "size": human_size(size) if size else "",
        "volume": one_line(drive.get("volume")),
        "media": one_line(drive.get("media")),
        "what": _what(drive, size),
        "is_disk": drive.get("media") == "disk" and found is not None and found.bus in DISK_BUSES,
        "options": option_text(drive.get("options") or {}),
    }


def _what(drive: Mapping[str, t.Any], size: int | None) -> str:
    """What a drive is, in a few words."""
    if drive.get("media") == "cdrom":
        return "CD-ROM drive"
    if drive.get("media") == "cloudinit":
        return "cloud-init"
    words = [human_size(size) if size else "", one_line(drive.get("format"))]
    words += [f"on {one_line(drive['storage'])}" if drive.get("storage") else ""]
    return " ".join(word for word in words if word) or "disk"


def _counts(findings: Iterable[Row]) -> dict[str, int]:
    found = Counter(finding["severity"] for finding in findings)
    return {severity: found[severity] for severity in SEVERITIES}


# ---- what mends them


def _declaration(findings: Iterable[Row], to_yaml: Callable[[t.Any], str]) -> str:
    """The YAML that mends all of one guest's findings which a declaration can mend; empty if there are none.

    Nothing in it destroys data.
    """
    merged: Row = {}
    for finding in findings:
        _merge(merged, finding["mend"] or {})
    moves = _follow_moves(merged.get(_DECLARATION) or {})
    if _BOOT in merged:
        merged[_BOOT] = [moves.get(device, device) for device in merged[_BOOT]]
    return to_yaml(merged) if merged else ""


def _merge(into: Row, more: Mapping[str, t.Any]) -> None:
    """Adds declarations to one another. Where two contradict, the first stays: it mends what is worse."""
    for name, value in more.items():
        present = into.get(name)
        if isinstance(value, Mapping) and isinstance(present, dict):
            _merge(present, value)
        elif name == "unset":
            keys = [*(present or ()), *(key for key in value if key not in (present or ()) and key not in into)]
            into.update({name: keys} if keys else {})
        elif name not in into and name not in into.get("unset", ()):
            into[name] = _copy(value)


def _copy(value: t.Any) -> t.Any:
    if isinstance(value, Mapping):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _follow_moves(disks: Row) -> dict[str, str]:
    """A disk that moves to another slot is declared there alone, without options that the bus there does not have.

    :returns: where each disk that moves goes to.
    """
    moves: dict[str, str] = {}
    for target, options in list(disks.items()):
        source = options.get("moved_from")
        if source is None:
            continue
        moves[source] = target
        if source in disks and source != target:
            _merge(options, disks.pop(source))
        if (slot := find_slot(target)) is not None:
            _keep_what_the_bus_has(slot.bus, options)
    return moves


def _keep_what_the_bus_has(bus: str, options: Row) -> None:
    """What the bus lacks is dropped by the move itself, and may not be named."""
    lacking = {name for name, row in TABLE.items() if bus not in row.buses}
    for name in lacking & options.keys():
        del options[name]
    unset = [name for name in options.pop("unset", ()) if name not in lacking]
    if unset:
        options["unset"] = unset


# ---- groups


def _summary(guests: list[Row], findings: list[Row]) -> Row:
    status = Counter(guest["status"] for guest in guests)
    worst = Counter(guest["worst"] for guest in guests if not guest["error"])
    unread = sum(bool(guest["error"]) for guest in guests)
    space = sum(guest["bytes"] for guest in guests)
    summary: Row = {
        "guests": len(guests),
        "running": status["running"],
        "stopped": status["stopped"],
        "templates": status["template"],
        "unread": unread,
        "nodes": len({guest["node"] for guest in guests}),
        "disks": sum(guest["disks"] for guest in guests),
        "bytes": space,
        "size": human_size(space),
        "unused": sum(len(guest["unused"]) for guest in guests),
        "findings": len(findings),
        **_counts(findings),
        "guests_by_worst": {**{severity: worst[severity] for severity in SEVERITIES}, "none": worst[""]},
        "affected": sum(bool(guest["findings"]) for guest in guests),
    }
    return {**summary, "counts": count_text(summary), "verdict": _verdict(guests, summary)}


def _failing(summary: Row) -> dict[str, int]:
    """How many reasons there are to fail from each severity upwards. What could not be read may be anything."""
    numbers = [summary[severity] for severity in SEVERITIES]
    return {severity: sum(numbers[: place + 1]) + summary["unread"] for place, severity in enumerate(SEVERITIES)}


def count_text(counts: Mapping[str, int]) -> str:
    """``2 dangers, 1 warning and 3 hints``, without what there is none of."""
    words = {"danger": "danger", "warning": "warning", "info": "hint"}
    parts = [counted(counts[severity], word) for severity, word in words.items() if counts[severity]]
    return listed(parts) or "no findings"


def _verdict(guests: list[Row], summary: Row) -> str:
    total = counted(summary["guests"], "guest")
    dangerous = sum(bool(guest["danger"]) for guest in guests)
    if dangerous:
        text = f"{counted(summary['danger'], 'danger')} on {dangerous} of {total}: mend these first."
    elif summary["warning"]:
        warned = sum(bool(guest["warning"]) for guest in guests)
        text = f"Nothing is dangerous. {counted(summary['warning'], 'warning')} on {warned} of {total}."
    elif summary["info"]:
        text = f"Nothing to worry about. {counted(summary['info'], 'hint')} on {summary['affected']} of {total}."
    else:
        text = f"Nothing found: {counted(summary['guests'] - summary['unread'], 'guest')} as the policy wants."
    return text


def _rules(guests: list[Row], findings: list[Row], to_yaml: Callable[[t.Any], str]) -> list[Row]:
    """What each rule found: first what is worst, then what mends most."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for finding in findings:
        groups.setdefault((finding["severity"], finding["rule"]), []).append(finding)
    names = {guest["vmid"]: guest for guest in guests}
    rows = [_rule(found, names, to_yaml) for found in groups.values()]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row["severity"]), -row["findings"], row["rule"]))


def _rule(found: list[Row], guests: Mapping[int, Row], to_yaml: Callable[[t.Any], str]) -> Row:
    first = found[0]
    by_guest: dict[int, list[Row]] = {}
    for finding in found:
        by_guest.setdefault(finding["vmid"], []).append(finding)
    labels = [guests[vmid]["name"] or str(vmid) for vmid in by_guest]
    parts = []
    for vmid, mine in by_guest.items():
        if text := _declaration(mine, to_yaml):
            guest = guests[vmid]
            parts.append(f"# host_vars of {guest['name']} ({vmid} on {guest['node']})\n{text}")
    return {
        "rule": first["rule"],
        "severity": first["severity"],
        "option": first["option"],
        "actual": _common(found, "actual"),
        "recommended": _common(found, "recommended"),
        "reason": first["reason"],
        "reasons": len({finding["reason"] for finding in found}),
        "source": first["source"],
        "since": first["since"],
        "findings": len(found),
        "guests": len(by_guest),
        "names": labels[:_NAMED],
        "more": max(0, len(labels) - _NAMED),
        "mendable": sum(bool(finding["mend"]) for finding in found),
        "declaration": "\n".join(parts),
    }


def _common(found: list[Row], key: str) -> str:
    """What all of them share, or an empty text."""
    values = {finding[key] for finding in found}
    return values.pop() if len(values) == 1 else ""


def _nodes(guests: list[Row], findings: list[Row]) -> list[Row]:
    rows = []
    for node in sorted({guest["node"] for guest in guests}):
        here = [guest for guest in guests if guest["node"] == node]
        space = sum(guest["bytes"] for guest in here)
        rows.append(
            {
                "name": node,
                "guests": len(here),
                "disks": sum(guest["disks"] for guest in here),
                "bytes": space,
                "size": human_size(space),
                **_counts(finding for finding in findings if finding["node"] == node),
            }
        )
    return rows


# ---- space


def _storages(guests: list[Row], storages: Mapping[str, t.Any], findings: list[Row]) -> list[Row]:
    """The storages that hold disks of the guests: the fullest first, each with its formats."""
    space: dict[str, Counter[str]] = {}
    disks: Counter[str] = Counter()
    place: dict[tuple[int, str], str] = {}
    for guest in guests:
        seen = set()
        for drive in guest["drives"]:
            place[guest["vmid"], drive["slot"]] = drive["storage"]
            if drive["media"] != "disk" or not drive["storage"] or drive["volume"] in seen:
                continue
            seen.add(drive["volume"])
            space.setdefault(drive["storage"], Counter())[drive["format"] or "unknown"] += drive["bytes"]
            disks[drive["storage"]] += 1
    found: dict[str, list[Row]] = {}
    for finding in findings:
        found.setdefault(place.get((finding["vmid"], finding["slot"]), ""), []).append(finding)
    facts = _storage_facts(storages)
    largest = max((formats.total() for formats in space.values()), default=0) or 1
    rows = [
        {
            "name": name,
            **facts.get(name, {"type": "", "total": None, "available": None, "capacity": ""}),
            **_space(formats, largest),
            "disks": disks[name],
            **_counts(found.get(name, ())),
        }
        for name, formats in space.items()
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["name"]))


def _space(formats: Counter[str], largest: int) -> Row:
    return {
        "bytes": formats.total(),
        "size": human_size(formats.total()),
        "formats": [
            {"format": name, "bytes": size, "size": human_size(size), "percent": round(100 * size / largest, 2)}
            for name, size in formats.most_common()
        ],
    }


def _formats(storages: list[Row]) -> list[str]:
    """The formats of a cluster: what takes most space first."""
    space: Counter[str] = Counter()
    for storage in storages:
        for row in storage["formats"]:
            space[row["format"]] += row["bytes"]
    return [name for name, _bytes in space.most_common()]


def _storage_facts(storages: Mapping[str, t.Any]) -> dict[str, Row]:
    """Type and capacity by name. A storage that is not shared has its capacity on each node."""
    facts: dict[str, Row] = {}
    for rows in storages.values():
        for row in rows:
            name = one_line(row.get("storage"))
            if name in facts and row.get("shared"):
                continue
            fact = facts.setdefault(name, {"type": one_line(row.get("type")), "total": 0, "available": 0})
            for key in ("total", "available"):
                fact[key] += row.get(key) or 0
    for fact in facts.values():
        free, total = human_size(fact["available"]), human_size(fact["total"])
        fact["capacity"] = f"{free} of {total} free" if fact["total"] else ""
    return facts
