"""One trial from its nodes' start to their end."""

from __future__ import annotations

import contextlib
import subprocess
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from tests.soak import evidence
from tests.soak.cases import Case
from tests.soak.nodes import REPOSITORY, leftovers
from tests.soak.trial import FaultMissed, Hang, Trial
from tests.soak.work import Work

TRIES = 3
"""A fault that came after the job's end proves nothing: the trial is made again with another moment."""
GONE_S = 5.0
FAULT = "This is a fault of p2premap"
"""What a node's last words begin with when something was raised that nobody expected."""


def run(case: Case, number: int, *, seed: int, kept: Path, always: bool = False) -> dict[str, Any]:
    """Run one trial and return its line for the results file.

    Args:
        number: from 0; with the case's name and `seed` it fixes everything that is chosen.
        kept: a directory for the evidence of violations.
        always: keep the same of a trial without any.

    Raises:
        ClusterError, TimeoutError: the nodes did not come up, so that nothing was tried.
    """
    begun = time.monotonic()
    facts: dict[str, Any] = {}
    violations = [f"the job was over before the fault, {TRIES} times"]
    for attempt in range(TRIES):
        with contextlib.suppress(FaultMissed):
            drawn = f"{seed}/{case.name}/{number}/{attempt}"
            trial = _run(case, drawn, kept / f"{case.name}-{number}", always=always)
            facts, violations = {"missed": attempt, **trial.facts}, trial.violations
            break
    return {
        "case": case.name,
        "trial": number,
        "seed": seed,
        "commit": commit(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - begun, 2),
        **facts,
        "violations": violations,
    }


def _run(case: Case, seed: str, kept: Path, *, always: bool) -> Trial:
    rng = Random(seed)
    cluster = case.cluster()
    work = Work(cluster.work_dir, cluster.inputs_dir, rng, **case.work)  # type: ignore[arg-type]
    trial = Trial(cluster, rng, work, case.limit_s)
    with cluster:
        trial.begin()
        _strike(case, trial)
        _sound(trial)
        if trial.violations or always:
            evidence.save(cluster, trial.job, kept)
            trial.facts["evidence"] = str(kept)
    until = time.monotonic() + GONE_S
    while (left := leftovers(cluster.home)) and time.monotonic() < until:
        time.sleep(0.05)
    trial.check(not left, f"processes {left} were left over")
    return trial


def _strike(case: Case, trial: Trial) -> None:
    """Run the case; whatever it raises is a violation.

    Raises:
        FaultMissed: the fault came too late.
    """
    try:
        case.run(trial)
    except FaultMissed:
        raise
    except Hang as error:
        trial.violations.append(f"HANG: {error}")
        _judge_anyway(trial)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        trial.violations.append(f"{type(error).__name__}: {error} ({where.name})")
        trial.facts["traceback"] = traceback.format_exc()[-4000:]
        _judge_anyway(trial)


def _sound(trial: Trial) -> None:
    """No node has failed by itself, whatever its peers went through."""
    for node in trial.cluster.nodes.values():
        if node.log.exists() and FAULT in (log := node.log.read_text(errors="replace")):
            trial.violations.append(f"{node.name}: {log[log.index(FAULT) :].splitlines()[0]}")


def _judge_anyway(trial: Trial) -> None:
    """Figures of a trial that did not come to its end."""
    if trial.fault_at and "again" not in trial.facts:
        with contextlib.suppress(Exception):
            trial.judge([])


def commit() -> str:
    """The commit that is tried, with a + where files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=8"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return told.stdout.strip() or "unknown"
