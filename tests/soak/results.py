"""The results file: one JSON object a trial and line; and what all of them say together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from tests.soak.cases import CASES

Result = dict[str, Any]

FIGURES = (
    ("next_start_s", "s until a task starts anywhere"),
    ("next_assigned_s", "s until a task that the next leader gave out starts"),
    ("copies_again_s", "s until there were three replicas again"),
    ("first_next_assigned_s", "s until the first successor's first task started"),
    ("seconds_after_fault", "s until the job was over"),
    ("up_again_s", "s until all nodes were up again"),
    ("stepped_down_s", "s until the old leader told the others' end"),
    ("ended_after_s", "s until the node had ended"),
    ("unprotected", "tasks unprotected at the fault, as the leader said"),
    ("unprotected_s", "s that the oldest of them had been"),
    ("again", "ended tasks that ran again"),
    ("redone", "of these, tasks that were protected"),
    ("failed_attempts", "attempts that the job counts as failed"),
    ("took_run_s", "s that `p2premap run` took"),
    ("peak_mb", "MB that a daemon held at most"),
    ("grown_mb", "MB by which a daemon had grown at most, since its start"),
)


def load(path: Path) -> list[Result]:
    """All trials so far; a last line that was cut off counts as never written."""
    if not path.exists():
        return []
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        path.write_bytes(whole + b"\n" if whole else b"")
    return [json.loads(line) for line in whole.splitlines() if line]


def append(path: Path, result: Result) -> None:
    """Add one trial."""
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")


def made(result: Result) -> bool:
    """Whether the trial was made: its nodes came up."""
    return "not_made" not in result


def never_made(results: Iterable[Result]) -> set[tuple[str, int]]:
    """Cases and numbers of trials that were begun and have not been made since."""
    begun, there = set[tuple[str, int]](), set[tuple[str, int]]()
    for result in results:
        (there if made(result) else begun).add((result["case"], result["trial"]))
    return begun - there


def summary(results: Iterable[Result]) -> str:
    """For people: a paragraph a case."""
    by_case: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_case[result["case"]].append(result)
    return "\n\n".join(_paragraph(name, by_case[name]) for name in CASES if name in by_case)


def _paragraph(name: str, every: list[Result]) -> str:
    results = [result for result in every if made(result)]
    commits = sorted({result["commit"] for result in every})
    bad = [result for result in results if result["violations"]]
    lines = [f"{name}: {len(results)} trials, {len(bad)} with violations (commit {', '.join(commits)})"]
    if failed := [result for result in every if not made(result)]:
        lines[0] += f"; {len(failed)} times the nodes did not come up, {len(never_made(every))} trials not made since"
    for figure, meaning in FIGURES:
        values = [result[figure] for result in results if result.get(figure, -1) >= 0]
        if values:
            lines.append(f"  {_numbers(values)}  {meaning}{_verdict(name, figure, values)}")
    lines += [f"  trial {r['trial']}: {text}" for r in bad for text in r["violations"]]
    lines += [f"  trial {r['trial']} was not made: {r['not_made']}" for r in failed]
    return "\n".join(lines)


def _numbers(values: list[float]) -> str:
    return f"median {median(values):7.3f}  min {min(values):7.3f}  max {max(values):7.3f}  n {len(values):3}"


def _verdict(name: str, figure: str, values: list[float]) -> str:
    target = CASES[name].targets.get(figure)
    if target is None:
        return ""
    met = median(values) <= target[0] and max(values) <= target[1]
    return f" (median <= {target[0]}, worst <= {target[1]}: {'met' if met else 'MISSED'})"
