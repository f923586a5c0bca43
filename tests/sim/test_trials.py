"""Jobs under every kind of fault: nothing is lost, nothing forks that must not, and what fails is made small."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner

from p2premap.sim import trials
from p2premap.sim.shrink import shrink
from p2premap.sim.strikes import KINDS
from p2premap.sim.trial import WHOLE_S, Plan, Trial
from p2premap.sim.trials import FLOORS, Summary, main, run_many, run_some

SEEDS = 1_000
"""Of the default run; `p2premap.sim.deep` runs ten thousand others."""
SHARD = 50
"""So many in one test, so that they spread over the processes of a run."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, SHARD))
def test_trials_end_well_and_have_tested_something(first: int, record_property: Callable[[str, object], None]) -> None:
    summary = run_some(first, SHARD)
    print("\n".join(trials.lines(summary, 0.0)))
    record_property("simulated", simulated(summary))
    assert summary.failures == []
    assert summary.below() == {}
    assert summary.virtual_s >= SHARD * WHOLE_S


def simulated(summary: Summary) -> dict[str, int]:
    """For the run's last line."""
    counts = summary.counts
    told = {
        "takeovers": "takeover",
        "forks": "fork",
        "ended jobs": "ended",
        "jobs with too many disks lost": "excused",
        "results that a quorum held": "protected",
    }
    return {what: counts[name] for what, name in told.items()} | {
        "trials": summary.trials,
        "trials with a violation": len(summary.failures),
        "virtual seconds of trials": round(summary.virtual_s),
        "faults in trials": sum(counts[kind] for kind in KINDS),
    }


def test_seeds_are_spread_over_processes() -> None:
    *_, total = run_many(1, 2, processes=2)
    assert (total.trials, total.failures) == (2, [])


def test_a_trial_is_its_plan() -> None:
    plan = Plan(seed=3, jobs=1)
    assert Trial(plan).run().trace == Trial(plan).run().trace
    assert Trial(replace(plan, kept=(0, 1))).run().trace != Trial(plan).run().trace


def test_what_tests_nothing_fails() -> None:
    summary = Summary(trials=100)
    assert set(summary.below()) == set(FLOORS) >= set(KINDS)
    summary.counts.update(dict.fromkeys(FLOORS, 10000))
    assert summary.below() == {}
    summary.counts["takeover"] = 3
    assert summary.below() == {"takeover": 3}
    assert "TOO FEW: takeover: 3" in trials.lines(summary, 1.0)


def test_dropping_a_fault_leaves_the_others_as_they_are() -> None:
    plan = Plan(seed=9)
    drawn = plan.strikes()
    assert len({strike.kind for strike in drawn}) > 10
    some = replace(plan, kept=(1, 4), halved=((4, 2),))
    assert some.strikes() == (drawn[1], replace(drawn[4], lasts_s=drawn[4].lasts_s / 4))


def test_shrinking_leaves_what_is_needed_and_nothing_else() -> None:
    """The judge wants faults 3 and 7, the latter for more than a quarter of its time, and client 2."""
    asked: list[Plan] = []

    def judge(plan: Plan) -> str | None:
        asked.append(plan)
        kept = range(20) if plan.kept is None else plan.kept
        clients = range(3) if plan.clients is None else plan.clients
        return "it" if {3, 7} <= set(kept) and 2 in clients and dict(plan.halved).get(7, 0) < 2 else "another"

    found = shrink(Plan(seed=1), "it", judge)
    assert (found.kept, found.clients, dict(found.halved)[7]) == ((3, 7), (2,), 1)
    assert len(asked) < 80
    assert found.command().endswith("--seed 1 --nodes 7 --jobs 3 --clients 2 --strikes 3,7 --halved 3:6,7:1")


def test_the_command_of_a_plan_runs_that_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Plan] = []

    class Noted(Trial):
        def __init__(self, plan: Plan) -> None:
            ran.append(plan)
            super().__init__(replace(plan, kept=(), clients=(0,), jobs=1))

    monkeypatch.setattr(trials, "Trial", Noted)
    plan = Plan(seed=5, nodes=5, jobs=2, clients=(1,), kept=(2, 6), halved=((6, 1),))
    result = CliRunner().invoke(main, plan.command().split()[3:])
    assert result.exit_code == 0, result.output
    assert ran == [plan]
    assert "nothing failed" in result.output


def test_the_garbage_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold(), bool(gc.get_freeze_count())
    run_some(1, 0)
    assert (gc.get_threshold(), bool(gc.get_freeze_count())) == before


def test_seeds_fail_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Trial) -> None:
        raise self.world.broken("ends", "it does not")

    monkeypatch.setattr(Trial, "run", broken)
    summary = run_some(7, 2)
    assert [(seed, checker) for seed, checker, _ in summary.failures] == [(7, "ends"), (8, "ends")]
