"""Walks in which a leader goes on leading through a change of the replica set, and facts that it never had come back.

A deposed leader has a few facts that it has sent to nobody; its successor leads without them, and then replaces the
third member. The promises of the new set bring those facts, or do not: any order of everything is tried.
"""

from __future__ import annotations

import pytest

from p2premap.config import ElectionConfig
from p2premap.sim.electionmodel import Violated
from p2premap.sim.electionsettings import CALM, Faults
from p2premap.sim.electionwalk import Walk
from tests.sim.planting import Planted, plant

WALKS = 40
STEPS = 250
FAULTS = Faults(append=3, propose=1, time=20, unlink=1, back=0)
CONFIG = ElectionConfig(replace_s=0.1, decide_wait_s=0.1, create_wait_s=0.4, fork_s=1000.0)


class Returning(Walk):
    """See the module."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, nodes=4, faults=FAULTS, config=CONFIG)

    def _begin(self) -> None:
        super()._begin()
        for node in self._up():
            for job in list(node.led):
                self._tear(node, job)
                for other in self._up():
                    if other is not node:
                        self._tell("gone", other, node)
                        self._tell("gone", node, other)
                for _ in range(250):
                    successor = next((other for other in self._up() if job in other.led and other is not node), None)
                    if successor is not None:
                        self._lose_third(node.disk.jobs[job].members, {node.id, successor.id})
                        return
                    self._one(CALM)

    def _lose_third(self, members: tuple[bytes, ...], others: set[bytes]) -> None:
        for node in self._up():
            if node.id in members and node.id not in others:
                self._crash(node)


def walks() -> int:
    """How many changes of replica sets there were."""
    changes = 0
    for seed in range(WALKS):
        walk = Returning(seed)
        walk.run(STEPS)
        changes += walk.model.changes
    return changes


def test_tasks_go_on_only_from_what_a_successor_reads() -> None:
    assert walks() > WALKS / 2


BUG = Planted(
    what="Tasks go on through a change of the replica set whatever facts it brings.",
    where="election.job:Job._begun",
    line="carried.vector == self.replica.streams.base(leadership.ballot)",
    becomes="True",
    caught_by="(based|protected|pin)",
    scenario="returning",
)


def test_it_finds_tasks_that_go_on_from_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BUG)
    with pytest.raises(Violated, match=f"^{BUG.caught_by}"):
        walks()
