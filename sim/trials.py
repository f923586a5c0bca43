"""Many trials over several processes: what failed, made small, and how much was really tested.

python -m p2premap.sim.trials --seeds 1000            the default run
python -m p2premap.sim.trials --seed 17 --strikes 2,5 one trial, as a failure prints it
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import click

from p2premap.sim.observers import InvariantBroken
from p2premap.sim.shrink import shrink
from p2premap.sim.strikes import KINDS
from p2premap.sim.trial import Plan, Report, Trial

CHUNK: Final = 10
COLLECTED_EVERY: Final = 50_000
"""New objects between two runs of the cyclic garbage collector."""

SHRUNK_MAX: Final = 3
"""Failures that are made small; the others are only named."""

FLOORS: Final[dict[str, float]] = {
    "ended": 2.5,
    "takeover": 0.5,
    "protected": 30.0,
    "cell": 5.0,
    "lost disk": 0.3,
    "old disk": 0.3,
    "crash in a step": 0.2,
    "write lost with the power": 0.02,
} | dict.fromkeys((kind for kind in KINDS if kind not in ("lost disk", "old disk", "crash in a step")), 0.5)
"""What must have happened in each trial on average, or nothing was tested."""

FLOORED_FROM: Final = 50
"""Fewer trials than this need not reach the floors."""

JUDGED_FROM: Final = 2.0
"""What may be expected less often than this says nothing by its absence."""


@dataclass(slots=True)
class Summary:
    """What many trials have seen.

    Args:
        failures: (seed, checker, one sentence).
    """

    trials: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    steps: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: Summary) -> None:
        """Take these in, too."""
        self.trials += other.trials
        self.counts.update(other.counts)
        self.failures += other.failures
        self.steps += other.steps
        self.virtual_s += other.virtual_s
        self.cpu_s += other.cpu_s

    def below(self) -> dict[str, int]:
        """What happened too seldom."""
        if self.trials < FLOORED_FROM:
            return {}
        floors = {what: least * self.trials for what, least in FLOORS.items()}
        return {what: self.counts[what] for what, least in floors.items() if self.counts[what] < least >= JUDGED_FROM}


def run_some(first: int, count: int, nodes: int = 7) -> Summary:
    """These seeds, one after the other, in this process."""
    began, summary = time.process_time(), Summary()
    with _rarely_collected():
        _run_each(summary, range(first, first + count), nodes)
    summary.cpu_s = time.process_time() - began
    return summary


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """The cyclic garbage collector looks at what these trials make, seldom, and at nothing that was there before.

    A world is one large cycle that lives for a trial: at its usual pace the collector would walk it a thousand times.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_EVERY, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:  # else whoever froze what was there wants it to stay so
            gc.unfreeze()


def _run_each(summary: Summary, seeds: Iterable[int], nodes: int) -> None:
    for seed in seeds:
        trial = Trial(Plan(seed=seed, nodes=nodes))
        try:
            trial.run()
        except InvariantBroken as error:
            summary.failures.append((seed, error.checker, f"{error.text} (at {error.at:.3f} s)"))
        except Exception as error:  # whatever goes wrong has the number of its seed
            summary.failures.append((seed, type(error).__name__, str(error)))
        _take(summary, trial.report)


def _take(summary: Summary, report: Report) -> None:
    summary.trials += 1
    summary.counts.update(report.counts)
    summary.steps += report.steps
    summary.virtual_s += report.virtual_s


def run_many(first: int, count: int, *, nodes: int = 7, processes: int = 0) -> Iterator[Summary]:
    """These seeds over so many processes (0: one a CPU); what is known, every time that some more are done."""
    total = Summary()
    with ProcessPoolExecutor(processes or os.cpu_count() or 1) as pool:
        starts = range(first, first + count, CHUNK)
        sizes = [min(CHUNK, first + count - start) for start in starts]
        for summary in pool.map(run_some, starts, sizes, [nodes] * len(sizes)):
            total.add(summary)
            yield total


@click.command()
@click.option("--seeds", type=int, default=100, show_default=True, help="How many.")
@click.option("--first", type=int, default=1, show_default=True, help="The first of them.")
@click.option("--processes", type=int, default=0, help="At the same time; 0: one a CPU.")
@click.option("--nodes", type=int, default=7, show_default=True)
@click.option("--jobs", type=int, default=3, show_default=True)
@click.option("--seed", type=int, help="Only this one.")
@click.option("--strikes", help="Of its faults only these, by number; none: none.")
@click.option("--clients", help="Of its clients only these, by number.")
@click.option("--halved", help="Faults whose time is halved: NUMBER:TIMES,...")
@click.option("--shrink/--no-shrink", "small", default=True, help="Make what fails small.")
def main(
    seeds: int,
    first: int,
    processes: int,
    nodes: int,
    jobs: int,
    seed: int | None,
    strikes: str | None,
    clients: str | None,
    halved: str | None,
    small: bool,
) -> None:
    """Jobs under every kind of fault, on virtual nodes in virtual time."""
    if seed is not None:
        pairs = [pair.partition(":") for pair in halved.split(",")] if halved else []
        plan = Plan(
            seed=seed,
            nodes=nodes,
            jobs=jobs,
            kept=None if strikes is None else _numbers(strikes),
            clients=None if clients is None else _numbers(clients),
            halved=tuple((int(place), int(times)) for place, _, times in pairs),
        )
        sys.exit(_one(plan, small=small))
    began = time.perf_counter()
    for total in run_many(first, seeds, nodes=nodes, processes=processes):
        failed = ", ".join(f"{seed} by {checker}" for seed, checker, _ in total.failures) or "none"
        click.echo(f"... {total.trials} of {seeds}; failed: {failed}", err=True)
    click.echo("\n".join(lines(total, time.perf_counter() - began)))
    for seed, checker, _ in total.failures[: SHRUNK_MAX if small else 0]:
        plan = shrink(Plan(seed=seed, nodes=nodes), checker)
        click.echo(f"\nseed {seed} fails by {checker} with these alone:")
        click.echo("\n".join(f"  {strike}" for strike in plan.strikes()))
        click.echo(f"  {plan.command()}")
    sys.exit(bool(total.failures or total.below()))


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(map(int, text.split(",")))


def _one(plan: Plan, *, small: bool) -> int:
    trial = Trial(plan)
    click.echo("\n".join(f"  {strike}" for strike in plan.strikes()))
    try:
        report = trial.run()
    except InvariantBroken as error:
        click.echo(f"{error}")
        if small:
            click.echo(f"the smallest: {shrink(plan, error.checker).command()}")
        return 1
    click.echo(f"nothing failed; {dict(report.counts)}; trace {report.trace}")
    return 0


def lines(summary: Summary, wall_s: float) -> list[str]:
    """A summary for people."""
    counts = summary.counts
    told = [
        f"{summary.trials} trials, {summary.virtual_s:.0f} virtual seconds, {summary.steps} steps; "
        f"{summary.cpu_s / max(1, summary.trials):.3f} s of CPU each, {wall_s:.1f} s in all",
        f"jobs: {counts['acknowledged']} acknowledged, {counts['ended']} ended, "
        f"{counts['excused']} with too many disks lost; {counts['takeover']} takeovers, {counts['fork']} forks",
        f"results that a quorum held: {counts['protected']}; run again although held: 0; "
        f"run again for lost bytes: {counts['redone for lost bytes']}",
        "faults: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS),
        f"lost with the power: {counts['blob lost with the power']} blobs, "
        f"{counts['write lost with the power']} unsynced writes",
    ]
    told += [f"TOO FEW: {what}: {count}" for what, count in summary.below().items()]
    told += [f"FAILED: seed {seed}: {checker}: {text}" for seed, checker, text in summary.failures]
    return told


if __name__ == "__main__":
    main()
