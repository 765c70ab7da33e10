# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""A confined view: an inspected image as QEMU's tools may open it.

QEMU gets block nodes instead of a file name. Each names its driver, so that nothing is probed. Each file in it is one
of the source's open files, as ``/proc/self/fd/N``: what was checked is what QEMU opens, whatever the path means by
then. A VMDK's descriptor is never the one that came with the image but one written here, in memory, whose every line
names such a file; ``backing`` is always said, so that no hint is followed. What QEMU still reads of the image itself
are grain tables, which the inspection has walked.

The view needs no folder and no links, so there is nothing to clean up after a crash.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass

from .qemu import place
from .runs import SECTOR, Kind

if t.TYPE_CHECKING:
    from .source import Member, Source

#: A block node as ``--blockdev`` takes it in JSON.
Node = dict[str, t.Any]

# How a line of a descriptor calls an extent with grain tables, by the image's subformat. All others are flat.
_SPARSE: t.Final = {
    "monolithicSparse": "SPARSE",
    "streamOptimized": "SPARSE",
    "twoGbMaxExtentSparse": "SPARSE",
    "vmfsSparse": "VMFSSPARSE",
    "seSparse": "SESPARSE",
}
# QEMU opens what its line says, and knows these types of text descriptors (block/vmdk.c, vmdk_open_desc_file).
_CREATE_TYPE: t.Final = {"VMFSSPARSE": "vmfsSparse", "SESPARSE": "seSparse"}
_CID: t.Final = "d15c0001"
_NO_PARENT: t.Final = "ffffffff"


@dataclass(frozen=True, slots=True)
class View:
    """An image for QEMU's tools.

    :param node: the block nodes. Read-only.
    :param fds: files that the tool must inherit (``pass_fds``): the source's and those of the view.
    :param own: those among them that belong to the view.
    """

    node: Node
    fds: tuple[int, ...]
    own: tuple[int, ...] = ()

    @property
    def filename(self) -> str:
        """The same for tools that take a file name, such as ``qemu-img compare``: no ``-f`` beside it."""
        return f"json:{json.dumps(self.node)}"

    def close(self) -> None:
        """Close what belongs to the view. The source stays open."""
        for fd in self.own:
            os.close(fd)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def confined(source: Source) -> View:
    """The view of a source.

    :returns: a context manager; what it holds can be used as long as the source is open.
    """
    if source.format == "vmdk":
        return _VmdkView(source).view()
    node: Node = {"driver": source.format, "read-only": True, "file": _whole_file(source, 0)}
    if source.format == "qcow2":
        node["backing"] = None
    return View(node, source.fds)


def file_node(fd: int) -> Node:
    """An open file as a node."""
    return {"driver": "file", "filename": place(fd), "read-only": True}


def _whole_file(source: Source, index: int) -> Node:
    """The image's own file; for a member of an archive, the part of the archive that it is."""
    file, node = source.files[index], file_node(source.fds[index])
    if not _is_member(source, index):
        return node
    return {"driver": "raw", "read-only": True, "offset": file.offset, "size": file.length, "file": node}


def _is_member(source: Source, index: int) -> bool:
    file = source.files[index]
    return file.offset != 0 or file.length != file.size


class _VmdkView:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._own: list[int] = []
        self._index = {file.name: index for index, file in enumerate(source.files)}

    def view(self) -> View:
        try:
            node = self._chain(0)
        except BaseException:
            for fd in self._own:
                os.close(fd)
            raise
        return View(node, (*self._source.fds, *self._own), tuple(self._own))

    def _chain(self, number: int) -> Node:
        """A member with its parents."""
        following = number + 1
        return self._node(number, self._chain(following) if following < len(self._source.chain) else None)

    def _node(self, number: int, parent: Node | None) -> Node:
        member = self._source.chain[number]
        word = _SPARSE.get(member.subformat, "FLAT")
        if word == "SPARSE" and len(member.files) == 1 and _is_member(self._source, self._index[member.name]):
            # No line can say where a member of an archive begins. The inspection takes those in one file alone.
            file = _whole_file(self._source, self._index[member.name])
        else:
            lines = self._flat(number) if word == "FLAT" else self._sparse(member, word)
            fd = self._descriptor(_CREATE_TYPE.get(word, f"twoGbMaxExtent{word.title()}"), lines, parent)
            if member.subformat == "streamOptimized":
                # QEMU looks for the footer of the extent where one of the descriptor would be (vmdk_open_vmdk4).
                os.ftruncate(fd, self._source.files[self._index[member.name]].size)
            file = file_node(fd)
        return {"driver": "vmdk", "read-only": True, "file": file, "backing": parent}

    def _descriptor(self, create_type: str, lines: list[str], parent: Node | None) -> int:
        text = [
            "# Disk DescriptorFile",
            "version=1",
            f"CID={_CID}",
            f"parentCID={_NO_PARENT if parent is None else _CID}",
            f'createType="{create_type}"',
            *lines,
            "",
        ]
        fd = self._memory()
        os.write(fd, "\n".join(text).encode())
        return fd

    def _memory(self) -> int:
        fd = os.memfd_create("diskwright-view")
        self._own.append(fd)
        return fd

    def _flat(self, number: int) -> list[str]:
        """Flat extents are what their runs are; zeros come from a file in memory that has a size and no content."""
        lines = []
        for run in self._source.member_runs(number):
            sectors = run.length // SECTOR
            if run.kind is Kind.DATA:
                lines.append(f'RW {sectors} FLAT "{place(self._source.fds[run.file])}" {run.offset // SECTOR}')
            else:
                fd = self._memory()
                os.ftruncate(fd, run.length)
                lines.append(f'RW {sectors} FLAT "{place(fd)}" 0')
        return lines

    def _sparse(self, member: Member, word: str) -> list[str]:
        fds = self._source.fds
        return [f'RW {sectors} {word} "{place(fds[index])}"' for index, sectors in member.extents]
