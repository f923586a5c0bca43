"""Ten times what the default tests simulate, in parts: each that is done is a line of a file, and is not done again.

python -m p2premap.sim.deep --results deep.jsonl                 all of it; stop it when you like, and go on later
python -m p2premap.sim.deep --results deep.jsonl --minutes 20    so much of it
python -m p2premap.sim.deep --results deep.jsonl --only trials   one kind only
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import click

from p2premap.sim import electionwalk, gossipwalk, jobwalk
from p2premap.sim.electionsettings import GROWTH, OLD_DISKS
from p2premap.sim.jobsettings import SHORT_STEPS
from p2premap.sim.trials import run_some

WALKS: Final = 200_000
TRIALS: Final = 10_000


class Part(NamedTuple):
    """A piece of work: these seeds of one kind."""

    kind: str
    first: int
    size: int


class Done(NamedTuple):
    """What came of a part.

    Args:
        seconds: of CPU.
        counts: what happened.
        violations: (seed, text).
    """

    part: Part
    seconds: float
    counts: dict[str, int]
    violations: list[tuple[int, str]]


Walked: TypeAlias = tuple[Counter[str], list[tuple[int, str]]]


def _walks(first: int, count: int, walk: Callable[[int], dict[str, int]]) -> Walked:
    counts: Counter[str] = Counter()
    violations = []
    for seed in range(first, first + count):
        try:
            counts.update(walk(seed))
        except Exception as error:  # whatever goes wrong has the number of its seed
            violations.append((seed, str(error) or repr(error)))
    return counts, violations


def _gossip(first: int, count: int) -> Walked:
    def one(seed: int) -> dict[str, int]:
        walk = gossipwalk.walk_of(seed)
        walk.run(gossipwalk.STEPS)
        return walk.counts

    return _walks(first, count, one)


def _elections(first: int, count: int) -> Walked:
    """Four short ones without a liveness phase, then one of another kind."""

    def one(seed: int) -> dict[str, int]:
        if seed % 5:
            walk = electionwalk.walk_of(seed)
            walk.run(electionwalk.SHORT_STEPS, liveness=False)
            return walk.counts
        kind = (None, None, None, GROWTH, OLD_DISKS)[seed // 5 % 5]
        walk = electionwalk.walk_of(seed, kind=kind, encoded=seed % 50 == 0)
        walk.run(electionwalk.STEPS if kind is None else electionwalk.CHANGE_STEPS)
        return walk.counts

    return _walks(first, count, one)


def _jobs(first: int, count: int) -> Walked:
    def one(seed: int) -> dict[str, int]:
        walk = jobwalk.short_walk(seed, takeovers=bool(seed % 2))
        walk.walk(SHORT_STEPS)
        return walk.counts

    return _walks(first, count, one)


def _trials(first: int, count: int) -> Walked:
    summary = run_some(first, count)
    return summary.counts, [(seed, f"{checker}: {text}") for seed, checker, text in summary.failures]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work.

    Args:
        run: does a part of it.
        seeds: all of them; the default tests have others.
        step: so many make a part.
    """

    run: Callable[[int, int], Walked]
    seeds: range
    step: int


KINDS: Final = {
    "trials": Kind(_trials, range(1_001, 1_001 + TRIALS), 20),
    "walks of gossip": Kind(_gossip, range(1_000_000, 1_000_000 + WALKS), 1_000),
    "walks of elections": Kind(_elections, range(1_000_000, 1_000_000 + WALKS), 500),
    "walks of jobs": Kind(_jobs, range(1_000_000, 1_000_000 + WALKS), 500),
}


def run_part(part: Part) -> Done:
    """Do it, in this process."""
    began = time.process_time()
    counts, violations = KINDS[part.kind].run(part.first, part.size)
    return Done(part, round(time.process_time() - began, 1), dict(counts), violations)


def parts_of(kinds: Sequence[str]) -> Iterator[Part]:
    """All parts, the kinds in turn."""
    rows = [[Part(kind, first, KINDS[kind].step) for first in KINDS[kind].seeds[:: KINDS[kind].step]] for kind in kinds]
    return (part for part in chain.from_iterable(zip_longest(*rows)) if part is not None)


def read(results: Path) -> list[Done]:
    """The parts that are done; a line that was cut off in the middle is none."""
    done = []
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            part, seconds, counts, violations = json.loads(line)
        except ValueError:
            continue
        done.append(Done(Part(*part), seconds, counts, [(seed, text) for seed, text in violations]))
    return done


def work(parts: Iterator[Part], results: Path, *, processes: int, until: float) -> Iterator[Done]:
    """Do these parts, each written down when it is done, until that instant of `time.monotonic`."""
    with ProcessPoolExecutor(processes) as pool, results.open("a") as file:
        running: set[Future[Done]] = set()
        while True:
            while len(running) < processes and time.monotonic() < until and (part := next(parts, None)) is not None:
                running.add(pool.submit(run_part, part))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                done = future.result()
                file.write(json.dumps(done) + "\n")
                file.flush()
                yield done


def lines(done: Sequence[Done]) -> list[str]:
    """What was done so far, for people."""
    told = []
    for name, kind in KINDS.items():
        mine = [one for one in done if one.part.kind == name]
        seeds = sum(one.part.size for one in mine)
        counts = sum((Counter(one.counts) for one in mine), Counter())
        seconds = sum(one.seconds for one in mine)
        violations = [violation for one in mine for violation in one.violations]
        told.append(
            f"{name}: {seeds:,} of {len(kind.seeds):,}, {seconds:,.0f} s of CPU, {len(violations)} violations; "
            + ", ".join(f"{count:,} {what}" for what, count in counts.most_common())
        )
        told += [f"  seed {seed}: {text}" for seed, text in violations]
    return told


@click.command()
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A line a part.")
@click.option("--only", type=click.Choice(list(KINDS)), multiple=True, help="These kinds; may be repeated.")
@click.option("--processes", type=int, default=0, help="At the same time; 0: one a CPU.")
@click.option("--minutes", type=float, default=float("inf"), help="Begin nothing more after so many.")
def main(results: Path, only: tuple[str, ...], processes: int, minutes: float) -> None:
    """Walks and trials by the hundred thousand, which go on where they stopped."""
    done = read(results)
    known = {one.part for one in done}
    parts = (part for part in parts_of(only or tuple(KINDS)) if part not in known)
    until = time.monotonic() + minutes * 60
    for one in work(parts, results, processes=processes or os.cpu_count() or 1, until=until):
        done.append(one)
        kind, first, count = one.part
        click.echo(f"... {kind} {first} to {first + count - 1}: {len(one.violations)} violations", err=True)
    click.echo("\n".join(lines(done)))
    sys.exit(any(one.violations for one in done))


if __name__ == "__main__":
    main()
