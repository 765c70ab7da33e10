# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks for images that the inspector does not survive, guided by which of its lines they reach.

    pip install atheris
    PYTHONPATH=tests:.cache/collections python -m images.fuzz -max_total_time=1200

atheris is no requirement of the tests: unit/_image/test_mutations.py does the same with hypothesis, unguided.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ansible_collections"]):
    from images.mutate import LARGE, NUMBERS, Edit, attempt, seeds

SEEDS = seeds()


def one(data: bytes, folder: Path) -> None:
    """Damage an image as the fuzzer says, and inspect it."""
    chooser = atheris.FuzzedDataProvider(data)
    seed = SEEDS[chooser.ConsumeIntInRange(0, len(SEEDS) - 1)]
    edits = []
    for _edit in range(chooser.ConsumeIntInRange(1, 4)):
        file, place = chooser.ConsumeIntInRange(0, 3), chooser.ConsumeIntInRange(0, 999)
        kind = chooser.ConsumeIntInRange(0, 3)
        if kind == 0:
            written = chooser.PickValueInList(list(NUMBERS)).to_bytes(4, "little")
        elif kind == 1:
            written = chooser.PickValueInList(list(LARGE)).to_bytes(8, "little")
        else:
            written = chooser.ConsumeBytes(chooser.ConsumeIntInRange(0, 24))
        edits.append(Edit(file, place, written))
    target = folder / seed.name
    target.mkdir(exist_ok=True)
    attempt(target, seed, edits, None)


def main() -> None:
    """Run until told to stop, or until something is found."""
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: one(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
