# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From VMware to PVE, whole: the playbook against a lab, the bytes on the volumes, and a guest that boots from them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e import tiny_linux
from e2e.kit import Run, play, run_playbook, started, token_env
from images import GOOD, archive, vmdk
from images.content import disk, grains
from images.vmdk import descriptor, sectors, write
from lab import Lab, images
from lab.node import environment
from tools.checkout import TOP

MIB = 1024**2
PLAY = "diskwright.proxmox.import_vmdk"
BIOS = {"more": ""}


@dataclass
class Site:
    """A lab, its node's tools, and a folder of files from VMware."""

    lab: Lab
    folder: Path
    env: dict[str, str | None] = field(default_factory=dict)

    def run(self, *sources: Mapping[str, Any], check: bool = False, **variables: Any) -> Run:
        """Runs the playbook with these sources on the node."""
        given = {"vmdk_import_sources": list(sources), "vmdk_import_state_dir": str(self.folder.parent / "state")}
        given |= {"vmdk_import_upload_folder": str(self.folder.parent / "uploads"), **variables}
        inventory = {"proxmox_nodes": {"hosts": {"pve1": {}}}, "all": {"hosts": {"localhost": {}}}}
        flags = ["-e", json.dumps(given), *(["--check"] if check else [])]
        return run_playbook(PLAY, self.env, *flags, inventory=inventory)

    def content(self, vmid: int, slot: str) -> bytes:
        """What a guest's disk holds, as QEMU reads it."""
        volume = self.lab.config(vmid)[slot].partition(",")[0]
        storages = self.lab.cluster.storages("pve1")
        name = storages.parse_volname(volume)
        return images.read(storages.place(volume), name.format, self.size(vmid, slot))

    def size(self, vmid: int, slot: str) -> int:
        """Bytes of a guest's disk, as PVE has them."""
        text = re.search(r"size=(\d+)([KMG]?)", self.lab.config(vmid)[slot])
        assert text is not None
        return int(text[1]) * {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}[text[2]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with started({"nodes": ["pve1"], "files": {"samples": ["local"]}, "guests": GUESTS}) as lab:
        folder = tmp_path / "vmware"
        folder.mkdir()
        tools = environment(lab.state, tmp_path / "bin")
        yield Site(lab, folder, {**token_env(lab), "PATH": tools["PATH"]})


GUESTS = [{"vmid": 120, "name": "db1", "config": {"scsi0": "local:120/vm-120-disk-0.raw,size=4M", "ostype": "l26"}}]


def plan_of(run: Run) -> list[str]:
    """The lines of the plan that a run has shown."""
    shown = [task for task in run.tasks if task.task.endswith("Show the plan") and task.status == "ok"]
    return [line for task in shown for line in task.result["msg"]]


def said_at_the_end(run: Run) -> str:
    """What became of the guests, in one line."""
    (said,) = [task for task in run.tasks if task.task.endswith("Say what became of the guests")]
    return str(said.result.get("msg", ""))


def settled(run: Run) -> None:
    """The run went well and changed nothing."""
    assert run.code == 0, run.text
    assert re.search(r"pve1 .*changed=0 .*failed=0 .*ignored=0", run.stdout), run.stdout
    assert plan_of(run) == []
    assert said_at_the_end(run) == ""


def ova(folder: Path, *contents: bytes, name: str = "web1", **options: Any) -> Path:
    """An OVA of a guest with these disks, the first one at the lowest address."""
    disks = [archive.Disk(f"{name}-disk{n}.vmdk", len(data), address=n - 1) for n, data in enumerate(contents, 1)]
    made = []
    for entry, content in zip(disks, contents, strict=True):
        file = vmdk.exported(folder, content, entry.file)
        made.append((entry, file.read_bytes()))
        file.unlink()
    text = archive.ovf(disks, name=name, **{**BIOS, **options})
    return archive.ova(folder / f"{name}.ova", made, text=text)


def the_guest(lab: Lab, vmid: int) -> list[tiny_linux.Drive]:
    """A guest's disks as QEMU is to see them, the one that it is started from first."""
    config = lab.config(vmid)
    first = config["boot"].removeprefix("order=").partition(";")[0]
    slots = sorted((slot for slot in config if re.fullmatch(r"(scsi|virtio|ide)\d+", slot)), key=lambda s: s != first)
    volumes = {slot: config[slot].partition(",")[0] for slot in slots}
    return [
        tiny_linux.Drive(slot, lab.file(volume), "qcow2" if volume.endswith(".qcow2") else "raw")
        for slot, volume in volumes.items()
    ]


def says(console: str, *sums: str) -> bool:
    """Whether a guest has started and read all of its disks right."""
    return "BOOT-OK" in console and sorted(re.findall(r"PAYLOAD \w+ ([0-9a-f]{64})", console)) == sorted(sums)


def test_an_ova_with_two_disks_is_imported_and_starts(site: Site, tmp_path: Path) -> None:
    """Planned, imported, verified, started; a second run changes nothing; the report says all of it."""
    raws = [tmp_path / "first.raw", tmp_path / "second.raw"]
    bootable = not tiny_linux.missing()
    sums = [tiny_linux.boot_disk(raws[0], 1, 2), tiny_linux.data_disk(raws[1], 2)] if bootable else []
    first, second = (raw.read_bytes() for raw in raws) if bootable else (disk(3 * MIB), disk(2 * MIB, seed=2))
    large = len(second) + 8 * MIB
    source = {
        "path": str(ova(site.folder, first, second)),
        "storage": "local",
        "networks": {"VM Network": "vmbr0"},
        "disks": {"web1-disk2.vmdk": {"storage": "local-lvm", "size": f"{large}B", "backup": False}},
    }
    check = site.run(source, check=True)
    assert (check.code, site.lab.writes()) == (0, []), check.text
    report = tmp_path / "report"
    real = site.run(source, vmdk_import_report_folder=str(report))
    assert real.code == 0, real.text
    assert plan_of(real) == plan_of(check)
    assert [re.sub(r" {2,}", "  ", line) for line in plan_of(real)] == [
        f"web1 (next free number on pve1, new)  {source['path']}",
        "  + guest  2 GiB, 4 cores  l26, seabios, x86-64-v2-AES, virtio-scsi-single",
        f"  + scsi0  {len(first) // MIB} MiB qcow2 on local  web1-disk1.vmdk (vmdk streamOptimized)"
        "  (current: linux-migrated, virtio-scsi-single, file-qcow2, iothread, thin-discard)",
        f"  + scsi1  {large // MIB} MiB raw on local-lvm  web1-disk2.vmdk (vmdk streamOptimized)"
        "  (current: linux-migrated, raw, iothread, thin-discard)",
        "  + net0  virtio  on vmbr0",
    ]
    config = site.lab.config(100)
    wanted = {"name": "web1", "memory": "2048", "cores": "2", "sockets": "2", "ostype": "l26", "boot": "order=scsi0"}
    assert {key: config[key] for key in wanted} == wanted
    assert config["scsihw"] == "virtio-scsi-single"
    assert "bridge=vmbr0" in config["net0"]
    assert "backup=0" in config["scsi1"]
    assert site.content(100, "scsi0") == first
    assert site.content(100, "scsi1") == second.ljust(large, b"\0")
    settled(site.run(source))
    check_report(report, {slot: config[slot].partition(",")[0] for slot in ("scsi0", "scsi1")})
    tiny_linux.require()
    console = tiny_linux.boot(the_guest(site.lab, 100)[:1] + small(the_guest(site.lab, 100)[1:], tmp_path, len(second)))
    assert says(console, *sums), console


def small(drives: list[tiny_linux.Drive], folder: Path, size: int) -> list[tiny_linux.Drive]:
    """The drives without what was added behind the image, over which the guest makes no sum."""
    short = []
    for number, drive in enumerate(drives):
        file = folder / f"short{number}.raw"
        with drive.file.open("rb") as stream:
            file.write_bytes(stream.read(size))
        short.append(tiny_linux.Drive(drive.slot, file, "raw"))
    return short


def check_report(folder: Path, volumes: dict[str, str]) -> None:
    (row,) = json.loads((folder / "vmdk-import-pve1.json").read_text())["guests"]
    assert (row["name"], row["vmid"], row["status"]) == ("web1", 100, "imported")
    assert {entry["slot"]: entry["volume"] for entry in row["disks"]} == volumes
    assert all(entry["verified"] and entry["content_id"] for entry in row["disks"])
    text = (folder / "vmdk-import-pve1.md").read_text()
    assert "## web1 (100 on pve1): imported" in text
    assert f"| `web1-disk1.vmdk` | scsi0 | `{volumes['scsi0']}` |" in text


def test_the_report_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Names stay whole; what means something to Markdown means nothing in it."""
    drive: dict[str, Any] = {"file": "a`b|c.vmdk", "slot": "scsi0", "storage": "local-lvm", "virtual_size": MIB}
    drive |= {"volume": None, "content_id": None}
    guest = {"name": "web1", "vmid": 100, "node": "pve1", "source": "/srv/in-1/x_y.vmdk", "status": "failed"}
    guest |= {"disks": [drive], "refused": ["a_b.vmdk: *5* <b>, _x_ [l](http://e) 2026-11-25"], "errors": ["no\nroom"]}
    task = {
        "ansible.builtin.template": {
            "src": str(TOP / "roles" / "vmdk_import" / "templates" / "import.md.j2"), "dest": str(tmp_path / "x.md"),
            "lstrip_blocks": True,
        },
        "vars": {"report": [{**guest, "warnings": ["- w", "1. w"]}], "generated": "2026-11-25T03:00Z"},
    }  # fmt: skip
    run = run_playbook(play([task]), {})
    assert run.code == 0, run.text
    assert [line for line in (tmp_path / "x.md").read_text().splitlines() if line][-8:] == [
        "From `/srv/in-1/x_y.vmdk`",
        "| Image | Slot | Volume | Size | Content id |",
        "|---|---|---|---:|---|",
        r"| a\`b\|c.vmdk | scsi0 | `local-lvm` | 1 MiB |  |",
        r"- **Refused:** a_b.vmdk: \*5\* &lt;b>, \_x\_ \[l\](http:\//e) 2026-11-25",
        "- **Failed:** no room",
        r"- \- w",
        r"- 1\. w",
    ]


def folder_of(site: Site, name: str) -> Path:
    folder = site.folder / name
    folder.mkdir()
    return folder


def test_many_sources_one_refused_one_failing(site: Site) -> None:
    """What is refused stops everything unless it is said otherwise; a failure stops nothing else; a rerun ends it."""
    contents = {name: disk(2 * MIB, seed=number) for number, name in enumerate(("win1", "box", "more"))}
    truncated = vmdk.flat(folder_of(site, "broken"), disk(1 * MIB))
    (site.folder / "broken" / "disk-flat.vmdk").write_bytes(b"short")
    guest = {"storage": "local", "memory": 512}
    sources = [
        {"path": str(vmdk.flat(folder_of(site, "win1"), contents["win1"]).parent), **guest, "ostype": "win10"},
        {"upload_from": str(vmdk.flat(folder_of(site, "box"), contents["box"], "box.vmdk").parent), **guest,
         "ostype": "l26"},
        {"volume": "local:import/so.vmdk", "name": "stored", **guest, "virtio_drivers": "block"},
        {"path": str(vmdk.exported(folder_of(site, "more"), contents["more"])), "vmid": 120, "storage": "local-lvm",
         "virtio_drivers": "all"},
        {"path": str(truncated), "name": "broken", **guest},
    ]  # fmt: skip
    stopped = site.run(sources[-2], sources[-1])
    assert stopped.code != 0
    assert "Nothing was converted. With vmdk_import_skip_refused the others are." in stopped.text
    reason = r"broken: disk.vmdk: disk-flat.vmdk: has 5 bytes, .* \(extent-truncated\)"
    assert re.search(reason, stopped.text), stopped.text
    assert site.lab.writes() == []
    lonely = site.run(sources[-1])
    assert "Nothing was converted." in lonely.text
    assert "the others are" not in lonely.text

    site.lab.server.fail("POST", "/nodes/pve1/qemu/120/config", 500, "no luck today", times=1)
    first = site.run(*sources, vmdk_import_skip_refused=True)
    assert first.code != 0
    assert re.search(r"db1: .*no luck today", first.text), first.text
    assert site.content(100, "sata0") == contents["win1"]
    assert site.content(101, "scsi0") == contents["box"]
    assert (site.folder.parent / "uploads" / "box" / "box-flat.vmdk").read_bytes() == contents["box"]
    assert site.content(102, "virtio0").startswith(b"so.vmdk of the lab\n")
    assert site.lab.config(100)["boot"] == "order=sata0"
    assert site.lab.config(100)["scsihw"] == "virtio-scsi-single"
    assert set(site.lab.config(120)) & {"scsi1", "sata0"} == set()

    second = site.run(*sources, vmdk_import_skip_refused=True)
    assert second.code == 0, second.text
    assert said_at_the_end(first) == "3 imported, 1 refused (broken), 1 failed (db1)"
    assert said_at_the_end(second) == "1 imported, 3 unchanged, 1 refused (broken)"
    assert site.content(120, "scsi1") == contents["more"].ljust(4 * MIB, b"\0")  # a whole extent of the volume group
    assert site.lab.config(120)["scsi0"].startswith("local:120/vm-120-disk-0.raw")
    assert not [task for task in second.tasks if task.changed and "Convert" in task.task]


def test_one_image_becomes_the_disks_of_two_guests(site: Site) -> None:
    """Each has its own volume with the image's bytes, in one run."""
    content = disk(2 * MIB, seed=21)
    path = str(vmdk.exported(site.folder, content))
    words = {"path": path, "storage": "local", "memory": 64, "ostype": "l26"}
    sources = [{**words, "vmid": vmid, "name": f"g{vmid}"} for vmid in (150, 151)]
    report = site.folder.parent / "report"
    run = site.run(*sources, vmdk_import_report_folder=str(report))
    assert run.code == 0, run.text
    for vmid in (150, 151):
        assert site.lab.config(vmid)["scsi0"].startswith(f"local:{vmid}/vm-{vmid}-")
        assert site.content(vmid, "scsi0") == content
    rows = json.loads((report / "vmdk-import-pve1.json").read_text())["guests"]
    assert [row["disks"][0]["volume"].partition("/")[0] for row in rows] == ["local:150", "local:151"]
    settled(site.run(*sources))


def test_all_refusals_together_before_anything_is_made(site: Site) -> None:
    """Whatever is wrong with sources, disks, guests and what is around them: in check mode as in earnest."""
    chain = folder_of(site, "chain")
    head, _content = {one.name: one for one in GOOD}["delta-sesparse-three"].make(chain)
    web = ova(site.folder, disk(1 * MIB))
    box = vmdk.exported(folder_of(site, "box"), disk(1 * MIB), "box.vmdk")
    guest = {"storage": "local", "memory": 64, "ostype": "l26"}
    sources = [
        {"path": str(box), "name": "a", **guest, "disks": {"box.vmdk": {"cach": "none", "queues": 1}}},
        {"path": str(box), "name": "b", **guest, "boot": ["scsi5"]},
        {"path": str(box), "name": "c", **guest, "disks": {"box": {"skip": True}}},
        {"path": str(web), "name": "d", "storage": "local", "networks": {"*": "vmbr77"}, "pool": "nopool"},
        {"path": str(chain / "disk.vmdk"), "name": "e", **guest},
        {"path": str(box), "name": "f", **guest, "host": "pve9"},
    ]
    expected = [
        "a: box.vmdk: cach: there is no such option; did you mean cache? (not-understood)",
        "a: box.vmdk: queues=1: is not allowed; write a whole number of at least 2 (not-understood)",
        "b: boot=scsi5: the guest has no such device; it will have scsi0 (not-possible)",
        "c: disks: there is no box; write one of box.vmdk (disk-unknown)",
        "d: pool=nopool: there is no such pool that the user may see; make one, or leave it out (pool-unknown)",
        "d: net0: bridge=vmbr77: there is no such bridge on pve1 that the user may see; write one of vmbr0 "
        "(bridge-unknown)",
        f"e: disk.vmdk: {head.name} beside it goes on from it, so this is the state before a snapshot; name "
        f"{head.name}, or the folder; or, if that old state is what you want, move the snapshots away (snapshot-later)",
        "f: source 6: host=pve9: it is no host of this play; write one of pve1, or leave it out (source-wrong)",
    ]
    for check in (True, False):
        run = site.run(*sources, check=check)
        assert run.code != 0
        stopped = run.task("diskwright.proxmox.vmdk_import : Stop before anything is converted if anything is refused")
        assert sorted(stopped.result["msg"].splitlines()) == sorted(["Nothing was converted.", *expected])
        assert site.lab.writes() == []
        assert not list((site.folder.parent / "state").glob("**/*"))


def test_a_host_that_is_no_node_makes_no_guest(site: Site) -> None:
    site.env["PATH"] = os.environ["PATH"]
    box = vmdk.exported(site.folder, disk(1 * MIB), "box.vmdk")
    run = site.run({"path": str(box), "storage": "local", "memory": 64})
    assert run.code != 0
    assert "pve1 can't convert images: pvesm, the tool of a Proxmox VE node, says '" in run.text
    assert site.lab.writes() == []


def test_an_ova_by_the_api_alone(site: Site) -> None:
    """Inspected on the controller, uploaded, imported by PVE; a second run neither uploads nor imports."""
    first, second = disk(1 * MIB, seed=7), disk(2 * MIB, seed=8)
    source = {"upload_from": str(ova(site.folder, first, second)), "storage": "local"}
    run = site.run(source, vmdk_import_route="api")
    assert run.code == 0, run.text
    assert (site.content(100, "scsi0"), site.content(100, "scsi1")) == (first, second)
    assert site.lab.config(100)["boot"] == "order=scsi0"
    written = len(site.lab.writes())
    settled(site.run(source, vmdk_import_route="api"))
    assert len(site.lab.writes()) == written


# ---- the guide


def test_the_guide(site: Site, tmp_path: Path) -> None:
    """Every declaration of docs/from-vmware.md is carried out, in one run, in a folder of this test."""
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```$", (TOP / "docs" / "from-vmware.md").read_text("utf-8"))
    data, win = disk(1 * MIB, seed=3), disk(1 * MIB, seed=4)
    vmdk.flat(folder_of(site, "data"), data, "data.vmdk")
    vmdk.sparse(folder_of(site, "win1"), win, "win1.vmdk")
    first, second = disk(1 * MIB, seed=5), disk(2 * MIB, seed=6)
    ova(site.folder, first, second)
    exports = folder_of(site, "exports")
    for number in (1, 2):
        ova(exports, disk(1 * MIB, seed=10 + number), name=f"app{number}0")
    copied = [disk(1 * MIB, seed=20 + number) for number in (1, 2)]
    for number, content in enumerate(copied, 1):
        (site.folder / "copied" / f"box{number}").mkdir(parents=True)
        vmdk.flat(site.folder / "copied" / f"box{number}", content)
    words = {"vmdk_import_state_dir": str(tmp_path / "state")}
    by_host: dict[str, dict[str, Any]] = {}
    for block in blocks:  # what is for one host is said together, to save runs
        given = yaml.safe_load(block.replace("/srv/vmware", str(site.folder)))
        said = by_host.setdefault("localhost" if given.get("vmdk_import_route") == "api" else "pve1", dict(words))
        said |= {**given, "vmdk_import_sources": [*said.get("vmdk_import_sources", []), *given["vmdk_import_sources"]]}
    role = {"role": "diskwright.proxmox.vmdk_import"}
    told = {"name": "Said afterwards", "ansible.builtin.debug": {"var": "vmdk_import_report"}}
    base = {"gather_facts": False, "roles": [role], "tasks": [told]}
    plays = [{"hosts": host, "vars": said, **base} for host, said in by_host.items()]
    run = run_playbook(plays, site.env, inventory={"all": {"hosts": {"localhost": {}, "pve1": {}}}}, cwd=tmp_path)
    assert run.code == 0, run.text
    told_of = [task.result["vmdk_import_report"] for task in run.tasks if task.task == "Said afterwards"]
    assert [row["status"] for rows in told_of for row in rows] == ["imported"] * 8
    guests = {guest.conf.values["name"]: guest.vmid for guest in site.lab.cluster.guests()}
    assert sorted(guests) == ["app1", "app10", "app20", "box1", "box2", "db1", "web1", "win1"]
    assert (guests["db1"], guests["win1"]) == (120, 140)
    assert site.content(120, "scsi1") == data.ljust(4 * MIB, b"\0")
    assert site.lab.config(120)["boot"] == "order=scsi0"
    assert site.content(guests["web1"], "scsi0") == first
    assert site.content(guests["web1"], "scsi1") == second.ljust(4 * MIB, b"\0")
    assert "backup=0" in site.lab.config(guests["web1"])["scsi1"]
    assert site.content(140, "sata0") == win.ljust(4 * MIB, b"\0")
    assert site.lab.config(140)["scsihw"] == "virtio-scsi-single"
    assert site.lab.config(guests["app20"])["tags"] == "from-vmware"
    for number, content in enumerate(copied, 1):
        assert site.content(guests[f"box{number}"], "scsi0") == content.ljust(4 * MIB, b"\0")
        assert site.lab.config(guests[f"box{number}"])["memory"] == "2048"
    assert "bridge=vmbr0" in site.lab.config(guests["app20"])["net0"]
    assert site.content(guests["app1"], "scsi0").startswith(b"so.vmdk of the lab\n")
    assert {path.name for path in (tmp_path / "import-report").iterdir()} == {
        "vmdk-import-pve1.json",
        "vmdk-import-pve1.md",
    }


# ---- each kind of VMDK


def split(kind: str, create_type: str, build: Callable[[bytes], bytes], folder: Path, content: bytes) -> Path:
    """A disk in extents of 40 MiB."""
    cut, lines = 40 * MIB, []
    for number, at in enumerate(range(0, len(content), cut), 1):
        part = content[at : at + cut]
        write(folder, f"disk-s{number:03d}.vmdk", build(part))
        offset = " 0" if kind in ("FLAT", "VMFS") else ""
        lines.append(f'RW {sectors(len(part))} {kind} "disk-s{number:03d}.vmdk"{offset}')
    return write(folder, "disk.vmdk", descriptor(create_type, lines))


KINDS: dict[str, Callable[[Path, bytes], Path]] = {
    "monolithicSparse": vmdk.sparse,
    "streamOptimized": vmdk.exported,
    "monolithicFlat": vmdk.flat,
    "vmfs": lambda folder, content: vmdk.flat(folder, content, kind="VMFS", create_type="vmfs"),
    "twoGbMaxExtentFlat": partial(split, "FLAT", "twoGbMaxExtentFlat", lambda part: part),
    "twoGbMaxExtentSparse": partial(
        split, "SPARSE", "twoGbMaxExtentSparse", lambda part: vmdk.hosted(len(part), grains(part, 65536))
    ),
    "vmfsSparse": partial(split, "VMFSSPARSE", "vmfsSparse", lambda part: vmdk.cowd(len(part), grains(part, 512))),
    "seSparse": partial(split, "SESPARSE", "seSparse", lambda part: vmdk.sesparse(len(part), grains(part, 4096))),
}


@pytest.mark.slow
def test_each_kind_of_vmdk_starts(site: Site, tmp_path: Path) -> None:
    """One run imports a guest of each kind; each starts from what was made of it, and a second run changes nothing."""
    tiny_linux.require()
    raw = tmp_path / "disk.raw"
    payload = tiny_linux.boot_disk(raw, 1)
    sources = []
    for kind, make in KINDS.items():
        path = make(folder_of(site, kind), raw.read_bytes())
        sources.append({"path": str(path), "name": kind, "storage": "local-lvm", "memory": 256, "ostype": "l26"})
    run = site.run(*sources)
    assert run.code == 0, run.text
    for guest in site.lab.cluster.guests():
        if guest.vmid != GUESTS[0]["vmid"]:
            assert site.content(guest.vmid, "scsi0") == raw.read_bytes(), site.lab.config(guest.vmid)["name"]
            console = tiny_linux.boot(the_guest(site.lab, guest.vmid))
            assert says(console, payload), console
    settled(site.run(*sources))
