"""Random walks over coordinator and worker cores: everything that could happen next may happen next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from p2premap.sim.jobsettings import FAULTS, SHAPES, SHORT_STEPS
from p2premap.sim.jobwalk import Walk, short_walk
from p2premap.tasks.job import JobOptions, Phase
from p2premap.tasks.ledger import PinnedResults
from p2premap.tasks.locations import Locations
from p2premap.tasks.roster import Roster
from p2premap.tasks.shares import Shares
from p2premap.tasks.stage import StageRun
from p2premap.tasks.state import JobState
from tests.tasks.walking import found

WALKS = 15
SHORT_WALKS = 1_000

RERUNS = {
    "none": False,
    "links": False,
    "kill": True,
    "kill and lose the disk": True,
    "verdicts": True,
    "everything": True,
}


@pytest.mark.parametrize("faults", FAULTS)
def test_walk(faults: str) -> None:
    happened: Counter[str] = Counter()
    ends: Counter[Phase] = Counter()
    reruns = 0
    for seed in range(WALKS):
        walk = Walk(seed, SHAPES[seed % len(SHAPES)], nodes=2 + seed % 4, faults=FAULTS[faults])
        ends[walk.run(300).phase] += 1
        happened.update(walk.counts)
        reruns += walk.model.reruns
    assert ends[Phase.FAILED] == 0
    if faults == "cancel":
        assert ends[Phase.CANCELLED] >= WALKS // 6
    else:
        assert ends == {Phase.DONE: WALKS}
    # a run in which nothing happened proves nothing
    for word in ("kill", "unlink", "false death", "doubt", "resize"):
        assert bool(happened[word]) == (getattr(FAULTS[faults], word.replace(" ", "_")) > 0)
    assert reruns == 0 or RERUNS.get(faults, True)
    assert reruns > 0 or not RERUNS.get(faults, False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", range(10))
def test_short_walks(shard: int, record_property: Callable[[str, object], None]) -> None:
    """Small jobs, three times as many faults, no liveness phase: ten thousand, and as many with takeovers."""
    happened = short_walks(200_000 + shard * SHORT_WALKS, takeovers=False)
    record_property("simulated", {"walks of jobs": SHORT_WALKS})
    assert happened["over"] > SHORT_WALKS / 2
    for word in ("kill", "back", "unlink", "false death", "doubt", "cancel", "stopped", "resize"):
        assert happened[word] >= SHORT_WALKS / 100, word


def short_walks(first: int, *, takeovers: bool) -> Counter[str]:
    """What happened, and how many jobs are "over"."""
    happened: Counter[str] = Counter()
    for seed in range(first, first + SHORT_WALKS):
        walk = short_walk(seed, takeovers=takeovers)
        walk.walk(SHORT_STEPS)
        happened.update(walk.counts)
        happened["over"] += walk.coordinator.over
    return happened


def test_walks_repeat() -> None:
    one, two = (Walk(7, SHAPES[0], faults=FAULTS["everything"]) for _ in range(2))
    one.run(200)
    two.run(200)
    assert one.log == two.log


@pytest.mark.deep
def test_deep_walks() -> None:
    for seed in range(20_000):
        faults = list(FAULTS.values())[seed // len(SHAPES) % len(FAULTS)]
        Walk(seed, SHAPES[seed % len(SHAPES)], nodes=2 + seed % 4, faults=faults).run(400)


# --- planted bugs: the walk must find each ------------------------------------------------------------------------


def test_it_finds_results_that_are_thought_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Locations, "lose", lambda *_: None)
    assert "is nowhere" in found(FAULTS["kill"], options=JobOptions(copies=1))


def test_it_finds_finished_work_that_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageRun, "recover_results", lambda *_: False)
    assert "runs again" in found(FAULTS["everything"])


def test_it_finds_mixed_lineages(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: JobState, run: StageRun) -> None:
        """What Spark did: who has read the old results keeps what it made of them."""
        run.pinned = True
        self.director.next(run.id.number, PinnedResults(run.facts))

    monkeypatch.setattr(JobState, "abandon_after", careless)
    assert "lineages are mixed" in found(FAULTS["kill and lose the disk"], seeds=range(400))


def test_it_finds_a_job_that_is_cancelled_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Roster, "welcome_back", Roster.recount)
    assert "CANCELLED while attempts run" in found(FAULTS["cancel"], seeds=range(320, 400))


def test_it_finds_copies_that_are_never_written_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Locations, "unreadable", lambda *_: None)
    assert "could not read its input" in found(FAULTS["kill and lose the disk"])


def test_it_finds_attempts_that_are_forgotten_with_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobState, "wait_again", lambda *_: None)
    assert "is forgotten" in found(FAULTS["kill"])


def test_it_finds_a_leader_that_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Roster, "recount", lambda *_: None)
    assert "does not end" in found(FAULTS["links"])


def test_it_finds_places_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shares, "free_for", lambda *_: 9)
    monkeypatch.setattr(Shares, "place", lambda self, led: self.slots[0])
    assert "over-committed" in found(FAULTS["none"])
