"""What a leader says while its replica set changes must be true in the next set too."""

from __future__ import annotations

import pytest

from p2premap.election import events, messages
from p2premap.election.config import is_config
from p2premap.ids import NodeId
from p2premap.wire import Message
from tests.election.world import JOB, World
from tests.sim.planting import Planted, plant


class Changing(World):
    """a leads a job with the replicas a and b, and c is to join; from the stop sign on only what decides it arrives.

    So the facts that a writes meanwhile are on its own disk, which is a quorum of the old set and none of the new one.
    """

    def __init__(self) -> None:
        self.stopping = False
        super().__init__("abc")
        members = (self.ids["a"], self.ids["b"])
        job = events.CreateJob(request=1, job=JOB, members=members, key=b"key", spec=b"spec", strict=True, copies=3)
        self.put("a", job)
        self.put("a", events.Append(job=JOB, batch=b"before"))

    def arrives(self, to: NodeId, message: Message) -> bool:
        if isinstance(message, messages.Accept) and is_config(message.cell):
            self.stopping = True
            return False  # it will be decided without b
        return not self.stopping or isinstance(message, messages.Chosen)


def history_after_a_change() -> tuple[set[int], tuple[bytes, ...]]:
    """The serials that a has called protected, and what its successor, without a, begins with."""
    world = Changing()
    while not world.stopping:
        world.run(world.config.heartbeat_s)
    world.put("a", events.Append(job=JOB, batch=b"meanwhile"))
    world.run(2 * world.config.decide_wait_s)
    world.crash("a")
    world.stopping = False
    world.arrives = lambda to, message: True  # type: ignore[method-assign]
    world.run(10.0)
    led = [effect for name, effect in world.told if isinstance(effect, events.Lead) and name != "a"]
    assert led, "b or c leads the next set"
    return {effect.serial for _, effect in world.heard(events.Protected) if isinstance(effect, events.Protected)}, led[
        0
    ].history


def test_facts_are_protected_only_when_both_sets_have_them() -> None:
    protected, history = history_after_a_change()
    assert protected == {0, 1}
    assert b"before" in history
    assert b"meanwhile" not in history


def test_it_finds_facts_that_only_the_old_set_has(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = Planted(
        what="While the replica set changes, the old one alone protects facts.",
        where="election.leader:Leadership._measure",
        line="if self.joining:",
        becomes="if False:",
        caught_by="protected",
        scenario="change",
    )
    plant(monkeypatch, bug)
    protected, history = history_after_a_change()
    assert 2 in protected
    assert b"meanwhile" not in history
