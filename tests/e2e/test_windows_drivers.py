# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""windows_drivers against played Windows releases: what it reads, stages and guards, what it refuses, lost answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.runner import Result
from ansible_collections.diskwright.proxmox.plugins.module_utils._ansible.windows_drivers import (
    WindowsDrivers,
    windows_drivers_spec,
)
from ansible_collections.diskwright.proxmox.plugins.module_utils._core.errors import DiskwrightError
from e2e.kit import client, started
from lab import Lab
from lab.agent import agent_of
from lab.driverfiles import VERSION, VIRTIO_WIN, iso
from lab.windows import RELEASES, Service, guid, windows_of

ISO = "local:iso/virtio-win-0.1.271.iso,media=cdrom"
CONFIG = {"agent": 1, "boot": "order=sata0", "scsihw": "virtio-scsi-single", "ide2": ISO,
          "sata0": "local-lvm:vm-100-disk-0,size=64M", "scsi0": "local-lvm:vm-100-disk-1,size=64M"}  # fmt: skip


@contextmanager
def lab_with(windows: Mapping[str, Any] | str, **config: Any) -> Iterator[Lab]:
    guest = {"vmid": 100, "name": "win1", "running": True, "agent": {"windows": windows},
             "config": {key: value for key, value in {**CONFIG, **config}.items() if value is not None}}  # fmt: skip
    with started({"guests": [guest]}, time_scale=0.01) as lab:
        yield lab


def run(lab: Lab, *, check: bool = False, **options: Any) -> Result:
    defaults = {name: option.get("default") for name, option in windows_drivers_spec().items()}
    with client(lab) as connection:
        work = WindowsDrivers(connection, {**defaults, "task_timeout": 20, "vmid": 100, **options})
        work.prepare()
        if not check:
            work.execute()
        return work.result(executed=not check)


def twice(lab: Lab, **options: Any) -> Result:
    """Check mode, a real run that does the same, and a run that has nothing left to do."""
    check = run(lab, check=True, **options)
    real = run(lab, **options)
    assert (real.changed, real.diff) == (check.changed, check.diff)
    again = run(lab, **options)
    assert not again.changed, again.diff
    return real


# ---- reading


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_release_in_two_languages(release: str, language: str) -> None:
    with lab_with({"release": release, "language": language}) as lab:
        found = run(lab).data["gathered"]
        old = RELEASES[release][4] is None
        assert (found["release"], found["build"], found["architecture"]) == (release, RELEASES[release][0], "amd64")
        assert (found["boot_disk"]["bus"], found["boot_disk"]["paravirtual"]) == ("sata", False)
        assert found["drivers"]["vioscsi"]["missing"] == ["vioscsi is not installed"]
        assert found["letters"] == ({} if old else {"C:": guid("volume", "local-lvm:vm-100-disk-0"),
                                                    "D:": guid("volume", "local-lvm:vm-100-disk-1")})  # fmt: skip
        assert (found["iso"] or {}).get("version") == (None if old else "0.1.271")
        assert [name for name in agent_of(lab.guest(100)).files if "diskwright" in name] == []


def test_labels_with_umlauts_arrive() -> None:
    with lab_with({"release": "10", "language": "de"}) as lab:
        assert run(lab).data["gathered"]["volumes"][0]["label"] == "Übungsrechner"


def test_reading_writes_nothing_but_its_script() -> None:
    with lab_with("2022") as lab:
        before = vars(windows_of(lab.guest(100))).copy()
        assert run(lab).changed is False
        files = {request.params["file"] for request in lab.writes("/agent/file-write")}
        assert all(name.startswith(r"C:\Windows\Temp\diskwright-") and name.endswith(".ps1") for name in files)
        after = vars(windows_of(lab.guest(100)))
        assert {key: after[key] for key in before if not key.startswith("_")} == {
            key: value for key, value in before.items() if not key.startswith("_")
        }


def test_a_guest_that_is_no_windows() -> None:
    seed = {"guests": [{"vmid": 100, "running": True, "agent": {}, "config": {"agent": 1}}]}
    with started(seed) as lab, pytest.raises(DiskwrightError, match="no Windows runs inside, says its agent"):
        run(lab)


# ---- staging


@pytest.mark.parametrize("release", [name for name, row in RELEASES.items() if row[4]])
def test_staging_from_the_iso(release: str) -> None:
    """vioscsi is proven to start Windows, because a disk hangs on it; viostor waits in the store."""
    with lab_with(release) as lab:
        result = twice(lab, state="staged")
        drivers = result.data["gathered"]["drivers"]
        assert drivers["vioscsi"]["boot_critical"]
        assert drivers["viostor"]["missing"] == ["viostor is in the driver store, and was never installed for a device"]
        assert windows_of(lab.guest(100)).services["vioscsi"].start == 0
        assert "vioscsi  100.95.104.26200 staged from E:\\vioscsi\\" in result.diff
        assert [text.partition(":")[0] for text in result.warnings] == ["win1 (100 on pve1)"]
        assert "virtio-win-0.1.271: Windows Server 2022 and 2025 stop with a blue screen" in result.warnings[0]


def test_staging_from_a_folder(tmp_path: Path) -> None:
    for name, data in iso(names=["vioscsi"], folders=["2k22"]).items():
        file = tmp_path / name.upper()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (tmp_path / "VIOSCSI/2K22/AMD64/VIOSCSI.PDB").write_bytes(b"x" * (5 << 20))
    with lab_with("2022", ide2=None) as lab:
        result = twice(lab, state="staged", drivers=["vioscsi"], folder=str(tmp_path))
        assert result.data["gathered"]["drivers"]["vioscsi"]["boot_critical"]
        assert windows_of(lab.guest(100)).store["vioscsi"] == VERSION
        assert [name for name in agent_of(lab.guest(100)).files if "diskwright" in name] == []


def test_without_a_disk_on_it_a_driver_is_staged_and_not_critical() -> None:
    with lab_with("2022", scsi0=None) as lab:
        drivers = twice(lab, state="staged").data["gathered"]["drivers"]
        assert not drivers["vioscsi"]["boot_critical"]


@pytest.mark.parametrize(
    ("windows", "config", "options", "message"),
    [
        ("2022", {"ide2": None}, {}, "state=staged: no drive of the guest has a driver ISO .*attach virtio-win-0.1"),
        ("2022", {}, {"folder": "/nosuch"}, "folder=/nosuch: there is no such folder where the task runs"),
        ("2008", {}, {}, "this Windows has no PowerShell, so nothing can be set; use windows_inject"),
        (
            {"release": "2022", "media": {"virtio-win-0.1.271": iso(signer=VIRTIO_WIN, names=["vioscsi"])}}, {}, {},
            "vioscsi: Windows Server 2022 Standard does not load E:.*signed by Red Hat Inc.*\n.*viostor: there is none",
        ),
    ],
    ids=["no-iso", "no-folder", "no-powershell", "test-signed"],
)  # fmt: skip
def test_refused_before_anything_is_done(windows: Any, config: Any, options: Any, message: str) -> None:
    with lab_with(windows, **config) as lab:
        store, services = dict(windows_of(lab.guest(100)).store), dict(windows_of(lab.guest(100)).services)
        with pytest.raises(DiskwrightError, match=f"(?s){message}"):
            run(lab, state="staged", **options)
        after = windows_of(lab.guest(100))
        assert (after.store, after.services) == (store, services)


# ---- guarding, and back


def test_guard_and_back() -> None:
    with lab_with({"release": "10", "bitlocker": {"C:": "on", "D:": "suspended"}, "san_policy": 2}) as lab:
        before = run(lab).data["gathered"]
        assert (before["fast_startup"], before["san_policy"]) == (True, "offline_shared")
        guarded = twice(lab, bitlocker="suspended", fast_startup=False, san_policy="online_all")
        assert guarded.diff == (
            "win1 (100 on pve1, Windows 10 Pro)\n"
            "  ~ C:            BitLocker suspended for 3 starts\n"
            "  ~ fast startup  off\n"
            "  ~ SAN policy    offline_shared -> online_all\n"
        )
        assert windows_of(lab.guest(100)).bitlocker == {"C:": "suspended", "D:": "suspended"}
        twice(lab, bitlocker="resumed", bitlocker_volumes=["C:"], fast_startup=True, san_policy="offline_shared")
        assert run(lab).data["gathered"] == before


def test_disks_come_online_and_letters_back() -> None:
    with lab_with({"release": "2022", "offline": {"local-lvm:vm-100-disk-1"}}) as lab:
        data = guid("volume", "local-lvm:vm-100-disk-1")
        found = run(lab).data["gathered"]
        assert [disk["offline"] for disk in found["disks"]] == [False, True]
        assert data not in found["letters"].values()
        twice(lab, online=[found["disks"][1]["id"]])
        result = twice(lab, letters={"X:": data})
        assert result.data["gathered"]["letters"]["X:"] == data


def test_a_controller_that_windows_has_switched_off_can_start_it_again() -> None:
    with lab_with({"release": "2022", "services": {"storahci": Service(0, 3)}}, boot="order=scsi0") as lab:
        windows_of(lab.guest(100)).services["vioscsi"] = Service(0)
        assert run(lab).data["gathered"]["controllers"]["storahci"]["start_override"] == 3
        twice(lab, boot_start=["storahci", "msahci"])
        assert windows_of(lab.guest(100)).services["storahci"] == Service(0)


# ---- when things go wrong


@pytest.mark.parametrize("path", ["/agent/exec$", "/agent/exec-status", "/agent/file-write", "/agent/file-read"])
@pytest.mark.parametrize("nth", range(4))
def test_lost_answers_change_nothing_about_the_result(path: str, nth: int) -> None:
    """The nth call of each kind loses its answer, and everything is done once all the same."""
    method = "GET" if path.endswith(("status", "read")) else "POST"
    with lab_with("2022") as lab:
        seen = [0]
        take = lab.faults._take

        def take_nth(rules: Any, asked: str, where: str) -> Any:
            if asked == method and re.search(path, where) and rules is lab.faults._lost:
                seen[0] += 1
                return object() if seen[0] == nth + 1 else None
            return take(rules, asked, where)

        lab.faults._take = take_nth  # type: ignore[method-assign]
        result = run(lab, state="staged", fast_startup=False, san_policy="online_all")
        assert result.data["gathered"]["drivers"]["vioscsi"]["boot_critical"]
        assert [action["state"] for action in result.data["actions"]] == ["done"] * 3
        assert not run(lab, state="staged", san_policy="online_all").changed


@pytest.mark.parametrize("script", ["gather", "stage", "guard"])
def test_windows_refuses(script: str) -> None:
    with lab_with({"release": "2022", "language": "de", "fails": script}) as lab:
        with pytest.raises(DiskwrightError, match=f"Windows refused \\({script}\\): Zugriff verweigert – der Daten"):
            run(lab, state="staged", san_policy="online_all")
        assert [name for name in agent_of(lab.guest(100)).files if "diskwright" in name] == []


def test_windows_that_only_says_that_it_did() -> None:
    with lab_with("2022") as lab:
        windows = windows_of(lab.guest(100))
        windows.guard = lambda inside, variables: {}  # type: ignore[method-assign]
        with pytest.raises(DiskwrightError, match="Windows was told, and it is not so: SAN policy: offline_shared"):
            run(lab, san_policy="online_all")


def test_a_device_that_waits_for_a_restart() -> None:
    with lab_with({"release": "2022", "needs_restart": True}) as lab:
        assert run(lab, state="staged").data["restart_required"] is True


def test_a_script_is_text_that_windows_reads_as_utf_8() -> None:
    with lab_with("2022") as lab:
        run(lab)
        contents = [request.params["content"] for request in lab.writes("/agent/file-write")]
        assert all(text.startswith("77u/") for text in contents)  # the byte order mark in base64
