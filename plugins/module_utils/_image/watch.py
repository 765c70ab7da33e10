# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The controller's look at a conversion on a node: how far it is, and whether there is still somebody at it. Pure."""

from __future__ import annotations

import time
import typing as t

from .progress import SEEN, line, read, worker
from .worker import files

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from .progress import Progress
    from .worker import Worker

#: What to do about a run that was ended.
AGAIN = "What is safely written is kept; run again: it goes on from there"
#: Seconds for a module that is gone to have left its result, and for one that was started to say its first word.
_GRACE, _SILENT = 10.0, 300.0


class Watch:
    """Looks at the module on its node, and notices when it is gone without having left a result.

    :ivar gone: its process has ended, as far as the last look knows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worker: Worker | None = None
        self._boot = ""
        self._told = ""
        self._begun = clock()
        self._since = 0.0
        self.gone = False

    def command(self, path: str) -> str:
        """What a shell on the node is to run. It gives lines: the progress, the machine's start, the process.

        :param path: the progress file, quoted for a shell.
        """
        others = " ".join(files(self._worker.pid if self._worker else 0))
        return f"touch {path}{SEEN}; cat {path}; echo; cat {others} 2>/dev/null || :"

    def look(self, said: str) -> list[Progress]:
        """Take what that gave, or nothing if the node can't be asked, and give the progress in it."""
        text, boot, stat = [*said.split("\n"), "", "", ""][:3]
        images = read(text)
        self._told = "; ".join(map(line, images)) or self._told
        if boot:
            known, self._worker = self._worker is not None, worker(text) or self._worker
            restarted = bool(self._boot) and boot != self._boot
            self._boot = self._boot or boot
            ended = known and self._worker is not None and self._worker.gone(boot, stat)
            self._note(restarted or ended)
        return images

    def _note(self, gone: bool) -> None:
        if gone and not self.gone:
            self._since = self._clock()
        self.gone = gone

    @property
    def lost(self) -> bool:
        """Whether it is gone for so long, or has been silent for so long, that no result will come."""
        if self._worker is None and not self.gone:
            return self._clock() - self._begun > _SILENT
        return self.gone and self._clock() - self._since > _GRACE

    @property
    def loss(self) -> str:
        """What to say then."""
        last = f" (the last that was seen of it: {self._told})" if self._told else ""
        return (
            f"image_convert is gone from the node and has left no result{last}: the node was started anew, or somebody "
            f"or the kernel, for want of memory, has ended it. {AGAIN}"
        )
