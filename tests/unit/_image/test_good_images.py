# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every image that must be read: its bytes are those that were put in, and those that other programs read."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.checksum import content_sha256
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.inspect import inspect
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.runs import Kind
from ansible_collections.diskwright.proxmox.plugins.module_utils._image.verify import manifest
from images import GOOD, Good
from images.good import DISSECT, QEMU
from unit._image.reading import by_dissect, by_qemu, check_laws, read_runs


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_good(good: Good, tmp_path: Path) -> None:
    path, content = good.make(tmp_path)
    with inspect(str(path), good.member) as source:
        assert (source.format, source.subformat) == (good.format, good.subformat)
        assert (source.virtual_size, len(source.chain)) == (len(content), good.chain)
        manifest(source)
        assert content_sha256(source) == hashlib.sha256(content).hexdigest()
        if source.native:
            runs = check_laws(source)
            assert read_runs(source) == content
            stored = sum(run.length for run in runs if run.kind is not Kind.ZERO)
            assert stored <= source.allocated or len(source.chain) > 1
            assert 0 < source.allocated <= source.virtual_size
            check_slices(source, content)
        assert source.unchanged()
        fingerprint = source.fingerprint
    with inspect(str(path), good.member) as source:
        assert source.fingerprint == fingerprint
    if DISSECT in good.readers:
        assert by_dissect(path) == content
    if QEMU in good.readers:
        assert by_qemu(path, good.format) == content


def check_slices(source, content: bytes) -> None:
    """Any part of the disk can be read by itself, at any byte: grains are cut, in tables and extents as well."""
    chance = random.Random(len(content))
    places = [0, 1, len(content) - 1, 65536, 16 * 1024**2, 32 * 1024**2 - 1, 32 * 1024**2]
    places += [chance.randrange(len(content)) for _place in range(12)]
    for start in places:
        end = min(start + chance.choice((1, 511, 4096, 70_000, 300_000)), len(content))
        if start < end:
            assert read_runs(source, start, end) == content[start:end], (start, end)
    assert list(source.runs(len(content))) == []


def test_every_subformat_is_there() -> None:
    from ansible_collections.diskwright.proxmox.plugins.module_utils._image.vmdk_descriptor import SUBFORMATS

    assert {good.subformat for good in GOOD} - {""} == set(SUBFORMATS)
    assert len({good.name for good in GOOD}) == len(GOOD)
