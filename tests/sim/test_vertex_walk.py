"""Random walks over vertex jobs, and the bugs that their invariants find: each is one line of the real code changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from p2premap.sim.vertexmodel import Violated
from p2premap.sim.vertexwalk import FAULTS, Faults, compare
from tests.sim.planting import Planted, plant

WALKS = 6


@pytest.mark.parametrize("faults", FAULTS)
def test_walks(faults: str) -> None:
    happened: Counter[str] = Counter()
    redone = 0
    for seed in range(WALKS):
        walk = compare(seed, FAULTS[faults])
        happened.update(walk.counts)
        redone += walk.model.redone
    # a run in which nothing happened proves nothing
    for word in ("kill", "leader", "ghost"):
        assert (happened[word] >= WALKS) == (getattr(FAULTS[faults], word) > 0)
    assert (redone > 0) == (faults not in ("none", "moves"))


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("faults", FAULTS)
def test_many_walks(faults: str) -> None:
    _all(range(WALKS, 1_500), FAULTS[faults])


V = "worker.vertex."
BUGS = (
    Planted(
        "The last mail of a superstep was not delivered.",
        V + "engine:Epoch._turn",
        "in self._inbox:",
        "in self._inbox[:-1]:",
        "mail",
        "none",
    ),
    Planted(
        "A partition that got one message alone dropped it.",
        V + "objects:ObjectPartition.turn",
        "if len(slots):",
        "if len(slots) > 1:",
        "mail",
        "none",
    ),
    Planted(
        "Mail was delivered twice.",
        V + "engine:Epoch._turn",
        "self._by_number[target].deliver(source, mail)",
        "[self._by_number[target].deliver(source, mail) for _ in range(2)]",
        "mail",
        "none",
    ),
    Planted(
        "What had been sent was sent again in the next superstep.",
        V + "outbox:Alongs.drop",
        "self.rows, self.values = [], []",
        "self.rows, self.values = list(self.rows), list(self.values)",
        "mail",
        "none",
    ),
    Planted(
        "Mail went to those to whom the mail of the superstep before had gone.",
        V + "outbox:Outbox.flush",
        "plan is None or plan.codes is not batch.codes",
        "plan is None or len(plan.codes) != len(batch.codes)",
        "mail",
        "none",
    ),
    Planted(
        "Numbers of ids that a sender had given anew were understood as before.",
        V + "objects:ObjectPartition.renew",
        "self._tables.renew()",
        "pass",
        "mail",
        "moves",
    ),
    Planted(
        "Mail that was under way at a checkpoint was not restored.",
        V + "objects:ObjectPartition.restore",
        "self._messages = inbox.unpacked(messages)",
        "self._messages = inbox.NONE",
        "mail",
        "moves",
    ),
    Planted(
        "Whoever had halted before a checkpoint computed after it.",
        V + "objects:ObjectPartition.restore",
        "if votes is None:",
        "if True:",
        "barrier",
        "moves",
    ),
    Planted(
        "Edges that had been added or removed were not in checkpoints.",
        V + "changes:Graph.history",
        "return added, gone, rewired",
        "return added, gone, {}",
        "answer",
        "moves",
    ),
    Planted(
        "A job ended when all had halted, although mail was under way.",
        "vertex.barrier:Barrier._judge",
        "not self._globals.active and not self._globals.sent",
        "not self._globals.active",
        "barrier",
        "none",
    ),
    Planted(
        "Aggregators heard the last partition alone.",
        "vertex.barrier:Barrier._sum_up",
        "given.setdefault(name, []).append(value)",
        "given[name] = [value]",
        "barrier",
        "none",
    ),
    Planted(
        "Aggregates were not in checkpoints.",
        V + "engine:split_state",
        "None if known is None else Globals(*known)",
        "None if known is None else Globals(*known[:5])",
        "barrier",
        "moves",
    ),
    Planted(
        "Halted vertices did not compute when they had mail.",
        V + "objects:ObjectPartition._due",
        "due[: len(mail)] |= mail",
        "pass",
        "mail",
        "none",
    ),
    Planted(
        "An epoch began with superstep 0 again.",
        "vertex.director:VertexDirector._take_epoch",
        "self._superstep = told.superstep",
        "self._superstep = 0",
        "checkpoint",
        "kill",
    ),
    Planted(
        "A process went on with a partition that was further than the checkpoint.",
        V + "runtime:VertexRuntime.epoch",
        "there is not None and one.state and there.state == order.segments[-1].digest",
        "there is not None",
        "checkpoint",
        "kill",
    ),
    Planted(
        "A successor forgot the last checkpoint that was decided.",
        "vertex.director:VertexDirector.next",
        "return self._output_stage() if self._take_epoch(results) else self._epoch_stage()",
        "return self._output_stage() if (number > 2 or self._take_epoch(results)) else self._epoch_stage()",
        "barrier",
        "leaders",
    ),
)


def _all(seeds: Iterable[int], faults: Faults) -> None:
    for seed in seeds:
        compare(seed, faults)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_planted_bug_is_caught_by_its_invariant(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    with pytest.raises(Violated) as caught:
        _all(range(100), FAULTS[bug.scenario])
    assert caught.value.invariant == bug.caught_by, caught.value


def test_a_walk_is_the_same_from_the_same_seed() -> None:
    first, second = (compare(3, FAULTS["everything"]) for _ in range(2))
    assert first.counts == second.counts
    assert compare(3, Faults()).counts != first.counts
