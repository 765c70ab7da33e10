# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that come onto a storage: upload and download-url. After pve-storage 9.1.7, API2/Storage/Status.pm.

A download really fetches its URL, as a node would.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import images, ovf
from lab.api import ApiError, Call, Route, TaskLog, bad
from lab.filevolumes import FILES
from lab.images import Place
from lab.storages import FILE_TYPES
from lab.terms import StorageError

UPLOADED = re.compile(r"[a-zA-Z0-9\-.+=_]+\.(ova|qcow2|raw|vmdk)$")


@dataclass(frozen=True)
class Target:
    """Where a file goes, and as what: `image` is its format when it is an image, or ova."""

    place: Place
    content: str
    image: str | None


def _target(call: Call) -> Target:
    """Checks the file name against the content type."""
    content = str(call.values["content"])
    name = re.sub(r"[^a-zA-Z0-9_.-]", "_", Path(str(call.values["filename"])).name)
    image = None
    if content == "import":
        found = UPLOADED.search(name)
        if not found:
            raise bad(filename="invalid filename or wrong extension")
        image = found[1]
    elif not FILES[content].match(name):
        raise bad(filename="wrong file extension")
    return Target(call.storages.place(f"{call.values['storage']}:{content}/{name}"), content, image)


def _check(place: Place, image: str | None, log: TaskLog) -> None:
    """What PVE looks at before it takes a file."""
    if image == "ova":
        done = images.run(["tar", "-t", "-f", str(place.file)])
        for line in done.stderr.splitlines():
            log(line)
        if done.returncode:
            raise StorageError(f"command 'tar -t -f {place.shown}' failed: exit code {done.returncode}")
    else:
        images.check_untrusted(place, image)


def _hash(algorithm: str, file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


# ---- upload


def _in_order(call: Call) -> None:
    """pveproxy hands the fields over as they come, and a checksum needs its algorithm before it."""
    fields = call.fields
    if "checksum" in fields and "checksum-algorithm" in fields[fields.index("checksum"):]:
        raise ApiError("Bad Request", 400)


def _upload(call: Call) -> str:
    sid, content = str(call.values["storage"]), str(call.values["content"])
    kind = call.storages.require_enabled(sid)["type"]
    if kind not in FILE_TYPES:
        raise ApiError(f"can't upload to storage type '{kind}'")
    if call.upload is None:
        raise ApiError("missing temporary file name")
    target = _target(call)
    if content not in call.storages.content_types(sid):
        raise ApiError(f"storage '{sid}' does not support '{content}' content")
    call.storages.backend(sid)
    kept = Place(call.upload.with_suffix(".kept"), f"/var/tmp/pveupload-{uuid.uuid4().hex}")
    call.upload.rename(kept.file)
    checksum, algorithm = call.values.get("checksum"), call.values.get("checksum-algorithm")

    def work(log: TaskLog) -> None:
        try:
            _take(call.node, kept, target, (str(algorithm), str(checksum)) if algorithm else None, log)
        finally:
            kept.file.unlink(missing_ok=True)

    return call.task("imgcopy", "", work)


def _take(node: str, kept: Place, target: Target, expected: tuple[str, str] | None, log: TaskLog) -> None:
    """The task of an upload. An existing file is overwritten."""
    log(f"starting file import from: {kept.shown}")
    if expected:
        _verify(kept.file, expected, "calculating checksum...", "OK, checksum verified", "", log)
    _check(kept, target.image, log)
    log(f"target node: {node}")
    log(f"target file: {target.place.shown}")
    log(f"file size is: {kept.file.stat().st_size}")
    log(f"command: cp -- {kept.shown} {target.place.shown}")
    target.place.file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept.file, target.place.file)
    log("finished file import successfully")


def _verify(file: Path, expected: tuple[str, str], doing: str, done: str, ending: str, log: TaskLog) -> None:
    """Compares a checksum; logs one line for both."""
    algorithm, wanted = expected
    got = _hash(algorithm, file)
    if got.lower() != wanted.lower():
        log(doing)
        raise StorageError(f"checksum mismatch: got '{got}' != expect '{wanted}'{ending}")
    log(doing + done)


# ---- download


def _download(call: Call) -> str:
    sid, content = str(call.values["storage"]), str(call.values["content"])
    kind = call.storages.require_enabled(sid)["type"]
    if kind not in FILE_TYPES:
        raise ApiError(f"can't upload to storage type '{kind}', not a file based storage!")
    if content not in call.storages.content_types(sid):
        raise ApiError(f"storage '{sid}' is not configured for content-type '{content}'")
    target = _target(call)
    call.storages.backend(sid)
    values = call.values
    expected = (str(values["checksum-algorithm"]), str(values["checksum"])) if values.get("checksum") else None
    verify = bool(values.get("verify-certificates", 1))

    def work(log: TaskLog) -> None:
        _fetch_to(target, str(values["url"]), expected, verify, log, call.cluster.web)

    return call.task("download", urllib.parse.quote(target.place.file.name), work)


def _fetch_to(target: Target, url: str, expected: tuple[str, str] | None, verify: bool, log: TaskLog,
              web: Mapping[str, bytes]) -> None:
    """The task of a download (PVE::Tools::download_file_from_url)."""
    place = target.place
    log(f"downloading {url} to {place.shown}")
    if place.file.exists():
        if expected is None:
            raise StorageError(f"refusing to override existing file '{place.shown}'")
        _verify(place.file, expected, "calculating checksum of existing file...",
                "OK, got correct file already, no need to download", ", aborting", log)
        return
    place.file.parent.mkdir(parents=True, exist_ok=True)
    ending = f".tmp_dwnl.{uuid.uuid4().int % 100000}"
    part = Place(place.file.with_name(place.file.name + ending), place.shown + ending)
    try:
        _fetch(url, part.file, verify, log, web)
        if expected:
            _verify(part.file, expected, "calculating checksum...", "OK, checksum verified", "", log)
        try:
            _check(part, target.image, log)
        except StorageError as error:
            raise StorageError(f"failed to verify file: {error.message}") from error
        part.file.rename(place.file)
    finally:
        part.file.unlink(missing_ok=True)
    log(f"download of '{url}' to '{place.shown}' finished")


def _fetch(url: str, target: Path, verify: bool, log: TaskLog, web: Mapping[str, bytes]) -> None:
    """Fetches a URL, from what the seed says that the web holds, or really; failures read like wget's, as in PVE."""
    if url in web:
        log(f"--2026-11-22 10:03:18--  {url}")
        target.write_bytes(web[url])
        return
    address = urllib.parse.urlsplit(url)
    where = f"{address.hostname}:{address.port or (443 if address.scheme == 'https' else 80)}"
    context = None if verify else ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url, timeout=60, context=context) as answer, target.open("wb") as file:
            log(f"Connecting to {where}... connected.")
            shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        log(f"HTTP request sent, awaiting response... {error.code} {error.reason}")
        raise StorageError("download failed: exit code 8") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise StorageError(f"download failed: Connecting to {where}... failed: Connection refused.") from error
        code = 5 if isinstance(error.reason, ssl.SSLError) else 4
        raise StorageError(f"download failed: exit code {code}") from error


NODE = "/nodes/{node}/storage/{storage}"
ROUTES = [
    Route("POST", NODE + "/upload", _upload, early=_in_order),
    Route("POST", NODE + "/download-url", _download),
    *ovf.ROUTES,
]
