# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A file on a storage, an ISO or an image to import: what it takes to have it, and what stands against that.

Source: pve-storage 9.1.7, ``PVE/API2/Storage/Status.pm`` (upload, download_url) and ``PVE/Storage.pm``
(ISO_EXT_RE_0, UPLOAD_IMPORT_EXT_RE_1, normalize_content_filename).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from .errors import ParseError, Refusal
from .size import human_size
from .storage import Storage

STATES = ("present", "absent")
#: What PVE calls the kinds of files, and how their names end.
CONTENTS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "iso": re.compile(r"\.(iso|img)$", re.IGNORECASE),
        "import": re.compile(r"\.(ova|qcow2|raw|vmdk)$"),
    }
)
_ENDINGS = MappingProxyType({"iso": ".iso or .img", "import": ".ova, .qcow2, .raw or .vmdk"})
#: How many hexadecimal digits each algorithm of PVE gives.
ALGORITHMS: Mapping[str, int] = MappingProxyType(
    {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
)
_UNSAFE = re.compile(r"[^a-zA-Z0-9_.-]")
_LONGEST_NAME = 255
_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest in lower-case hexadecimal, and how it is made."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


def parse_checksum(text: str, algorithm: str) -> Checksum:
    """Read a digest as a user writes it.

    :raises ParseError: it is none of that algorithm.
    """
    digest = text.strip().lower()
    wanted = ALGORITHMS[algorithm]
    if not re.fullmatch(rf"[0-9a-f]{{{wanted}}}", digest):
        fits = [name for name, length in ALGORITHMS.items() if length == len(digest)]
        hint = f"; {fits[0]} has {len(digest)}" if fits and fits[0] != algorithm else ""
        raise ParseError(f"checksum={text}: {algorithm} has {wanted} hexadecimal digits{hint}")
    return Checksum(algorithm, digest)


class Source(enum.Enum):
    """Where a file comes from."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


class Verdict(enum.Enum):
    """What is known of a file that is there, compared with the one that is wanted."""

    #: Its checksum was verified by PVE.
    CHECKSUM = "checksum"
    #: It has the right size; nobody has looked inside.
    SIZE = "size"
    #: A file of that name is there; nothing else is known of either.
    PRESENCE = "presence"
    #: It is another file.
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class FileWish:
    """What is asked.

    :param name: as it is to be called on the storage.
    :param source: where it comes from, ``None`` when it has to be there.
    :param origin: the same for people, without anything secret.
    :param size: bytes, as far as they are known beforehand.
    :param checksum: what it must have, if anything is known.
    :param replace: whether another file of this name may be overwritten.
    :param trusts: whether a checksum that nobody has given is recorded at first use.
    """

    node: str
    storage: str
    content: str
    name: str
    state: str = "present"
    source: Source | None = None
    origin: str = ""
    size: int | None = None
    checksum: Checksum | None = None
    replace: bool = False
    trusts: bool = False

    @property
    def volid(self) -> str:
        """PVE's name of the file."""
        return f"{self.storage}:{self.content}/{self.name}"

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{in_print(self.volid) if self.name else self.storage} on {self.node}"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What planning looks at.

    :param storage: as the node sees it, ``None`` when there is none that the user may see.
    :param size: bytes of the file that is there, ``None`` when there is none.
    :param verdict: what is known of that file.
    """

    storage: Storage | None
    size: int | None = None
    verdict: Verdict | None = None


class Step(enum.Enum):
    """What is done."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What is to be done, in order, or why it is not."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def plan_file(wish: FileWish, facts: FileFacts) -> FilePlan:
    """Plan what makes it so, or collect everything that stands against it."""
    refusals = (*_wrong_names(wish), *_wrong_storage(wish, facts))
    steps: tuple[Step, ...] = ()
    if not refusals:
        steps = _steps(wish, facts)
        refusals = tuple(_obstacles(wish, facts, steps))
    return FilePlan(() if refusals else steps, refusals)


def _steps(wish: FileWish, facts: FileFacts) -> tuple[Step, ...]:
    if wish.state == "absent":
        return (Step.DELETE,) if facts.size is not None else ()
    record = (Step.RECORD,) if wish.trusts and wish.checksum is None else ()
    if facts.size is not None and facts.verdict is not Verdict.DIFFERENT:
        return record
    if wish.source is Source.UPLOAD:
        return (Step.UPLOAD, *record)
    # PVE overwrites a file when one is uploaded, and does not when it downloads one.
    first = (Step.DELETE,) if facts.size is not None else ()
    return (*first, Step.DOWNLOAD, *record)


def _wrong_names(wish: FileWish) -> Iterator[Refusal]:
    if not wish.name:
        remedy = "give src, url or virtio_win, or name for one that is there"
        yield Refusal(wish.label, "", "name", "", "nothing tells how the file is called", remedy)
    elif _UNSAFE.search(wish.name) or len(wish.name) > _LONGEST_NAME or wish.name.startswith("."):
        yield Refusal(
            wish.label,
            "",
            "name",
            in_print(wish.name),
            "PVE would call the file otherwise",
            f"use letters without accents, digits, _ . and -, as in name={_UNSAFE.sub('_', wish.name).lstrip('.')}",
        )
    elif not CONTENTS[wish.content].search(wish.name):
        yield Refusal(
            wish.label,
            "",
            "name",
            in_print(wish.name),
            f"a file of the content type {wish.content} ends with {_ENDINGS[wish.content]}",
            "correct name, or content",
        )


def _wrong_storage(wish: FileWish, facts: FileFacts) -> Iterator[Refusal]:
    storage = facts.storage
    if storage is None:
        yield Refusal(
            wish.label,
            "",
            "storage",
            wish.storage,
            f"{wish.node} has no such storage, or the user may not see it (right Datastore.Audit)",
            "correct storage, or grant the right",
        )
    elif not (storage.enabled and storage.active):
        how = "disabled" if not storage.enabled else "not active: it can't be reached"
        yield Refusal(wish.label, "", "storage", wish.storage, f"it is {how}", "enable it, or look at it")
    elif wish.content not in storage.content:
        able = storage.kind is not None and storage.kind.level == "file"
        remedy = f"add {wish.content} to its content types" if able else "use a storage that keeps files, such as local"
        yield Refusal(
            wish.label,
            "",
            "storage",
            wish.storage,
            f"it does not take the content type {wish.content} (it takes {', '.join(sorted(storage.content))})",
            remedy,
        )


def _obstacles(wish: FileWish, facts: FileFacts, steps: tuple[Step, ...]) -> Iterator[Refusal]:
    comes = {Step.UPLOAD, Step.DOWNLOAD} & set(steps)
    if facts.verdict is Verdict.DIFFERENT and wish.state == "present" and not (wish.replace and wish.source):
        remedy = "write replace: true, or use another name" if wish.source else "say where the right one comes from"
        yield Refusal(wish.label, "", "", "", _difference(wish, facts), remedy)
        return
    if comes and wish.source is None:
        yield Refusal(
            wish.label,
            "",
            "state",
            "present",
            "it is not there, and nothing says where it comes from",
            "give src, url or virtio_win",
        )
    free = facts.storage.available if facts.storage else None
    if comes and wish.size is not None and free is not None and wish.size > free:
        yield Refusal(
            wish.label,
            "",
            "storage",
            wish.storage,
            f"it has {human_size(free)} left, and the file has {human_size(wish.size)}",
            "make room, or use another storage",
        )


def _difference(wish: FileWish, facts: FileFacts) -> str:
    if wish.size is not None and facts.size != wish.size:
        return f"another file of this name is there ({facts.size} bytes, not {wish.size})"
    return f"another file of this name is there (its checksum is not {wish.checksum})"


def in_print(text: str) -> str:
    """A text whose line ends and other control characters can be seen, and do nothing to a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def name_in_url(url: str) -> str:
    """The file's name at the end of a URL, or an empty string."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def host_in_url(url: str) -> str:
    """The host of a URL, for people.

    :raises ParseError: it is no URL that PVE downloads from.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        raise ParseError("url: PVE downloads from http:// and https:// addresses with a host, and this is none")
    return host


def hide_secrets(text: str) -> str:
    """A text in which URLs have lost what may be secret: user, password, query and fragment."""
    return _URL.sub(lambda match: _bare(match[0]), text)


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return f"{url.partition('://')[0]}://…"
    return f"{parts.scheme}://{parts.hostname or '…'}{port}{parts.path}"
