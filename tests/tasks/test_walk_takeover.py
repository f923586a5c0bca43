"""Random walks in which leaders die and are deposed: what a quorum has is what the next one goes on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from p2premap.ids import NodeId
from p2premap.sim.jobsettings import HARSH, SHAPES, TAKEOVERS, Faults
from p2premap.sim.jobwalk import Walk
from p2premap.tasks import journal, state
from p2premap.tasks.copies import Copies
from p2premap.tasks.job import Phase
from p2premap.tasks.log import Log
from p2premap.tasks.replay import Replay
from p2premap.tasks.stage import StageRun
from p2premap.tasks.workers import Worker
from tests.tasks.test_walk import SHORT_WALKS, short_walks
from tests.tasks.walking import found

STEADY, UNSTEADY = SHAPES[:1], SHAPES[2:3]
WALKS = 15


@pytest.mark.parametrize("faults", TAKEOVERS)
def test_walk(faults: str) -> None:
    happened: Counter[str] = Counter()
    ends: Counter[Phase] = Counter()
    for seed in range(WALKS):
        walk = Walk(seed, SHAPES[seed % len(SHAPES)], nodes=2 + seed % 4, faults=TAKEOVERS[faults])
        ends[walk.run(300).phase] += 1
        happened.update(walk.counts)
    assert ends[Phase.FAILED] == 0
    assert faults == "cancel" or ends == {Phase.DONE: WALKS}
    # a run in which nothing happened proves nothing
    assert happened["dies"] >= WALKS // 2
    assert happened["deposed"] >= WALKS // 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", range(10))
def test_short_walks(shard: int, record_property: Callable[[str, object], None]) -> None:
    """See there."""
    happened = short_walks(300_000 + shard * SHORT_WALKS, takeovers=True)
    record_property("simulated", {"walks of jobs": SHORT_WALKS})
    assert happened["over"] > SHORT_WALKS / 4
    assert min(happened["dies"], happened["deposed"]) >= SHORT_WALKS / 3
    for word in ("kill", "back", "unlink", "false death", "doubt", "cancel", "resize"):
        assert happened[word] >= SHORT_WALKS / 100, word


def test_a_cluster_in_uproar_ends_its_job() -> None:
    for seed in range(WALKS):
        Walk(seed, SHAPES[seed % len(SHAPES)], nodes=3 + seed % 3, faults=HARSH).run(400)


@pytest.mark.deep
def test_deep_walks() -> None:
    for seed in range(20_000):
        faults = (*TAKEOVERS.values(), HARSH)[seed // len(SHAPES) % (len(TAKEOVERS) + 1)]
        Walk(seed, SHAPES[seed % len(SHAPES)], nodes=2 + seed % 4, faults=faults).run(400)


# --- planted bugs: each is found by the checker whose business it is ----------------------------------------------


def test_it_finds_reports_that_are_confirmed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(self: Log, worker: Worker, serial: int) -> None:
        worker.heard = max(worker.heard, serial)

    monkeypatch.setattr(Log, "reported", hasty)
    assert "is confirmed, and batch" in found(TAKEOVERS["takeovers"])


def test_it_finds_leaders_that_number_attempts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ATTEMPTS_A_TERM", 0)
    assert "is given out twice" in found(TAKEOVERS["takeovers"])


def test_it_finds_manifests_of_what_is_not_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(self: StageRun, serial: int) -> None:
        self.pinned, self.pinned_in = True, 0

    monkeypatch.setattr(StageRun, "pin", hasty)
    assert "is proposed again with another value" in found(HARSH, UNSTEADY)


def test_it_finds_a_pin_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch, journal.Pin)
    assert "runs again" in found(TAKEOVERS["takeovers"])


def test_it_finds_a_choice_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "_chosen", lambda *_: None)
    assert found(HARSH, UNSTEADY).endswith(("holds its result", "is proposed again with another value"))


def test_it_finds_a_cancellation_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch, journal.Cancelled)
    assert "a cancelled job is done" in found(TAKEOVERS["cancel"])


def test_it_finds_holders_that_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "_made", lambda *_: None)
    assert "runs again" in found(HARSH, STEADY)


def test_it_finds_a_copy_that_comes_late_and_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    unlinked = Copies.unlinked

    def forgets(self: Copies, node: NodeId) -> None:
        unlinked(self, node)
        self._late.clear()

    monkeypatch.setattr(Copies, "unlinked", forgets)
    assert "runs again" in found(Faults(false_death=4, doubt=5, unlink=10.0, back=10.0))


def _forget(monkeypatch: pytest.MonkeyPatch, kind: type[journal.Fact]) -> None:
    """A successor that passes over this kind of record."""
    take = Replay._take

    def careless(self: Replay, fact: journal.Fact) -> None:
        if not isinstance(fact, kind):
            take(self, fact)

    monkeypatch.setattr(Replay, "_take", careless)
