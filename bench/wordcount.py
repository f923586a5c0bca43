"""Word count against the same loop in one process and in `multiprocessing.Pool(2)`; JSON lines.

`python -m bench.wordcount CORPUS [--repeat 3]`, CORPUS a directory made by `bench.corpus`. What is compared, in turns,
so that a busy machine is busy for all:

- ``loop lines``     one process: ``for line in file: for word, one in map(None, line): counts[word] += one``, with the
                     very function `map` of examples/wordcount.py
- ``plain lines``    one process: ``for line in file: for word in line.split(): counts[word] += 1``, no function at all
- ``loop blocks``    one process: ``counts.update(text.split())``, a Counter over whole files
- ``pool lines``, ``pool blocks``   the same loops over files in `multiprocessing.Pool(2)`
- ``direct lines``, ``direct blocks``   p2premap's data path in two worker processes, without daemons: reading and
                     hashing the inputs, planning, starting the processes, mapping, shuffling, reducing, the text parts

Other systems can be added by `measure`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.direct import run_direct
from p2premap.client.plan import plan_mapreduce

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
import wordcount  # noqa: E402

Count = Callable[[Sequence[str]], dict[str, int]]


def count_lines(paths: Sequence[str]) -> dict[str, int]:
    """The example's own `map`, in a plain loop."""
    counts: defaultdict[str, int] = defaultdict(int)
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                for word, one in wordcount.map(None, line):
                    counts[word] += one
    return counts


def count_plain(paths: Sequence[str]) -> dict[str, int]:
    """What one would write who needs nothing but this count."""
    counts: defaultdict[str, int] = defaultdict(int)
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                for word in line.split():
                    counts[word] += 1
    return counts


def count_blocks(paths: Sequence[str]) -> dict[str, int]:
    """A Counter over whole files."""
    counts: Counter[str] = Counter()
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            counts.update(file.read().split())
    return counts


def _lines_of(path: str) -> dict[str, int]:
    return count_lines([path])


def _blocks_of(path: str) -> dict[str, int]:
    return count_blocks([path])


def pooled(count: Callable[[str], dict[str, int]]) -> Count:
    """A loop over files in `multiprocessing.Pool(2)`."""

    def run(paths: Sequence[str]) -> dict[str, int]:
        total: Counter[str] = Counter()
        with multiprocessing.Pool(2) as pool:
            for counts in pool.imap_unordered(count, paths):
                total.update(counts)
        return total

    return run


def direct(example: str) -> Count:
    """p2premap's data path in two worker processes."""

    def run(paths: Sequence[str]) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as directory:
            submission = plan_mapreduce(str(EXAMPLES / example), paths, slots=2, compression="none")
            outcome = run_direct(submission, directory, workers=2)
        return parse_parts(outcome.parts)

    return run


def parse_parts(parts: Sequence[bytes]) -> dict[str, int]:
    """The counts in output parts."""
    lines = (line.split("\t") for part in parts for line in part.decode().split("\n") if line)
    return {word: int(count) for word, count in lines}


SYSTEMS: dict[str, Count] = {
    "loop lines": count_lines,
    "plain lines": count_plain,
    "loop blocks": count_blocks,
    "pool lines": pooled(_lines_of),
    "pool blocks": pooled(_blocks_of),
    "direct lines": direct("wordcount.py"),
    "direct blocks": direct("wordcount_blocks.py"),
}


def cpu_s() -> float:
    """CPU seconds of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def once(name: str, paths: Sequence[str]) -> tuple[float, float, str]:
    """Wall and CPU seconds of one run, and a digest of what it counted."""
    wall, cpu = time.perf_counter(), cpu_s()
    counts = SYSTEMS[name](paths)
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    return wall, cpu, f"{len(counts)} words, {sum(counts.values())} in all, {max(counts.values())} of the commonest"


def measure(names: Sequence[str], corpus: str, *, repeat: int) -> list[dict[str, object]]:
    """Each system `repeat` times, in turns, each run in a process of its own.

    Raises:
        ValueError: two of them count differently.
    """
    size = sum(p.stat().st_size for p in Path(corpus).glob("*.txt"))
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpus: dict[str, list[float]] = {name: [] for name in names}
    answers: set[str] = set()
    for _ in range(repeat):
        for name in names:
            command = [sys.executable, "-m", "bench.wordcount", corpus, "--once", name]
            ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=EXAMPLES.parent)
            wall, cpu, answer = json.loads(ended.stdout)
            walls[name].append(wall)
            cpus[name].append(cpu)
            answers.add(answer)
    if len(answers) > 1:
        raise ValueError(f"the systems disagree: {answers}")
    return [_row(name, size, walls, cpus) for name in names]


def _row(name: str, size: int, walls: dict[str, list[float]], cpus: dict[str, list[float]]) -> dict[str, object]:
    same = f"loop {name.split()[-1]}"
    row: dict[str, object] = {"bench": "wordcount", "system": name, "mb": round(size / 1e6)}
    for what, figures in (("wall_s", walls[name]), ("cpu_s", cpus[name])):
        row |= {f"{what}_{f.__name__}": round(f(figures), 2) for f in (statistics.median, min, max)}
    row["mb_per_s"] = round(size / 1e6 / statistics.median(walls[name]), 1)
    if same in cpus:
        ratios = [ours / loop for ours, loop in zip(cpus[name], cpus[same], strict=True)]
        row |= {f"cpu_ratio_{f.__name__}": round(f(ratios), 2) for f in (statistics.median, min, max)}
    return row


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Word count, measured.")
    parser.add_argument("corpus")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--once", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.once, sorted(map(str, Path(options.corpus).glob("*.txt"))))))
        return
    for row in measure(options.only, options.corpus, repeat=options.repeat):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
