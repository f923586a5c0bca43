"""The harness must see what it looks for: wrong results, finished work that runs again, trials already made."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tests.soak.abuse import ABUSES, judge_report
from tests.soak.cases import CASES
from tests.soak.nodes import Cluster, Node
from tests.soak.results import append, load, never_made, summary
from tests.soak.trial import Before, Trial
from tests.soak.vertices import PARTITIONS, SUPERSTEPS, SlowGraph, Step, judge_steps
from tests.soak.work import Work


def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work", tmp_path / "inputs", Random(1), maps=8)


def trial(tmp_path: Path, marks: list[tuple[str, int, int, int, float]], before: Before) -> Trial:
    """One whose attempts told these (what, stage, task, attempt, at) on the node ada; the fault was at 10."""
    made = Trial(Cluster(()), Random(1), work(tmp_path), 60.0)
    lines = [json.dumps([what, stage, "", task, attempt, "/ada/", at]) for what, stage, task, attempt, at in marks]
    made.work.marks.write_text("\n".join(lines) + "\n")
    made.facts["tasks"] = 3
    made.fault_at, made.over_at, made.before = 10.0, 20.0, before
    made.cluster.__exit__()
    return made


def test_a_missing_word_is_a_wrong_result(tmp_path: Path) -> None:
    done = work(tmp_path)
    buckets: dict[int, list[tuple[str, int]]] = {}
    for word, times in sorted(done.answer.items()):
        buckets.setdefault(int(word[1:]) % done.reduces, []).append((word, times))
    right = {number: f"{number}\t{json.dumps(pairs)}\n".encode() for number, pairs in buckets.items()}
    assert done.wrong(right) == ""
    del right[0]
    assert "missing" in done.wrong(right)


TOLD = [
    ("start", 0, 0, 0, 1.0),
    ("end", 0, 0, 0, 2.0),
    ("start", 0, 1, 0, 2.0),
    ("end", 0, 1, 0, 9.9),
    ("start", 0, 1, 1_000, 11.5),
    ("end", 0, 1, 1_000, 12.0),
    ("start", 0, 2, 1_000, 12.0),
    ("end", 0, 2, 1_000, 13.0),
]


def test_what_was_unprotected_may_run_again_and_nothing_else(tmp_path: Path) -> None:
    fair = trial(tmp_path, TOLD, Before("ada", 2, 1, 0.1))
    fair.judge()
    assert not fair.violations
    assert (fair.facts["again"], fair.facts["redone"]) == (1, 0)
    assert (fair.facts["next_start_s"], fair.facts["next_assigned_s"]) == (1.5, 1.5)
    unfair = trial(tmp_path, TOLD, Before("ada", 2, 0, 0.0))
    unfair.judge()
    assert unfair.facts["redone"] == 1
    assert "ran again although 2 were protected" in unfair.violations[0]


def test_what_a_victim_does_alone_is_its_own_affair_also_where_the_trial_stumbles(tmp_path: Path) -> None:
    own = trial(tmp_path, TOLD, Before("ada", 2, 0, 0.0))
    own.facts["tasks"] = 4
    own.struck(10.0, struck := Node("ada", tmp_path))
    own.facts["tasks"], own.over_at, struck.id = 3, 0.0, "ada"
    own.judge()
    assert (own.facts["again"], own.violations) == (0, [])


def test_a_task_that_never_ended_is_seen(tmp_path: Path) -> None:
    short = trial(tmp_path, TOLD[:-1], Before("ada", 2, 1, 0.1))
    short.judge()
    assert short.violations == ["2 of 3 tasks ended by their own account"]


def told_of_a_crash(tmp_path: Path, signal: str, failed: int, *, left: bool = False) -> list[str]:
    """What is found wrong with a report of a job that was killed so."""
    sound = trial(tmp_path, [], Before("ada", 0, 0, 0.0))
    error = "Task 0 of stage map crashed its worker process 3 times, at last on n1: "
    error += f"The worker process was killed by {signal}."
    stage = {"failed_attempts": failed, "lost_attempts": 0}
    told = {"phase": "failed", "error": error, "detail": "line 4 in map", "retries": 2, "stages": [stage]}
    said = subprocess.CompletedProcess(
        (), 0 if left else 1, "", f"line 4 in map\np2premap: Job c0ffee failed: {error}\n"
    )
    judge_report(sound, ABUSES["segfault"], said, told)
    return sound.violations


def test_a_wrong_report_of_bad_user_code_is_seen(tmp_path: Path) -> None:
    assert told_of_a_crash(tmp_path, "SIGSEGV", 3) == []
    assert "lacks" in told_of_a_crash(tmp_path, "SIGABRT", 3)[0]
    assert told_of_a_crash(tmp_path, "SIGSEGV", 2)[0] == "2 failed attempts are counted"
    assert "ended with 0" in told_of_a_crash(tmp_path, "SIGSEGV", 3, left=True)[0]


def test_results_are_kept_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "results"
    line = {"case": "leader-3", "commit": "c0ffee", "violations": [], "redone": 0}
    for number, seconds in enumerate((0.1, 0.2, 4.0)):
        append(path, {**line, "trial": number, "next_assigned_s": seconds})
    with path.open("a") as file:
        file.write('{"case": "leader-3", "tri')
    results = load(path)
    assert [result["trial"] for result in results] == [0, 1, 2]
    append(path, {**line, "trial": 3, "violations": ["wrong"]})
    told = summary(load(path))
    assert "leader-3: 4 trials, 1 with violations (commit c0ffee)" in told
    assert "median   0.200  min   0.100  max   4.000" in told
    assert "MISSED" in told
    assert "trial 3: wrong" in told


def test_a_trial_whose_nodes_did_not_come_up_is_told_until_it_is_made() -> None:
    failed = {"case": "cut-3", "trial": 4, "commit": "c0ffee", "violations": [], "not_made": "n2 does not see n3"}
    assert never_made([failed]) == {("cut-3", 4)}
    told = summary([failed])
    assert "cut-3: 0 trials, 0 with violations" in told
    assert "1 times the nodes did not come up, 1 trials not made since" in told
    assert "trial 4 was not made: n2 does not see n3" in told
    later = {"case": "cut-3", "trial": 4, "commit": "c0ffee", "violations": []}
    assert never_made([failed, later]) == set()
    assert "1 times the nodes did not come up, 0 trials not made since" in summary([failed, later])


def test_every_promised_count_is_the_default() -> None:
    assert {CASES[name].repeat for name in ("leader-3", "leader-5", "two-first", "two-second")} == {50}
    assert {CASES[name].repeat for name in ("cut-3", "frozen-3", "restart-3", "client-3")} == {20}
    assert {case.repeat for name, case in CASES.items() if name.startswith("abuse-")} == {20}


def test_a_wrong_digit_of_a_vertex_job_is_seen(tmp_path: Path) -> None:
    graph = SlowGraph(tmp_path / "work", tmp_path, Random(1))
    lines = [f"{vertex}\t{rank}\n" for vertex, rank in graph.right.items()]
    assert graph.wrong({0: "".join(lines[:9]).encode(), 1: "".join(lines[9:]).encode()}) == ""
    assert "1 of" in graph.wrong({0: "".join(lines[1:]).encode()})
    assert "1 of" in graph.wrong({0: "".join([lines[0].rstrip() + "1\n", *lines[1:]]).encode()})
    assert graph.wrong({0: "".join([*lines, lines[0]]).encode()}) != ""


@pytest.mark.parametrize(("again", "violations"), [((10,), 0), ((9, 10), 1)])
def test_what_is_redone_before_a_checkpoint_is_seen(again: tuple[int, ...], violations: int) -> None:
    every = [(superstep, partition) for superstep in range(SUPERSTEPS) for partition in range(PARTITIONS)]
    steps = [Step(*step, "/n1", 0.001 * at) for at, step in enumerate(every)]
    steps += [Step(superstep, 0, "/n2", 99.0 + superstep) for superstep in again]
    trial = SimpleNamespace(fault_at=90.0, victims=[], facts={}, violations=[], last=None)
    trial.check = lambda holds, otherwise: None if holds else trial.violations.append(otherwise)
    judge_steps(trial, steps, 10)  # type: ignore[arg-type]
    assert len(trial.violations) == violations
    assert trial.facts["again"] == len(again)
