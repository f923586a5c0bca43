"""Random walks over jobs with stages whose tasks share slots and talk to each other; and bugs that they find."""

from __future__ import annotations

from collections import Counter

import pytest

from p2premap.ids import Ballot, JobId
from p2premap.sim.jobsettings import FAULTS, GANGS, HARSH, TAKEOVERS, often
from p2premap.sim.jobwalk import Walk
from p2premap.tasks import handout
from p2premap.tasks.job import Phase, StageId
from p2premap.tasks.shared import SharedRun
from p2premap.tasks.stage import StageRun
from tests.tasks.walking import found

WALKS = 8
SETTINGS = {**FAULTS, **{f"takeovers: {name}": faults for name, faults in TAKEOVERS.items()}, "harsh": HARSH}


@pytest.mark.parametrize("faults", SETTINGS)
def test_walk(faults: str) -> None:
    happened: Counter[str] = Counter()
    ends: Counter[Phase] = Counter()
    reruns = 0
    for seed in range(WALKS):
        walk = Walk(seed, GANGS[seed % len(GANGS)], nodes=2 + seed % 4, faults=SETTINGS[faults])
        ends[walk.run(400).phase] += 1
        happened.update(walk.counts)
        reruns += walk.model.reruns
    assert ends[Phase.FAILED] == 0
    assert "cancel" in faults or ends == {Phase.DONE: WALKS}
    assert reruns == 0 or faults != "none"
    assert reruns > 0 or "kill" not in faults


@pytest.mark.deep
def test_deep_walks() -> None:
    every = list(SETTINGS.values())
    for seed in range(20_000):
        faults = every[seed // len(GANGS) % len(every)]
        walk = Walk(seed, GANGS[seed % len(GANGS)], nodes=2 + seed % 4, faults=often(faults) if seed % 2 else faults)
        assert walk.run(400).phase is not Phase.FAILED


# --- planted bugs: each is found ----------------------------------------------------------------------------------


def test_it_finds_results_of_a_meeting_that_came_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedRun, "_unsettle_all", lambda self: None)
    assert "lineages are mixed" in found(FAULTS["kill"], GANGS, steps=400)


def test_it_finds_a_pinned_result_that_is_replaced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedRun, "adopt", StageRun.adopt)
    assert "lineages are mixed" in found(HARSH, GANGS, steps=400, seeds=range(51, 60))


def test_it_finds_hand_outs_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handout, "name_of", lambda job, stage, ballot, attempt: bytes(16))
    assert "a meeting is handed out twice" in found(FAULTS["none"], GANGS, steps=400)


def test_it_finds_leaders_whose_hand_outs_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name_of = handout.name_of

    def short(job: JobId, stage: StageId, ballot: Ballot, attempt: int) -> bytes:
        return name_of(job, stage, Ballot(0, 0, ballot.node), attempt % 1000)

    monkeypatch.setattr(handout, "name_of", short)
    assert "a meeting is handed out twice" in found(TAKEOVERS["everything"], GANGS, steps=400)


def test_it_finds_a_whole_meeting_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedRun, "find_whole", lambda self, locations: False)
    assert "all that its meeting" in found(TAKEOVERS["everything"], GANGS, steps=400)
