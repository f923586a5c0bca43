"""One trial from its nodes' start to their end."""

from __future__ import annotations

import contextlib
import subprocess
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from p2premap.errors import ClusterError
from tests.soak import evidence
from tests.soak.cases import Case
from tests.soak.nodes import REPOSITORY, Cluster, Standing, leftovers
from tests.soak.trial import FaultMissed, Hang, Trial
from tests.soak.work import Work

TRIES = 3
"""A fault that came after the job's end proves nothing: the trial is made again with another moment."""
GONE_S = 30.0
FAULT = "This is a fault of p2premap"
"""What a node's last words begin with when something was raised that nobody expected."""


def run(case: Case, number: int, *, seed: int, kept: Path, standing: Standing, always: bool = False) -> dict[str, Any]:
    """Run one trial and return its line for the results file.

    Where its nodes did not come up, nothing was tried: the line says `not_made`, and why.

    Args:
        number: from 0; with the case's name and `seed` it fixes everything that is chosen.
        kept: a directory for the evidence of violations.
        standing: has the nodes of cases that share them.
        always: keep the same of a trial without any.
    """
    begun = time.monotonic()
    facts: dict[str, Any] = {}
    violations = [f"the job was over before the fault, {TRIES} times"]
    for attempt in range(TRIES):
        rng = Random(f"{seed}/{case.name}/{number}/{attempt}")
        evidence_dir = kept / f"{case.name}-{number}"
        try:
            make = partial(_run_standing, standing) if case.standing else _run
            trial = make(case, rng, evidence_dir, always=always)
        except FaultMissed:
            continue
        except (ClusterError, TimeoutError) as error:
            facts, violations = {"not_made": str(error), "evidence": str(evidence_dir)}, []
            break
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


def _run(case: Case, rng: Random, kept: Path, *, always: bool) -> Trial:
    """On nodes of its own.

    Raises:
        FaultMissed: the fault came too late.
        ClusterError, TimeoutError: the nodes did not come up.
    """
    cluster = _cluster(case, kept)
    work = Work(cluster.work_dir, cluster.inputs_dir, rng, **case.work)  # type: ignore[arg-type]
    trial = Trial(cluster, rng, work, case.limit_s)
    with cluster:
        _on(case, trial, kept, always=always)
    until = time.monotonic() + GONE_S
    while (left := leftovers(cluster.home)) and time.monotonic() < until:
        time.sleep(0.05)
    trial.check(not left, f"processes {left} were left over")
    return trial


def _run_standing(standing: Standing, case: Case, rng: Random, kept: Path, *, always: bool) -> Trial:
    """On nodes that were there before and stay."""
    cluster = standing.lend(partial(_cluster, case, kept))
    trial = Trial(cluster, rng, Work(cluster.work_dir, cluster.inputs_dir, rng), case.limit_s)
    _on(case, trial, kept, always=always)
    return trial


def _cluster(case: Case, kept: Path) -> Cluster:
    cluster = case.cluster()
    cluster.on_failed_start = partial(evidence.save, cluster, b"", kept)
    return cluster


def _on(case: Case, trial: Trial, kept: Path, *, always: bool) -> None:
    """The nodes are up."""
    trial.begin()
    _strike(case, trial)
    _sound(trial)
    if trial.violations or always:
        evidence.save(trial.cluster, trial.job, kept)
        trial.facts["evidence"] = str(kept)


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
            trial.judge()


def commit() -> str:
    """The commit that is tried, with a + where files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=8"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return told.stdout.strip() or "unknown"
