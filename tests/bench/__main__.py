# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures, and prints what was measured beside what was aimed at."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import bare, playbooks, scenes
from bench.conversion import Conversions, free_gib
from bench.rounds import Rounds, aim
from bench.servers import API, Address, AnswerServer, LabServer

#: From here on the lab counts as what holds the clients up.
BOTTLENECK = 1.5
CREATED_GUESTS = 5
#: How long a POST config's task takes on a real PVE 9.2 when it has next to nothing to do.
TASK_SECONDS = 0.2
LAB_WORDS = f"in the lab, whose tasks last {TASK_SECONDS} s at least"


def timed(function: Callable[..., None], *arguments: object) -> float:
    begun = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begun


class Bench:
    """The contestants and the settings of one run."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.ours = playbooks.ours()
        self.peer = playbooks.peer()
        self.vmids = scenes.vmids(settings.guests)
        self.disks = settings.guests * scenes.DISKS_PER_GUEST

    def run(self) -> None:
        version = playbooks.peer_version(self.peer)
        print(f"Medians of {self.settings.rounds} interleaved rounds on {os.cpu_count()} processors with a load of")
        print(f"{os.getloadavg()[0]:.1f} at the start. Python {sys.version.split()[0]}, community.proxmox {version}.")
        self.nothing_to_do()
        self.changes()

    # ---- nothing to do

    def nothing_to_do(self) -> None:
        """Every disk is as declared."""
        lab = LabServer(scenes.seed(self.settings.guests, images=False))
        try:
            self._print_calls(lab)
            answers = AnswerServer(self._answers(lab), lab)
            try:
                address = self._faster(lab, answers)
                self._measure_nothing(address)
            finally:
                answers.stop()
        finally:
            lab.stop()

    def _print_calls(self, lab: LabServer) -> None:
        lab.asked()
        self.ours.seconds(self.ours.book(scenes.ours(scenes.declaration(self.vmids))), lab.address.environment)
        calls = len(lab.asked())
        print(f"\n{self.settings.guests} guests with {self.disks} disks, nothing to do")
        aim("calls beyond one per guest, by the lab's log", calls - len(self.vmids), 4, unit="")

    def _answers(self, lab: LabServer) -> dict[str, bytes]:
        """What the lab says to every GET of the contestants."""
        self.peer.seconds(self._peer_book(), lab.address.environment)
        bare.read_all(lab.address, [scenes.pending_path(vmid) for vmid in self.vmids])
        asked = lab.asked()
        paths = {f"{one.path}?{one.query}".rstrip("?") for one in asked if one.method == "GET"}
        paths |= {"/cluster/resources?type=vm"}
        context = ssl.create_default_context(cafile=str(lab.certificate))
        context.check_hostname = False
        client = bare.BareClient(lab.address, context)
        return {API + path: json.dumps({"data": client.call("GET", path)}).encode() for path in sorted(paths)}

    def _peer_book(self) -> Path:
        return self.peer.book(scenes.peers(scenes.declaration(self.vmids[:3]), self.settings.sample))

    def _faster(self, lab: LabServer, answers: AnswerServer) -> Address:
        """The server to measure with: the lab, unless it holds the clients up."""
        paths = [scenes.pending_path(vmid) for vmid in self.vmids]
        rounds = Rounds()
        for _ in range(3):
            rounds.add("lab", timed(bare.read_all, lab.address, paths))
            rounds.add("answers", timed(bare.read_all, answers.address, paths))
        slow, fast = rounds.median("lab"), rounds.median("answers")
        held_up = slow > BOTTLENECK * fast
        print(f"  the bare client needs {slow:.2f} s with the lab, {fast:.2f} s with a plain HTTPS server that")
        used = "the lab is the limit, so the plain server" if held_up else "the lab"
        print(f"  gives the same answers at once: {used} is used")
        return answers.address if held_up else lab.address

    def _measure_nothing(self, address: Address) -> None:
        paths = [scenes.pending_path(vmid) for vmid in self.vmids]
        server = address.environment
        one, ours = self.ours.book(scenes.empty()), self.ours.book(scenes.ours(scenes.declaration(self.vmids)))
        ping = self.ours.book(scenes.ping())
        other, peers = self.peer.book(scenes.empty()), self._peer_book()
        rounds = Rounds()
        for _ in range(self.settings.rounds):
            rounds.add("empty", self.ours.seconds(one, server))
            rounds.add("ping", self.ours.seconds(ping, server))
            rounds.add("ours", self.ours.seconds(ours, server))
            rounds.add("bare", timed(bare.read_all, address, paths))
            rounds.add("peer empty", self.peer.seconds(other, server))
            rounds.add("peer", self.peer.seconds(peers, server))
        print(rounds.line("empty", "an empty playbook"))
        print(rounds.line("ping", "a playbook with Ansible's smallest module, ping"))
        print(rounds.line("ours", "guest_disks, one task"))
        print(rounds.line("bare", f"bare client, {bare.WORKERS} connections"))
        print(rounds.line("peer empty", "an empty playbook in community.proxmox's environment"))
        print(rounds.line("peer", f"proxmox_disk, a loop over {self.settings.sample} disks"))
        floor = rounds.median("bare") + rounds.median("empty")
        aim("guest_disks / (bare client + empty playbook)", rounds.median("ours") / floor, 2)
        self._per_disk(rounds, self.disks, self.settings.sample, 500)
        memory = self.ours.peak_memory(ours, server)
        aim("peak memory of the module (ru_maxrss of its process, by wait4)", memory, 200, unit=" MB")
        written_out = self.ours.book(scenes.only_read(scenes.declaration(self.vmids)))
        print("  For comparison, once: an empty playbook in which the declaration is written out in YAML, instead of")
        print(f"  made by an expression, takes Ansible {self.ours.seconds(written_out, server):.2f} s")

    @staticmethod
    def _per_disk(rounds: Rounds, disks: int, sample: int, limit: float) -> None:
        own = max((rounds.median("ours") - rounds.median("empty")) / disks, 1e-6)
        other = (rounds.median("peer") - rounds.median("peer empty")) / sample
        each = f"guest_disks {own * 1e3:.2f} ms, proxmox_disk {other * 1e3:.0f} ms"
        print(f"  beyond the empty playbook, per disk: {each}")
        aim("faster than proxmox_disk per disk", other / own, limit, at_least=True)

    # ---- changes

    def changes(self) -> None:
        """One option of every disk of 50 guests, and new disks for 5 of them in each round, in the lab.

        Its tasks last as long as PVE's do at least.
        """
        lab = LabServer(scenes.seed(self.settings.changed, images=True), TASK_SECONDS)
        try:
            vmids = scenes.vmids(self.settings.changed)
            self._options(lab, vmids)
            self._new_disks(lab, vmids)
        finally:
            lab.stop()

    def _options(self, lab: LabServer, vmids: Sequence[int]) -> None:
        disks, sample, values = len(vmids) * scenes.DISKS_PER_GUEST, self.settings.sample, iter(range(100, 10000))
        option, calls, rounds = "iops_rd", [], Rounds()
        for _ in range(self.settings.rounds):
            changed = scenes.declaration(vmids, **{option: next(values)})
            self._floors(rounds, lab)
            lab.asked()
            rounds.add("ours", self._ours(lab, scenes.ours(changed)))
            calls.append(len(lab.asked()))
            posts = scenes.posts_for_option(vmids, option, str(next(values)))
            rounds.add("bare", timed(bare.write_all, lab.address, posts))
            changed = scenes.declaration(vmids, **{option: next(values)})
            rounds.add("peer", self._peer(lab, scenes.peers(changed, sample)))
        print(f"\n{len(vmids)} guests with {disks} disks, one option changed on each, {LAB_WORDS}")
        self._print_changes(rounds, sample)
        print(f"  {statistics.median(calls):g} calls of guest_disks, with those that wait for tasks")
        self._per_disk(rounds, disks, sample, 15)

    def _new_disks(self, lab: LabServer, vmids: Sequence[int]) -> None:
        sample, rounds = self.settings.sample, Rounds()
        for number in range(self.settings.rounds):
            some = vmids[number * CREATED_GUESTS : (number + 1) * CREATED_GUESTS]
            self._floors(rounds, lab)
            rounds.add("ours", self._ours(lab, scenes.ours(scenes.new_disks(some, 4))))
            posts = scenes.posts_for_new(some, 8)
            rounds.add("bare", timed(bare.write_all, lab.address, posts))
            play = scenes.peers(scenes.new_disks(some, 12), sample)
            rounds.add("peer", self._peer(lab, play))
        disks = CREATED_GUESTS * scenes.DISKS_PER_GUEST
        print(f"\n{CREATED_GUESTS} guests, {disks} disks created, {LAB_WORDS}")
        self._print_changes(rounds, sample)
        floor = rounds.median("bare") + rounds.median("empty")
        aim("guest_disks / (bare client + empty playbook)", rounds.median("ours") / floor, 1.3)
        self._per_disk(rounds, disks, sample, 7)

    def _floors(self, rounds: Rounds, lab: LabServer) -> None:
        rounds.add("empty", self._ours(lab, scenes.empty()))
        rounds.add("peer empty", self._peer(lab, scenes.empty()))

    def _ours(self, lab: LabServer, play: list[dict[str, Any]]) -> float:
        return self.ours.seconds(self.ours.book(play), lab.address.environment)

    def _peer(self, lab: LabServer, play: list[dict[str, Any]]) -> float:
        return self.peer.seconds(self.peer.book(play), lab.address.environment)

    @staticmethod
    def _print_changes(rounds: Rounds, sample: int) -> None:
        print(rounds.line("empty", "an empty playbook"))
        print(rounds.line("ours", f"guest_disks, one task, {bare.WRITERS} guests at a time"))
        print(rounds.line("bare", f"bare client, {bare.WRITERS} at a time, one POST for each guest"))
        print(rounds.line("peer empty", "an empty playbook in community.proxmox's environment"))
        print(rounds.line("peer", f"proxmox_disk, a loop over {sample} disks"))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, 200 guests, a look instead of a measurement")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs (5)")
    parser.add_argument("--guests", type=int, help="guests with nothing to do (1000)")
    parser.add_argument("--part", choices=["all", "api", "conversion"], default="all", help="what to measure (all)")
    parser.add_argument("--gib", type=float, help="GiB of data to convert; the more the truer (4, or what fits)")
    parser.add_argument("--folder", type=Path, default=playbooks.PLACE, help="where to convert")
    settings = parser.parse_args()
    settings.rounds = settings.rounds or (2 if settings.quick else 5)
    settings.guests = settings.guests or (200 if settings.quick else 1000)
    settings.sample = 2 if settings.quick else 4
    settings.changed = max(CREATED_GUESTS * settings.rounds, 10 if settings.quick else 50)
    settings.gib = settings.gib or (0.5 if settings.quick else min(4.0, free_gib(settings.folder) / 12))
    if settings.part in ("all", "api"):
        Bench(settings).run()
    if settings.part in ("all", "conversion"):
        Conversions(settings.folder, settings.gib, settings.rounds).run()


if __name__ == "__main__":
    main()
