# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Where an import stands: from its plan and what modules have returned so far, what comes next and what to report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .import_guest import API
from .import_sources import as_mapping

_Data = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Results:
    """What modules have returned, as a playbook registers it; empty for what was not done yet.

    :param created: of ``guest_create`` in a loop over guests of the plan.
    :param converted: of ``image_convert`` with ``images``.
    :param attached: of ``guest_disks`` with ``guests``.
    """

    created: _Data = field(default_factory=dict)
    converted: _Data = field(default_factory=dict)
    attached: _Data = field(default_factory=dict)


def as_lines(value: object) -> list[str]:
    """A list of texts, or an empty one in place of anything else."""
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else []


def _rows(value: object) -> Iterator[_Data]:
    if isinstance(value, (list, tuple)):
        yield from (as_mapping(row) for row in value)


class State:
    """An import under way.

    :param plan: the data that ``plan_data`` makes.
    :param route: ``node`` or ``api``.
    :param check: whether nothing is really done.
    """

    def __init__(self, plan: _Data, results: Results, route: str, *, check: bool) -> None:
        self._guests = list(_rows(plan.get("guests")))
        self._route = route
        self._check = check
        created = _rows(results.created.get("results"))
        self._created = {str(as_mapping(row.get("item")).get("key")): row for row in created}
        self._results = {_place(row, row.get("vmid")): row for row in _rows(results.converted.get("images"))}
        self._conversion = results.converted
        self._attached = {str(row.get("vmid")): row for row in _rows(results.attached.get("guests"))}
        self._attachment = results.attached

    def data(self) -> dict[str, object]:
        """``images`` for ``image_convert``, ``layouts`` for ``guest_disks``, ``report``, ``summary`` and ``failed``."""
        report = [self._report(guest) for guest in self._guests]
        return {
            "images": list(self._to_convert()),
            "layouts": [layout for guest in self._guests for layout in self._layouts(guest)],
            "report": report,
            "summary": _summary(report),
            "failed": [f"{row['name']}: {text}" for row in report for text in as_lines(row["errors"])],
        }

    # ---- what comes next

    def _vmid(self, guest: _Data) -> object:
        made = self._created.get(str(guest.get("key")), {})
        return made.get("vmid") if guest.get("vmid") is None else guest["vmid"]

    def _open(self, guest: _Data) -> list[_Data]:
        """A guest's disks that it has not yet."""
        return [disk for disk in _rows(guest.get("disks")) if not disk.get("attached")]

    def _can_go_on(self, guest: _Data) -> bool:
        return bool(guest.get("todo")) and self._vmid(guest) is not None

    def _converted(self, guest: _Data, disk: _Data) -> _Data:
        """What became of a guest's image. One image may be the source of several guests."""
        return self._results.get(_place(disk, self._vmid(guest)), {})

    def _to_convert(self) -> Iterator[dict[str, object]]:
        """What is to be converted, each once: in check mode all new guests would get the same free number."""
        seen = set()
        for image in (image for guest in self._guests for image in self._images(guest)):
            place = (*_place(image, image["vmid"]), image["storage"])
            if place not in seen:
                yield image
            seen.add(place)

    def _images(self, guest: _Data) -> Iterator[dict[str, object]]:
        """What is to be converted for a guest whose number is known."""
        if self._route == API or guest.get("elsewhere") or not self._can_go_on(guest):
            return
        for disk in self._open(guest):
            wanted = {key: disk[key] for key in ("path", "member", "storage", "format") if disk.get(key)}
            yield {**wanted, **_larger(disk), "vmid": self._vmid(guest)}

    def _layouts(self, guest: _Data) -> Iterator[dict[str, object]]:
        """What is to be attached to a guest all of whose images are converted."""
        if not self._can_go_on(guest) or (self._check and not self._stands(guest)):
            return
        disks = [self._drive(guest, disk) for disk in self._open(guest)]
        if not all(disks):
            return
        layout: dict[str, object] = {"vmid": self._vmid(guest), "disks": [*disks, *_rows(guest.get("firmware"))]}
        layout.update({key: guest[key] for key in ("boot", "scsihw") if guest.get(key) is not None})
        yield layout

    def _stands(self, guest: _Data) -> bool:
        """Whether, in check mode, the guest and the volumes are there that would be attached."""
        if self._route == API:
            return not guest.get("new") and not guest.get("uploaded")
        results = [self._converted(guest, disk) for disk in self._open(guest)]
        return not guest.get("new") and all(result and not result.get("changed") for result in results)

    def _drive(self, guest: _Data, disk: _Data) -> dict[str, object]:
        """A disk as ``guest_disks`` takes it; empty while its image is not converted."""
        options = as_mapping(disk.get("options"))
        if self._route == API:
            volume = f"{disk['path']}/{disk['member']}" if disk.get("member") else disk["path"]
            origin = {"storage": disk["storage"], "format": disk["format"], "import_from": volume}
            return {"slot": disk["slot"], **origin, **_larger(disk), **options}
        result = self._converted(guest, disk)
        if not result.get("volume") or result.get("error"):
            return {}
        return {"slot": disk["slot"], "volume": result["volume"], **options}

    # ---- the report

    def _report(self, guest: _Data) -> dict[str, object]:
        errors = list(dict.fromkeys(self._errors(guest)))
        refused = [f"{row.get('reason')} ({row.get('code')})" for row in _rows(guest.get("refused"))]
        return {
            "source": guest.get("source"),
            "name": guest.get("name") or guest.get("key"),
            "vmid": self._vmid(guest),
            "node": guest.get("node"),
            "status": self._status(guest, errors),
            "disks": [self._disk(guest, disk) for disk in _rows(guest.get("disks"))],
            "refused": refused,
            "errors": errors,
            "warnings": guest.get("warnings") or [],
        }

    def _status(self, guest: _Data, errors: list[str]) -> str:
        if guest.get("refused"):
            return "refused"
        if errors:
            return "failed"
        if not guest.get("todo"):
            return "unchanged"
        return "planned" if self._check or str(self._vmid(guest)) not in self._attached else "imported"

    def _errors(self, guest: _Data) -> Iterator[str]:
        """What went wrong with a guest: at its own steps, or at a step of all that says no more about each."""
        if not guest.get("todo"):
            return
        made = self._created.get(str(guest.get("key")), {})
        if made and made.get("vmid") is None:
            yield str(made.get("msg"))
        for disk in self._open(guest):
            result = self._converted(guest, disk)
            if result.get("error"):
                yield f"{disk.get('file')}: {result['error']}"
        if self._conversion.get("failed") and not self._results:
            yield str(self._conversion.get("msg"))
        attached = self._attached.get(str(self._vmid(guest)), {})
        if attached.get("failed"):
            yield from as_lines(attached.get("errors"))
        if self._attachment.get("failed") and not self._attached:
            yield str(self._attachment.get("msg"))

    def _disk(self, guest: _Data, disk: _Data) -> dict[str, object]:
        result = self._converted(guest, disk)
        kept = {key: disk.get(key) for key in ("file", "slot", "storage", "format", "virtual_size")}
        told = {key: result.get(key) for key in ("volume", "content_id", "checksum", "verified", "resumed", "seconds")}
        return {**kept, **told}


def _summary(report: list[dict[str, object]]) -> str:
    """How many guests there are of each status, with the names of those that are not imported; '' if there are none."""
    statuses = Counter(str(row["status"]) for row in report)
    if not {"refused", "failed"} & set(statuses):
        return ""
    parts = []
    for status in ("imported", "planned", "unchanged", "refused", "failed"):
        names = ", ".join(str(row["name"]) for row in report if row["status"] == status)
        if names:
            parts.append(f"{statuses[status]} {status}{f' ({names})' if status in ('refused', 'failed') else ''}")
    return ", ".join(parts)


def _larger(disk: _Data) -> dict[str, str]:
    """The size of a disk that is to be larger than its image."""
    return {"size": f"{disk['size']}B"} if disk.get("size") else {}


def _place(row: _Data, vmid: object) -> tuple[str, str, str]:
    """What tells an image of a run from all others: the guest that it is for, and where it is."""
    return str(vmid), str(row.get("path") or ""), str(row.get("member") or "")
