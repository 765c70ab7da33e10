# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays the recorded scenarios against a lab and compares its answers with a real PVE's.

`transcripts/<name>.json` is what a PVE 9.2 answered; `transcripts/scenarios/<name>.json` is what it was asked. The
recordings are normalised: UPIDs, digests, uuids and addresses are placeholders, numbers that vary are `<int>` or
`<float>`, log lines that depend on the host are marked loose. A step is alike when status, reason, body, the task's
exit status and its log lines that are not loose, the resulting configuration, pending values, running guests and
volumes are the same.
"""

from __future__ import annotations

import base64
import functools
import gzip
import http.client
import http.server
import json
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lab import images
from lab.service import Lab

FOLDER = Path(__file__).parent / "transcripts"
DISK_KEY = re.compile(r"(ide|sata|scsi|virtio|unused)\d+|efidisk0|tpmstate0|boot|bootdisk|scsihw|lock|template"
                      r"|vmstate|parent")
VARYING = frozenset("""cpu mem memhost uptime netin netout diskread diskwrite pid pstart starttime endtime ctime used
avail total used_fraction snaptime freemem balloon balloon_min maxcpu""".split())
SAMPLES = ("so.vmdk", "img.qcow2", "disk.raw", "test.vmdk", "test.ova", "tinylinux.qcow2")
TOKENS = {"root-token": "root@pam!test", "admin-token": "ansible@pve!test", "limited-token": "limited@pve!test",
          "noaccess-token": "nobody@pve!test", "privsep-token": "ansible@pve!sep"}
RECORDED_WEB = "127.0.0.1:18999"
"""Where the recordings' downloads came from."""
LOOSE = re.compile(r"^  |transferred .* of |[Ll]ogical volume|^INFO: |swtpm|volume group|mirroring|^LVM|\bkvm: "
                   r"|^mirror-|^--20\d\d-|^Connecting to |^HTTP request|^Length: |^Saving to|^20\d\d-\d\d-|^tar: "
                   r"|^trying to acquire .*lock|^ OK$|^Use of uninitialized")
LVM_TEXT = re.compile(r"Failed to find logical volume|lvremove |lvcreate |lvextend ")
TEXTS = [(re.compile(pattern), new) for pattern, new in [
    (r"UPID:[^:\s]+:[0-9A-F]+:[0-9A-F]+:[0-9A-F]+:([^:\s]*):([^:\s]*):[^:\s]*:", r"UPID:\1:\2"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"),
    (r"\b(?:[0-9A-F]{2}:){5}[0-9A-F]{2}\b", "<mac>"),
    (r"ctime=\d+", "ctime=<time>"),
    (r"pveupload-[0-9a-f]{32}", "pveupload-<id>"),
    (r"\btmp_\d+_(\d+)\b", r"tmp_<pid>_\1"),
    (r"tmp_dwnl\.\d+", "tmp_dwnl.<pid>"),
]]
Json = Any


def names() -> list[str]:
    """The recorded scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def recording(name: str) -> dict[str, Json]:
    """What PVE answered."""
    found: dict[str, Json] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def steps_of(transcript: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """The steps of a recording, those of groups one by one, the state after a group at its last step."""
    for step in transcript["steps"]:
        if "group" in step:
            state = {key: value for key, value in step.items() if key != "group"}
            yield from step["group"][:-1]
            yield {**step["group"][-1], **state}
        else:
            yield step


# ---- making answers comparable


def normal(value: Json, key: str = "", path: str = "") -> Json:
    """The value as a recording would show it."""
    if isinstance(value, dict):
        if value.get("key") == "digest":
            return {**value, "value": "<digest>"}
        if value.get("type") in ("node", "storage") and "id" in value:
            value = {k: "<int>" if k in ("disk", "maxdisk", "maxmem") else v for k, v in value.items()}
        return {k: normal(v, k, path) for k, v in value.items()}
    if isinstance(value, list):
        return [normal(item, key, path) for item in value]
    if isinstance(value, str):
        return _normal_text(value, key)
    varies = key in VARYING or "pressure" in key or (key == "disk" and path.endswith("resources"))
    if varies and not isinstance(value, bool) and isinstance(value, (int, float)):
        return "<float>" if isinstance(value, float) else "<int>"
    return value


def _normal_text(text: str, key: str) -> str:
    if key == "ssl_fingerprint" or (key == "digest" and re.fullmatch("[0-9a-f]{40}", text)):
        return f"<{key}>"
    if key == "content" and re.fullmatch(r"[a-z]+(,[a-z]+)+", text):
        return ",".join(sorted(text.split(",")))
    if key == "ctime" and text.isdigit():
        return "<int as string>"
    for pattern, new in TEXTS:
        text = pattern.sub(new, text)
    return text


def tidy(value: Json, key: str = "") -> Json:
    """What may be compared: lists and lines of an error sorted, because PVE's order is arbitrary."""
    if isinstance(value, dict):
        return {k: tidy(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return sorted((tidy(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, str):
        if "pressure" in key:
            return "<number>"  # integer or float as the load of the recorded host was
        if "\n" in value.strip():
            return "\n".join(sorted(value.strip().split("\n")))
    return value


def tidy_task(task: dict[str, Json] | None) -> Json:
    """A task's exit status and its firm log lines."""
    if task is None:
        return None
    return {"exitstatus": task["exitstatus"], "log": sorted(line for line in task["log"] if isinstance(line, str))}


PARTS = ("status", "reason", "body", "config", "pending", "running", "volumes")


def differences(real: dict[str, Json], own: dict[str, Json], random: bool) -> list[str]:
    """Where two steps differ, in words; empty when they are alike."""
    found = []
    cut = LVM_TEXT if real.get("loose_text") else None
    parts: list[tuple[str, Json, Json]] = []
    if random:
        parts.append(("status", real["status"], own["status"]))
        ends = [(step.get("task") or {}).get("exitstatus") for step in (real, own)]
        parts.append(("task", ends[0], ends[1]))
    else:
        parts += [(part, tidy(real.get(part)), tidy(own.get(part))) for part in PARTS]
        parts.append(("task", tidy_task(real.get("task")), tidy_task(own.get("task"))))
    for part, expected, got in parts:
        if expected != got and not (cut and _alike_but_lvm(expected, got, cut)):
            texts = [json.dumps(value, sort_keys=True) for value in (expected, got)]
            found.append(f"{part}: PVE {texts[0]}\n      lab {texts[1]}")
    return found


def _alike_but_lvm(expected: Json, got: Json, cut: re.Pattern[str]) -> bool:
    """Whether texts are the same up to where LVM's own wording begins."""
    first, second = json.dumps(expected, sort_keys=True), json.dumps(got, sort_keys=True)
    end = cut.search(first)
    return end is not None and first[: end.start()] == second[: end.start()]


# ---- the web server beside the node


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = web_files().get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404, "File not found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        kind = "application/x-iso9660-image" if self.path.endswith(".iso") else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@functools.cache
def web_files() -> dict[str, bytes]:
    """What the recordings' web server had."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "up.qcow2")
        images.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"])
        return {"gold-n.iso": b"golden!\n" * 1000, "up.qcow2": image.read_bytes()}


# ---- playing


@dataclass
class Identity:
    """Somebody who asks: the headers that say who."""

    headers: dict[str, str]
    csrf: dict[str, str] = field(default_factory=dict)


class Player:
    """Plays scenarios against one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._node = lab.cluster.nodes[0]
        self._connection = http.client.HTTPSConnection(
            lab.host, lab.port, timeout=120, context=ssl.create_default_context(cafile=str(lab.cafile)))
        self._web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
        threading.Thread(target=self._web.serve_forever, args=(0.01,), daemon=True).start()
        self._scenario: dict[str, Json] = {}
        self._made: dict[str, Identity] = {}
        self._kept = self._pid = self._upid = ""

    def close(self) -> None:
        """Ends the web server and the connection."""
        self._web.shutdown()
        self._web.server_close()
        self._connection.close()

    def play(self, name: str) -> list[dict[str, Json]]:
        """The steps that the lab's answers make."""
        self._scenario = json.loads((FOLDER / "scenarios" / f"{name}.json").read_text())
        steps: list[dict[str, Json]] = []
        for step in self._scenario["steps"]:
            steps += self._step(step)
        return steps

    # ---- who asks

    def _identity(self, who: str) -> Identity:
        if who == "none":
            return Identity({})
        if who == "bad-token":
            return Identity({"Authorization": "PVEAPIToken=root@pam!test=00000000-0000-0000-0000-000000000000"})
        if who in TOKENS:
            return Identity({"Authorization": f"PVEAPIToken={TOKENS[who]}={self._lab.token(TOKENS[who])}"})
        if who not in self._made:
            self._made[who] = self._login()
        return self._made[who]

    def _login(self) -> Identity:
        form = {"username": "root@pam", "password": self._lab.password}
        ticket = self._send("POST", "/access/ticket", form, Identity({}))[2]["data"]
        cookie = "PVEAuthCookie=" + quote(ticket["ticket"], safe="")
        return Identity({"Cookie": cookie}, {"CSRFPreventionToken": ticket["CSRFPreventionToken"]})

    # ---- HTTP

    def _send(self, method: str, path: str, params: dict[str, Json], who: Identity, csrf: bool = True,
              upload: dict[str, Json] | None = None) -> tuple[int, str, Json]:
        url, headers, body = "/api2/json" + path, dict(who.headers), b""
        if method != "GET" and csrf:
            headers |= who.csrf
        if upload:
            headers["Content-Type"] = "multipart/form-data; boundary=lab-replay"
            body = _multipart(params, upload)
        elif method in ("GET", "DELETE"):
            url += "?" + urlencode(params, doseq=True) if params else ""
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(params, doseq=True).encode()
        self._connection.request(method, url, body or None, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        return response.status, response.reason, json.loads(text) if text else None

    def _get(self, path: str, params: dict[str, Json] | None = None) -> Json:
        status, _, body = self._send("GET", path, params or {}, self._identity("root-token"))
        return body["data"] if status == 200 else None

    # ---- one step

    def _step(self, step: dict[str, Json]) -> list[dict[str, Json]]:
        if "sleep" in step:
            time.sleep(step["sleep"] * self._lab.cluster.clock.scale)
        elif "wait_agent" in step:
            ping = f"/nodes/{self._node}/qemu/{step['wait_agent']}/agent/ping"
            self._until(lambda: self._send("POST", ping, {}, self._identity("root-token"))[0] == 200)
        elif "wait_stopped" in step:
            path = f"/nodes/{self._node}/qemu/{step['wait_stopped']}/status/current"
            self._until(lambda: (self._get(path) or {}).get("status") == "stopped")
        elif "group" in step:
            done = [self._request(each) for each in step["group"]]
            for own, upid in done:
                self._finish(own, upid)
            done[-1][0].update(self._state(volumes=True))
            return [own for own, _ in done]
        else:
            own, upid = self._request(step)
            self._finish(own, upid)
            looks = step["method"] != "GET" or step.get("observe")
            if looks and not re.search("/agent/|/access/", step["path"]):
                own.update(self._state("/status/" not in step["path"] or bool(step.get("observe"))))
            return [own]
        return []

    @staticmethod
    def _until(happened: Callable[[], bool]) -> None:
        for _ in range(200):
            if happened():
                return
            time.sleep(0.01)
        raise TimeoutError("waited in vain")

    def _request(self, step: dict[str, Json]) -> tuple[dict[str, Json], str | None]:
        who, path = step.get("as", "root-token"), step["path"].replace("{node}", self._node)
        if step.get("keep_digest"):
            self._kept = self._fill("<digest>")
        params = self._fill(step.get("params") or {})
        identity = self._identity("root-ticket" if who == "root-ticket-nocsrf" else who)
        status, reason, body = self._send(step["method"], self._fill(path), params, identity,
                                          who != "root-ticket-nocsrf", step.get("upload"))
        data: Json = body.get("data") if isinstance(body, dict) else None
        if step.get("capture_token") and status == 200:
            header = f"PVEAPIToken={data['full-tokenid']}={data['value']}"
            self._made[step["capture_token"]] = Identity({"Authorization": header})
            data["value"] = "<secret>"
        if isinstance(data, dict) and "pid" in data and "/agent/exec" in path:
            self._pid = str(data["pid"])
        upid = data if isinstance(data, str) and data.startswith("UPID:") else None
        self._upid = upid or self._upid
        body = self._recorded_web(normal(self._own_rows(body, path, step), path=path))
        return {"status": status, "reason": self._recorded_web(normal(reason)), "body": body}, upid

    def _recorded_web(self, value: Json) -> Json:
        return json.loads(json.dumps(value).replace(f"127.0.0.1:{self._web.server_port}", RECORDED_WEB))

    def _fill(self, value: Json) -> Json:
        """Puts digests, pids and UPIDs where the scenario names them."""
        if isinstance(value, dict):
            return {key: self._fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item) for item in value]
        if not isinstance(value, str):
            return value
        value = value.replace(RECORDED_WEB, f"127.0.0.1:{self._web.server_port}")
        return re.sub(r"<(pid|upid|digest(?::\w+)?)>", self._word, value)

    def _word(self, match: re.Match[str]) -> str:
        word = match[1]
        if word == "pid":
            return self._pid
        if word == "upid":
            return quote(self._upid, safe="")
        if word == "digest:old":
            return self._kept
        vmid = word[len("digest:"):] or self._scenario["vmids"][0]
        return str((self._get(f"/nodes/{self._node}/qemu/{vmid}/config") or {}).get("digest", ""))

    def _finish(self, own: dict[str, Json], upid: str | None) -> None:
        """Waits for the task of a step and notes how it ended."""
        if upid is None:
            return
        ended = self._lab.cluster.tasks.wait(upid)
        lines = self._get(f"/nodes/{self._node}/tasks/{quote(upid, safe='')}/log", {"limit": 5000})
        log = [self._recorded_web(normal(row["t"])) for row in lines]
        own["task"] = {"exitstatus": self._recorded_web(normal(ended)),
                       "log": [{"loose": True, "t": line} if LOOSE.search(line) else line for line in log]}

    # ---- looking around

    def _state(self, volumes: bool) -> dict[str, Json]:
        """Configuration, pending values, running guests and volumes of the scenario's guests."""
        configs: dict[str, Json] = {}
        running, pending = [], {}
        for vmid in self._scenario["vmids"]:
            path = f"/nodes/{self._node}/qemu/{vmid}"
            config = self._get(path + "/config")
            configs[str(vmid)] = config and {k: v for k, v in config.items() if DISK_KEY.fullmatch(k)}
            if config is None:
                continue
            if (self._get(path + "/status/current") or {}).get("status") == "running":
                running.append(vmid)
            rows = self._get(path + "/pending")
            if vmid in running or any("pending" in row or "delete" in row for row in rows):
                pending[str(vmid)] = [row for row in rows if DISK_KEY.fullmatch(row["key"])]
        state: dict[str, Json] = {"config": configs}
        state |= {key: value for key, value in (("running", running), ("pending", pending)) if value}
        if volumes:
            state["volumes"] = list(self._volumes())
        return state

    def _volumes(self) -> Iterator[dict[str, Json]]:
        for sid in self._scenario["storages"]:
            for vmid in self._scenario["vmids"]:
                rows = self._get(f"/nodes/{self._node}/storage/{sid}/content", {"vmid": vmid, "content": "images"})
                for row in rows or []:
                    keys = ("volid", "format", "size", "parent", "vmid")
                    yield {key: row[key] for key in keys if row.get(key) is not None}

    def _own_rows(self, body: Json, path: str, step: dict[str, Json]) -> Json:
        """Lists that show the whole server are cut down to what belongs to the scenario."""
        if not isinstance(body, dict) or not isinstance(body.get("data"), list) or step.get("all"):
            return body
        rows = [row for row in body["data"] if not isinstance(row, dict) or self._mine(row, path)]
        return {**body, "data": rows}

    def _mine(self, row: dict[str, Json], path: str) -> bool:
        vmids, storages = self._scenario["vmids"], self._scenario["storages"]
        if path.endswith("/content"):
            if row.get("content") in ("import", "iso"):
                return str(row["volid"]).endswith(SAMPLES) or "gold-" in row["volid"]
            return row.get("vmid") in vmids
        if path.endswith("/qemu") or row.get("type") == "qemu":
            return row.get("vmid") in vmids
        if path.endswith("/tasks"):
            return str(row.get("id", "")).partition("@")[0] in map(str, vmids)
        if path.endswith("/storage") or row.get("type") == "storage":
            return row.get("storage") in storages
        return True


def _multipart(params: dict[str, Json], upload: dict[str, Json]) -> bytes:
    if "gzip-base64" in upload:
        content = gzip.decompress(base64.b64decode(upload["gzip-base64"]))
    else:
        content = str(upload.get("text", "")).encode() * int(upload.get("times", 1))
    parts = [f'--lab-replay\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
             for key, value in params.items()]
    parts.append(f'--lab-replay\r\nContent-Disposition: form-data; name="filename"; filename="{upload["filename"]}"\r\n'
                 "Content-Type: application/octet-stream\r\n\r\n")
    return "".join(parts).encode() + content + b"\r\n--lab-replay--\r\n"
