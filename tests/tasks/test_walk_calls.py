"""Random walks over a job of calls that wait for others; bugs in the waiting are found by what they break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from p2premap.sim.callwalk import CallWalk
from p2premap.sim.jobmodel import Violated
from p2premap.sim.jobsettings import HARSH, TAKEOVERS, Faults
from p2premap.tasks.following import FollowUp
from p2premap.tasks.job import Phase

LOSSES = Faults(takeover=8, kill=8, unlink=4, false_death=2)
FAULTS = (Faults(), TAKEOVERS["takeovers"], TAKEOVERS["everything"], Faults(takeover=6), HARSH, LOSSES)
WALKS = 12
MADE_OF = "was made of something else than the program has"


def _walk(seed: int) -> CallWalk:
    return CallWalk(seed, nodes=2 + seed % 4, faults=FAULTS[seed % len(FAULTS)])


def test_walk() -> None:
    happened: Counter[str] = Counter()
    for seed in range(WALKS):
        walk = _walk(seed)
        assert walk.run(300).phase is Phase.DONE
        happened.update(walk.counts)
        happened["early"] += sum(bool(call.named) for call in walk.program.calls)
        happened["taken back"] += walk.program.taken_back
    assert happened["early"] >= 3 * WALKS, "calls were handed in before what they need had a result"
    assert min(happened["dies"], happened["deposed"], happened["taken back"]) >= WALKS


@pytest.mark.deep
def test_deep_walks() -> None:
    for seed in range(20_000):
        assert _walk(seed).run(300).phase is Phase.DONE


def _found(seeds: Iterable[int]) -> str:
    """What the first of these walks that ends badly says; they were found by looking at some hundred."""
    for seed in seeds:
        try:
            CallWalk(seed, 12, nodes=2 + seed % 4, faults=LOSSES).run(300)
        except Violated as error:
            return str(error)
    return "nothing"


def test_it_finds_a_call_that_runs_before_its_argument_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FollowUp, "must_wait", lambda self, task, is_settled: False)
    assert "came back void, and nothing that it named has failed" in _found(range(2))


def test_it_finds_a_successor_that_does_not_wait_for_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FollowUp, "unheard", property(lambda self: False, lambda self, value: None), raising=False)
    assert MADE_OF in _found((4, 5, 26))


def test_it_finds_a_successor_that_uses_another_result_than_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = FollowUp.heard
    monkeypatch.setattr(FollowUp, "heard", lambda self, withdrawn: heard(self, ()))
    assert MADE_OF in _found((4, 26, 31))


def test_it_finds_what_was_made_of_what_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FollowUp, "is_orphan", lambda self, task, attempt, result_of: False)
    assert MADE_OF in _found((124, 118))
