# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of Windows releases: it fits itself, PVE's names, and what the sources say."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._policy.facts import OS_FAMILIES
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows import releases
from ansible_collections.diskwright.proxmox.plugins.module_utils._windows.releases import (
    ISOS,
    TABLE,
    Edition,
    Registry,
    Signature,
    UnknownReleaseError,
    find_iso,
    find_release,
    releases_of,
)
from hypothesis import given
from hypothesis import strategies as st

# virtio-win-pkg-scripts, util/filemap.py: SUPPORTED_OSES.
FOLDERS = {
    "xp", "2k3", "2k8", "2k8R2", "w7", "w8", "w8.1", "2k12", "2k12R2", "w10", "2k16", "2k19", "w11", "2k22", "2k25",
}  # fmt: skip

REAL = [
    ("5.1", 2600, Edition.CLIENT, "xp"),
    ("5.2", 3790, Edition.CLIENT, "xp-x64"),
    ("5.2", 3790, Edition.SERVER, "2003"),
    ("6.0", 6002, Edition.CLIENT, "vista"),
    ("6.0", 6003, Edition.SERVER, "2008"),
    ("6.1", 7601, Edition.CLIENT, "7"),
    ("6.1", 7601, Edition.SERVER, "2008r2"),
    ("6.2", 9200, Edition.CLIENT, "8"),
    ("6.2", 9200, Edition.SERVER, "2012"),
    ("6.3", 9600, Edition.CLIENT, "8.1"),
    ("6.3", 9600, Edition.SERVER, "2012r2"),
    ("10.0", 10240, Edition.CLIENT, "10"),
    ("10.0", 19045, Edition.CLIENT, "10"),
    ("10.0", 14393, Edition.SERVER, "2016"),
    ("10.0", 17763, Edition.SERVER, "2019"),
    ("10.0", 22000, Edition.CLIENT, "11"),
    ("10.0", 26200, Edition.CLIENT, "11"),
    ("10.0", 20348, Edition.SERVER, "2022"),
    ("10.0", 26100, Edition.SERVER, "2025"),
]


@pytest.mark.parametrize(("version", "build", "edition", "key"), REAL)
def test_real_systems(version: str, build: int, edition: Edition, key: str) -> None:
    assert find_release(version, build, edition).key == key


def test_every_row_is_a_real_system() -> None:
    assert {key for *_, key in REAL} == TABLE.keys()


def test_registry_of_windows_10_still_says_6_3() -> None:
    assert find_release("6.3", 20348, Edition.SERVER).key == "2022"
    assert find_release("6.3", 9600, Edition.SERVER).key == "2012r2"


@pytest.mark.parametrize(
    ("version", "build", "edition"),
    [
        ("5.0", 2195, Edition.CLIENT),
        ("10.0", 26101, Edition.SERVER),
        ("10.0", 29000, Edition.CLIENT),
        ("10.0", 19046, Edition.CLIENT),
        ("6.1", 9200, Edition.CLIENT),
    ],
)
def test_unknown_systems_are_named_and_never_guessed(version: str, build: int, edition: Edition) -> None:
    named = rf"Windows {version}, build {build} \({edition.value}\) is not known"
    with pytest.raises(UnknownReleaseError, match=named):
        find_release(version, build, edition)


@given(st.sampled_from(["5.1", "6.1", "6.3", "10.0"]), st.integers(0, 40000), st.sampled_from(Edition))
def test_a_build_fits_one_row_at_most(version: str, build: int, edition: Edition) -> None:
    try:
        row = find_release(version, build, edition)
    except UnknownReleaseError:
        return
    assert row.edition is edition
    assert row.builds[0] <= build <= row.builds[1]


def test_ostypes_are_those_of_pve() -> None:
    windows = {name for name, family in OS_FAMILIES.items() if family == "windows"}
    assert {row.ostype for row in TABLE.values()} | {"w2k"} == windows


def test_folders_are_those_of_the_iso() -> None:
    assert {row.folder for row in TABLE.values()} == FOLDERS


def test_releases_of_an_ostype() -> None:
    assert [row.key for row in releases_of("win8")] == ["8", "2012", "8.1", "2012r2"]
    assert releases_of("l26") == ()


def test_buses() -> None:
    assert TABLE["2003"].buses == ("ide", "virtio")
    assert TABLE["2008"].buses == ("ide", "sata", "scsi", "virtio")


def test_old_releases_need_old_isos() -> None:
    assert TABLE["2012r2"].takes("0.1.215")
    assert not TABLE["2012r2"].takes("0.1.217")
    assert not TABLE["2012r2"].takes("0.1.300")
    assert not TABLE["2012r2"].takes("2.0")
    assert TABLE["2022"].takes("0.1.300")


def test_signatures() -> None:
    assert TABLE["7"].signature_on("amd64") is Signature.CROSS_SHA1
    assert TABLE["7"].signature_on("x86") is Signature.NONE
    assert TABLE["10"].signature_on("x86") is Signature.MICROSOFT


def test_recommended_isos_load() -> None:
    assert [row.key for row in TABLE.values() if not row.takes(row.iso)] == []


def test_isos_for_setup() -> None:
    assert TABLE["2016"].iso_for_setup == "0.1.240"
    assert TABLE["2022"].iso_for_setup == TABLE["2022"].iso == "0.1.271"


def test_isos_are_in_order() -> None:
    numbers = [iso.number for iso in ISOS.values()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("name", ["0.1.271", "0.1.271-1", "virtio-win-0.1.271", "virtio-win-0.1.271.iso"])
def test_isos_have_many_names(name: str) -> None:
    iso = find_iso(name)
    assert iso.file_name == "virtio-win-0.1.271.iso"
    assert iso.url.endswith("/archive-virtio/virtio-win-0.1.271-1/virtio-win-0.1.271.iso")


def test_unknown_iso() -> None:
    with pytest.raises(UnknownReleaseError, match=r"virtio-win 0\.1\.999 is not known; known are 0\.1\.141, "):
        find_iso("0.1.999")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"builds": (2, 1)}, "builds"),
        ({"architectures": ("arm64",)}, "architectures"),
        ({"drivers": ("viostor",)}, "drivers"),
        ({"legacy_bus": "ide"}, "legacy_bus"),
        ({"registry": Registry.CRITICAL_DEVICES}, "registry"),
        ({"iso": "0.1.272"}, "iso"),
        ({"last_iso": "0.1.141"}, "iso"),
        ({"because": ""}, "texts"),
        ({"setup_iso": "0.1.240"}, "texts"),
        ({"setup_iso": "0.1.241", "setup_because": "so"}, "setup_iso"),
    ],
)
def test_a_wrong_row_is_not_built(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^2022: {named}$"):
        dataclasses.replace(TABLE["2022"], **changes)


def test_rows_that_overlap_are_not_built() -> None:
    twin = dataclasses.replace(TABLE["2022"], key="2023")
    with pytest.raises(ValueError, match="2022 and 2023 are not told apart"):
        releases._checked((TABLE["2022"], twin))


@pytest.mark.parametrize(
    "changes",
    [{"build": "0.1.2"}, {"digests": ("abc",)}, {"defect": "it stops", "source": "scripts, make-repo.py"}],
)
def test_a_wrong_iso_is_not_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"0\.1\."):
        dataclasses.replace(ISOS["0.1.271"], **changes)
