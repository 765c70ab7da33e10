# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""windows_inject on images with real NTFS: drivers get in and out, nothing else changes, nothing stays attached."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from ansible_collections.diskwright.proxmox.plugins.module_utils._image import guests
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import hive, releases
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import TABLE
from e2e import injecting, mounting
from e2e.documented import PLUGINS
from e2e.injecting import Node, disk_with, mounted, seen, windows_volume
from e2e.kit import play, run_playbook
from e2e.mounting import attached, digest
from winguest.authenticode import driver_file, signed
from winguest.hives import edit_hive, make_dirty
from winguest.media import all_files, inf_text, write_iso
from winguest.volumes import CONFIG, DRIVERS, encrypt, leave_log_open, mark_dirty

pytestmark = injecting.needs_it
BIN = Path("/usr/bin/python3")
HIVE = str(CONFIG / "SYSTEM")
BACKUPS = ("SYSTEM", "README.txt", "record.json")


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_iso(tmp_path_factory.mktemp("iso") / "virtio-win.iso", all_files())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a Windows Server 2022."""
    return windows_volume(tmp_path_factory.mktemp("server") / "volume")


@pytest.fixture
def node(tmp_path: Path, iso: Path) -> Iterator[Node]:
    yield Node(tmp_path, iso)
    assert attached(tmp_path) == []


@pytest.mark.parametrize(
    ("table", "name"), [("mbr", "disk.raw"), ("gpt", "disk.raw"), ("none", "disk.raw"), ("gpt", "disk.qcow2")]
)
def test_in_and_out(tmp_path: Path, node: Node, server: Path, table: str, name: str) -> None:
    disk = disk_with(tmp_path, server, table, name)
    before, (system, files) = digest(disk), seen(disk, tmp_path, table)

    planned = node.run(check=True, path=disk)
    assert digest(disk) == before
    done = node.run(path=disk)
    assert (done.changed, done.diff, done.data, done.warnings) == (True, planned.diff, planned.data, planned.warnings)
    assert done.data["injected"] == ["vioscsi", "viostor"]
    assert done.data["windows"]["title"] == "Windows Server 2022"
    assert done.data["partition"] == (0 if table == "none" else 2)
    assert "+ Windows\\System32\\drivers\\vioscsi.sys\n" in done.diff
    now, written = seen(disk, tmp_path, table)
    assert now["\\ControlSet001\\Services\\vioscsi"]["Start"] == ("REG_DWORD", 0)
    assert {path: values for path, values in now.items() if path in system} == system
    assert set(written) - set(files) == {
        *(str(DRIVERS / f"{driver}.sys") for driver in ("vioscsi", "viostor")),
        *(f"Windows/diskwright/{file}" for file in BACKUPS),
    }
    assert written["Windows/diskwright/SYSTEM"] == files[HIVE]

    between = digest(disk)
    again = node.run(path=disk)
    assert (again.changed, again.diff, digest(disk)) == (False, "", between)

    planned = node.run(check=True, path=disk, state="reverted", iso=None)
    gone = node.run(path=disk, state="reverted", iso=None)
    assert (gone.changed, gone.diff) == (True, planned.diff)
    back, left = seen(disk, tmp_path, table)
    assert back == system
    assert {**left, HIVE: b""} == {**files, HIVE: b""}
    assert not node.run(path=disk, state="reverted", iso=None).changed
    if name.endswith("qcow2"):
        subprocess.run(["qemu-img", "check", "-q", str(disk)], check=True)


def test_security_descriptors(tmp_path: Path, node: Node) -> None:
    """Who may read the old hive may read the new one and its backup; a new driver is as its neighbours are."""
    administrators, system = "01020000000000052000000020020000", "010100000000000512000000"
    entry = "00001400ff011f00" + system
    head = "0100048030000000400000000000000014000000" + "02001c0001000000"
    secret = bytes.fromhex(head + entry + administrators + system)

    def protect(root: Path) -> None:
        for path in (CONFIG, CONFIG / "SYSTEM", CONFIG / "SOFTWARE", DRIVERS / "disk.sys"):
            os.setxattr(root / path, "system.ntfs_acl", secret)

    disk = disk_with(tmp_path, windows_volume(tmp_path / "volume", change=protect))
    node.run(path=disk)
    backups = Path("Windows/diskwright")
    with mounted(injecting.volume_of(disk, tmp_path)) as root:
        found = {
            str(path): injecting.descriptor(root / path)
            for path in (CONFIG / "SYSTEM", DRIVERS / "vioscsi.sys", backups, *(backups / name for name in BACKUPS))
        }
    assert set(found.values()) == {secret}, found


# ---- refusals


def refused(node: Node, disk: Path, words: list[str], **params: Any) -> None:
    """A run is refused, in check mode as really, says why, and has written nothing."""
    before = digest(disk)
    for check in (True, False):
        with pytest.raises(DiskwrightError) as caught:
            node.run(check=check, path=disk, **params)
        for word in words:
            assert word in str(caught.value)
    assert digest(disk) == before


def hibernate(root: Path) -> None:
    (root / "hiberfil.sys").write_bytes(b"hibr" + bytes(4092))


def unfinished(name: str) -> Callable[[Path], None]:
    return lambda root: make_dirty(root / CONFIG / name)


def another(hive_name: str, tree: dict[str, Any]) -> Callable[[Path], None]:
    return lambda root: edit_hive(root / CONFIG / hive_name, tree)


CURRENT = ("Microsoft", "Windows NT", "CurrentVersion")
ENVIRONMENT = ("ControlSet001", "Control", "Session Manager", "Environment")


def nested(path: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    tree = values
    for name in reversed(path):
        tree = {name: tree}
    return tree


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hibernate, ["Windows is hibernated, or was shut down with fast startup on", "shutdown /s /f /t 0"]),
        (unfinished("SYSTEM"), ["the registry hive SYSTEM is dirty", "shut Windows down fully"]),
        (unfinished("SOFTWARE"), ["the registry hive SOFTWARE is dirty"]),
        (
            another("SOFTWARE", nested(CURRENT, {"CurrentBuildNumber": "29999"})),
            ["Windows 10.0, build 29999 (server) is not known", "Windows Server 2025"],
        ),
        (
            another("SYSTEM", nested(ENVIRONMENT, {"PROCESSOR_ARCHITECTURE": "ARM64"})),
            ["drivers=vioscsi: this Windows Server 2022 is for arm64", "there are drivers for amd64"],
        ),
        (another("SYSTEM", {"Select": {"Default": 7, "Current": 7}}), ["has no control set to boot from"]),
    ],
    ids=["hibernated", "dirty-system", "dirty-software", "unknown", "architecture", "no-control-set"],
)
def test_a_windows_that_must_not_be_written_to(
    tmp_path: Path, node: Node, change: Callable[[Path], None], words: list[str]
) -> None:
    disk = disk_with(tmp_path, windows_volume(tmp_path / "volume", change=change))
    refused(node, disk, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (mark_dirty, ["Windows wants to check the NTFS volume first", "chkdsk"]),
        (leave_log_open, ["changes wait in the journal of the NTFS volume", "shut Windows down fully"]),
        (encrypt, ["partition 2 is encrypted with BitLocker", "manage-bde -off C:"]),
    ],
)
def test_a_volume_that_must_not_be_written_to(
    tmp_path: Path, node: Node, server: Path, change: Callable[[Path], None], words: list[str]
) -> None:
    volume = tmp_path / "volume"
    volume.write_bytes(server.read_bytes())
    change(volume)
    refused(node, disk_with(tmp_path, volume), words)


def test_both_reasons_are_said_at_once(tmp_path: Path, node: Node, server: Path) -> None:
    volume = tmp_path / "volume"
    volume.write_bytes(server.read_bytes())
    mark_dirty(volume)
    leave_log_open(volume)
    refused(node, disk_with(tmp_path, volume), ["it is marked dirty", "changes wait in the journal"])


def test_a_disk_in_use(tmp_path: Path, node: Node, server: Path) -> None:
    disk = disk_with(tmp_path, server)
    with disk.open("r+b") as file, subprocess.Popen(["sleep", "60"], stdin=file) as user:
        try:
            refused(node, disk, [f"is open for writing (process {user.pid})", "shut the guest down"])
        finally:
            user.kill()


@pytest.mark.parametrize(
    ("status", "lock", "words"),
    [
        ("running", "", ["guest 120 on pve2 has local:120/vm-120-disk-0.qcow2 and runs; shut it down"]),
        ("unknown", "", ["guest 120 on pve2", "may run, which can't be found out from here"]),
        ("stopped", "backup", ["guest 120 on pve2", "is locked (backup); wait until it is not"]),
    ],
)
def test_a_guest_that_must_not_be_disturbed(
    tmp_path: Path, node: Node, server: Path, monkeypatch: pytest.MonkeyPatch, status: str, lock: str, words: list[str]
) -> None:
    """A guest of another node has the volume, and the cluster says what it does."""
    volumes, cluster = tmp_path / "images", tmp_path / "pve" / "nodes" / "pve2" / "qemu-server"
    volumes.mkdir()
    cluster.mkdir(parents=True)
    volume = "local:120/vm-120-disk-0.qcow2"
    lines = [f"lock: {lock}"] if lock else []
    (cluster / "120.conf").write_text("\n".join([*lines, f"sata0: {volume},size=32G", ""]))
    programs = mounting.fake_pvesm(tmp_path, volumes)
    (programs / "pvesh").write_text(f"#!/bin/sh\necho '[{{\"vmid\": 120, \"status\": \"{status}\"}}]'\n")
    (programs / "pvesh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(guests, "naming", functools.partial(guests.naming, root=str(tmp_path / "pve")))
    disk = disk_with(volumes, server, "gpt", "vm-120-disk-0.qcow2")
    before = digest(disk)
    for check in (True, False):
        with pytest.raises(DiskwrightError) as caught:
            node.run(check=check, volume=volume)
        assert [word for word in words if word not in str(caught.value)] == []
    assert digest(disk) == before


def test_no_windows(tmp_path: Path, node: Node, server: Path) -> None:
    disk = disk_with(tmp_path, server)
    refused(node, disk, ["there is no Windows on partition 1"], partition=1)
    refused(node, disk, ["there is no partition 9; there are 1, 2"], partition=9)


def test_two_windows(tmp_path: Path, node: Node, server: Path) -> None:
    from images.tables import MIB, mbr, place_in

    size = server.stat().st_size // 512
    disk = mbr(2 * server.stat().st_size + 8 * MIB, [(7, 2048, size), (7, 2048 + size, size)])
    for number in (0, 1):
        place_in(disk, (2048 + number * size) * 512, server)
    path = tmp_path / "two.raw"
    path.write_bytes(disk)
    refused(node, path, ["partitions 1, 2 have a Windows each; say which one with partition"])
    assert node.run(path=path, partition=2).data["partition"] == 2


def test_windows_xp_has_no_vioscsi(tmp_path: Path, node: Node) -> None:
    disk = disk_with(tmp_path, windows_volume(tmp_path / "volume", TABLE["xp"], "x86"))
    refused(node, disk, ["there is no vioscsi for Windows XP", "viostor"], drivers=["vioscsi"])
    assert node.run(path=disk).data["injected"] == ["viostor"]


Files = dict[str, bytes]
PLACE = "vioscsi/2k22/amd64/vioscsi"


def with_files(**changes: bytes) -> Files:
    files = all_files()
    for end, data in changes.items():
        files[f"{PLACE}.{end}"] = data
        files.pop(f"{PLACE}.cat", None)
    return files


PLAIN = driver_file()
TAMPERED = bytearray(signed(PLAIN, "microsoft"))
TAMPERED[0x401] ^= 1
WRONG_BUS = inf_text("vioscsi", TABLE["2022"], "amd64", bus_type=1).encode()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            lambda: with_files(sys=signed(PLAIN, "test")),
            ["signed by Red Hat Inc., certified by itself", "Microsoft's own signature", "allow_test_signed: true"],
        ),
        (lambda: with_files(sys=signed(PLAIN, "publisher")), ["certified by VeriSign", "Microsoft's own signature"]),
        (lambda: with_files(sys=PLAIN), ["is signed by nobody"]),
        (lambda: with_files(sys=bytes(TAMPERED)), ["it was changed after it was signed"]),
        (lambda: with_files(sys=signed(driver_file("x86"), "microsoft")), ["is for x86, and this Windows for amd64"]),
        (lambda: with_files(inf=WRONG_BUS), ["bus type 1, where vioscsi, 0, 1 and 10 are expected"]),
        (lambda: {"readme.txt": b"nothing"}, ["vioscsi/2k22/amd64/vioscsi.inf is not there", "virtio-win-0.1.271.iso"]),
    ],
    ids=["test-signed", "publisher", "unsigned", "tampered", "architecture", "bus-type", "not-there"],
)
def test_a_driver_that_windows_would_not_load(
    tmp_path: Path, node: Node, server: Path, files: Callable[[], Files], words: list[str]
) -> None:
    node.iso = write_iso(tmp_path / "other.iso", files())
    refused(node, disk_with(tmp_path, server), ["vioscsi", *words])


def test_test_signed_with_permission(tmp_path: Path, node: Node, server: Path) -> None:
    node.iso = write_iso(tmp_path / "other.iso", with_files(sys=signed(PLAIN, "test")))
    done = node.run(path=disk_with(tmp_path, server), drivers=["vioscsi"], allow_test_signed=True)
    assert done.changed
    assert done.data["drivers"]["vioscsi"]["test_signed"]
    assert any("only with test signing switched on" in text for text in done.warnings)
    node.iso = write_iso(tmp_path / "unsigned.iso", with_files(sys=PLAIN))
    other = disk_with(tmp_path, server, name="other.raw")
    refused(node, other, ["is signed by nobody"], drivers=["vioscsi"], allow_test_signed=True)


def test_an_iso_with_a_known_defect_is_warned_of(tmp_path: Path, node: Node, server: Path) -> None:
    node.iso = write_iso(tmp_path / "new.iso", all_files(), "virtio-win-0.1.285")
    done = node.run(check=True, path=disk_with(tmp_path, server))
    assert releases.ISOS["0.1.285"].defect in done.warnings[0]


def test_an_iso_that_is_too_new_for_an_old_windows(tmp_path: Path, node: Node) -> None:
    files = all_files()
    files["vioscsi/2k12R2/amd64/vioscsi.sys"] = signed(PLAIN, "test")
    del files["vioscsi/2k12R2/amd64/vioscsi.cat"]
    node.iso = write_iso(tmp_path / "new.iso", files, "virtio-win-0.1.240")
    disk = disk_with(tmp_path, windows_volume(tmp_path / "volume", TABLE["2012r2"]))
    refused(node, disk, ["use virtio-win-0.1.215.iso", "from 0.1.217 its drivers are signed for tests only"])


def test_what_is_missing_on_the_node(
    tmp_path: Path, node: Node, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disk_with(tmp_path, server)
    refused(node, disk, ["no.iso: can't be read: No such file"], iso=tmp_path / "no.iso")
    refused(node, disk, ["iso is missing"], iso=None)
    refused(node, disk, ["virt-v2v-in-place: it puts one driver in"], backend="virt-v2v-in-place")
    refused(node, disk, ["can't take anything back"], backend="virt-v2v-in-place", state="reverted")
    real = importlib.import_module

    def without_hivex(name: str) -> Any:
        if name == "hivex":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(hive.importlib, "import_module", without_hivex)
    words = ["apt-get install --no-install-recommends python3-hivex ntfs-3g", "apt would remove proxmox-ve"]
    refused(node, disk, words)


# ---- accidents


PROGRAM = """
import sys
sys.path[:0] = {path!r}
import winguest.hivex_here
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_inject import WindowsInject
work = WindowsInject({params!r})
work.prepare()
print("ready", flush=True)
work.execute()
"""


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("disk.raw", [0.0, 0.1, 0.25]),
        ("disk.qcow2", [0.2]),
        pytest.param("disk.raw", [0.02 * number for number in range(40)], marks=pytest.mark.slow),
        pytest.param("disk.qcow2", [0.04 * number for number in range(40)], marks=pytest.mark.slow),
    ],
    ids=["raw", "qcow2", "raw-often", "qcow2-often"],
)
def test_killed_and_run_again(tmp_path: Path, node: Node, server: Path, name: str, moments: list[float]) -> None:
    """Killed at moments that are spread over the writing; the next run finishes it, and takes everything back."""
    whole = tmp_path / "reference"
    whole.mkdir()
    disk = disk_with(whole, server, "gpt", name)
    original = seen(disk, tmp_path, "gpt")[0]
    node.run(path=disk)
    expected = seen(disk, tmp_path, "gpt")[0]
    for moment in moments:
        disk = disk_with(tmp_path, server, "gpt", name)
        params = node.params(path=disk)
        program = PROGRAM.format(path=os.environ["PYTHONPATH"].split(os.pathsep), params=params)
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"ready\n"
            time.sleep(moment)
            run.send_signal(signal.SIGKILL)
        node.run(path=disk)
        assert not node.run(path=disk).changed
        assert attached(tmp_path) == []
        assert seen(disk, tmp_path, "gpt")[0] == expected
        node.run(path=disk, state="reverted", iso=None)
        assert seen(disk, tmp_path, "gpt")[0] == original


# ---- as users run it


def test_examples(tmp_path: Path, iso: Path, server: Path) -> None:
    """The documentation's examples, on the Python that a Proxmox VE node has."""
    if subprocess.run([str(BIN), "-c", "import hivex, yaml"], capture_output=True, check=False).returncode:
        pytest.skip(f"{BIN} has no hivex (Debian: python3-hivex)")
    volumes = tmp_path / "images"
    volumes.mkdir()
    programs = mounting.fake_pvesm(tmp_path, volumes)
    disk_with(volumes, server, "gpt", "vm-120-disk-0.qcow2")
    disk_with(tmp_path, server, "mbr", "old1.raw")
    (tmp_path / "virtio-win-0.1.271.iso").symlink_to(iso)
    text = importlib.import_module(f"{PLUGINS}.modules.windows_inject").EXAMPLES
    text = text.replace("/var/lib/vz/template/iso", str(tmp_path)).replace("/mnt/import", str(tmp_path))
    tasks = []
    for task in yaml.safe_load(text):
        ours = "diskwright.proxmox.windows_inject" in task
        if ours:
            tasks.append({**task, "name": f"{task['name']} (check)", "check_mode": True, "diff": True})
        tasks.append({**task, "diff": True})
        if ours:
            again = {key: value for key, value in task.items() if key != "register"}
            tasks.append({**again, "name": f"{task['name']} (again)", "diff": True})
    defaults = {"diskwright.proxmox.windows_inject": {"state_dir": str(tmp_path / "state")}}
    env = {"PATH": f"{programs}{os.pathsep}/usr/sbin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    run = run_playbook(play(tasks, module_defaults=defaults), env, python=BIN)
    assert run.code == 0, run.text
    assert [task.task for task in run.tasks if task.status == "failed"] == []
    for task in yaml.safe_load(text):
        if "diskwright.proxmox.windows_inject" not in task:
            continue
        check, real, again = (run.task(f"{task['name']}{end}") for end in (" (check)", "", " (again)"))
        assert (check.changed, check.diff) == (real.changed, real.diff)
        assert real.changed
        assert not again.changed
    said = run.task("What it is").result["msg"]
    assert said == "Windows Server 2022 (20348) can start with vioscsi, viostor"
    assert attached(tmp_path) == []
