"""Word count of 200 MB in 40 files on 2 slots, beside the same loop in one process and in `multiprocessing.Pool(2)`.

Each system runs in a process of its own, in turns, so that a busy machine is busy for all:

- ``loop lines``     one process: ``for line in file: for word, one in map(None, line): counts[word] += one``, with the
                     very function `map` of examples/wordcount.py
- ``loop blocks``    one process: ``counts.update(text.split())``, a Counter over whole files
- ``two loops at once ...``   two processes that know nothing of each other, each the loop over half of the files: two
                     cores do not do twice of one, as they share caches, memory and a host. So much CPU is spent by
                     whatever uses two slots, and so much time at least
- ``pool lines``, ``pool blocks``   the loops over files in `multiprocessing.Pool(2)`
- ``node lines``, ``node blocks``   the same two examples on a running node with two slots, as `p2premap run` does it:
                     reading and hashing the inputs, planning, starting the processes, mapping, shuffling, reducing, the
                     text parts, and the daemon
- ``ray blocks``, ``dask blocks``   ``Counter(text.split())`` of each file as a task of Ray, whose driver adds them up
                     as they come, and in a Dask bag, whose reduction does (`bench.peers`); warm: their start is not
                     counted, as the node's is not

and, where `--only` asks for them,

- ``plain lines``    one process: ``for line in file: for word in line.split(): counts[word] += 1``, no function at all
- ``direct lines``, ``direct blocks``   all that ``node`` does but for the daemon: p2premap's data path in two processes

CPU is that of all processes. Ratios are those of two runs in the same turn.

`python -m bench.wordcount --texts DIRECTORY --only "loop lines" "node lines"` measures some of it on other texts;
BENCH_TEXTS does the same for `python -m bench`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench import beside
from bench.children import ROOT, command, said_by
from bench.corpus import texts_in, write_corpus
from bench.direct import run_direct
from bench.nodes import Cluster, cpu_s, run_job, trees, until
from bench.report import Emitter
from p2premap.client.connection import local
from p2premap.client.plan import plan_mapreduce

EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))
import wordcount  # type: ignore[import-not-found]  # noqa: E402  (found by the line above)

QUICK: Final = {"repeat": 1, "mb": 4}
REPEATS = 5
SIZE_MB = 200
FILES = 40
CPU_TARGET = 1.1
"""CPU seconds of p2premap, all processes, over those of the same loop."""

Counts = dict[str, int]


class Run(NamedTuple):
    """One run. `answer` tells what was counted, for comparing."""

    wall_s: float
    cpu_s: float
    answer: str


def count_lines(paths: Sequence[str]) -> Counts:
    """The example's own `map`, in a plain loop."""
    counts: defaultdict[str, int] = defaultdict(int)
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                for word, one in wordcount.map(None, line):
                    counts[word] += one
    return counts


def count_plain(paths: Sequence[str]) -> Counts:
    """What one would write who needs nothing but this count."""
    counts: defaultdict[str, int] = defaultdict(int)
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                for word in line.split():
                    counts[word] += 1
    return counts


def count_blocks(paths: Sequence[str]) -> Counts:
    """A Counter over whole files."""
    counts: Counter[str] = Counter()
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            counts.update(file.read().split())
    return counts


def _lines_of(path: str) -> Counts:
    return count_lines([path])


def _blocks_of(path: str) -> Counts:
    return count_blocks([path])


def in_pool(count: Callable[[str], Counts], paths: Sequence[str]) -> Counts:
    """A loop over files in `multiprocessing.Pool(2)`."""
    total: Counter[str] = Counter()
    with multiprocessing.Pool(2) as pool:
        for counts in pool.imap_unordered(count, paths):
            total.update(counts)
        pool.close()
        pool.join()
    return total


def two_at_once(count: Callable[[Sequence[str]], Counts], paths: Sequence[str]) -> Run:
    """The loop over half of the files, in each of two processes that begin at the same time."""
    with multiprocessing.Pool(2) as pool:
        halves = pool.map(partial(_alone, count), (paths[::2], paths[1::2]), chunksize=1)
        pool.close()
        pool.join()
    total: Counter[str] = Counter()
    for _, counts in halves:
        total.update(counts)
    runs = [run for run, _ in halves]
    return Run(max(run.wall_s for run in runs), sum(run.cpu_s for run in runs), _answer(total))


def _alone(count: Callable[[Sequence[str]], Counts], paths: Sequence[str]) -> tuple[Run, Counts]:
    wall, cpu = time.perf_counter(), time.process_time()
    counts = count(paths)
    return Run(time.perf_counter() - wall, time.process_time() - cpu, ""), counts


def direct(example: str, paths: Sequence[str]) -> Counts:
    """p2premap's data path in two worker processes."""
    with tempfile.TemporaryDirectory() as directory:
        submission = plan_mapreduce(str(EXAMPLES / example), paths, slots=2, compression="none")
        outcome = run_direct(submission, directory, workers=2)
    return parse_parts(outcome.parts)


def parse_parts(parts: Sequence[bytes]) -> Counts:
    """The counts in output parts."""
    lines = (line.split("\t") for part in parts for line in part.decode().split("\n") if line)
    return {word: int(count) for word, count in lines}


def _used_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _here(count: Callable[[Sequence[str]], Counts], paths: Sequence[str]) -> Run:
    wall, cpu = time.perf_counter(), _used_s()
    counts = count(paths)
    return Run(time.perf_counter() - wall, _used_s() - cpu, _answer(counts))


def _on_node(example: str, paths: Sequence[str]) -> Run:
    with Cluster(["only"], slots=2) as cluster:
        connect = partial(local, paths=cluster.paths)
        wall, cpu = time.perf_counter(), _used_s() + cpu_s(cluster.pids)
        parts = run_job(connect, str(EXAMPLES / example), paths, paths=cluster.paths)
        wall = time.perf_counter() - wall
        # The kernel tells what a worker used to whoever waits for it: only then is it in the node's figure.
        until(lambda: len(trees(cluster.pids)) == len(cluster.pids))
        cpu = _used_s() + cpu_s(cluster.pids) - cpu
    return Run(wall, cpu, _answer(parse_parts(parts)))


def _answer(counts: Counts) -> str:
    return _said(len(counts), sum(counts.values()), max(counts.values()))


def _said(words: int, in_all: int, commonest: int) -> str:
    return f"{words} words, {in_all} in all, {commonest} of the commonest"


def _peer(system: str, python: str, paths: Sequence[str]) -> Run:
    found = beside.measure("words", system, python, inputs=paths)
    if found is None:
        raise ValueError(f"{system} gave no figures")
    return Run(found["wall_s"], found["cpu_s"], _said(found["words"], found["in_all"], found["commonest"]))


SYSTEMS: dict[str, Callable[[Sequence[str]], Run]] = {
    "loop lines": partial(_here, count_lines),
    "loop blocks": partial(_here, count_blocks),
    "two loops at once lines": partial(two_at_once, count_lines),
    "two loops at once blocks": partial(two_at_once, count_blocks),
    "pool lines": partial(_here, partial(in_pool, _lines_of)),
    "pool blocks": partial(_here, partial(in_pool, _blocks_of)),
    "node lines": partial(_on_node, "wordcount.py"),
    "node blocks": partial(_on_node, "wordcount_blocks.py"),
    "plain lines": partial(_here, count_plain),
    "direct lines": partial(_here, partial(direct, "wordcount.py")),
    "direct blocks": partial(_here, partial(direct, "wordcount_blocks.py")),
}
PEERS = {"ray blocks": "ray", "dask blocks": "dask"}
USUAL = (*(name for name in SYSTEMS if name.split()[0] not in ("plain", "direct")), *PEERS)
"""All but what tells only ourselves anything."""


def measure(names: Sequence[str], paths: Sequence[str], *, repeat: int) -> dict[str, list[Run]]:
    """Each system `repeat` times, in turns.

    Raises:
        ValueError: two of them count differently.
    """
    pythons = beside.interpreters([PEERS[name] for name in names if name in PEERS])
    names = [name for name in names if name not in PEERS or PEERS[name] in pythons]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            if name in PEERS:
                runs[name].append(_peer(PEERS[name], pythons[PEERS[name]], paths))
                continue
            typed = [sys.executable, "-m", "bench.wordcount", "--once", name, *paths]
            runs[name].append(Run(*json.loads(said_by(typed))))
    answers = {run.answer for several in runs.values() for run in several}
    if len(answers) > 1:
        raise ValueError(f"the systems disagree: {answers}")
    return runs


def report(emit: Emitter, runs: Mapping[str, Sequence[Run]], size_mb: float) -> None:
    """Wall clock and CPU of each system, and the ratios, some of which have targets."""
    for name, several in runs.items():
        walls = [run.wall_s for run in several]
        emit(name, walls, "s", mb_per_s=round(size_mb / statistics.median(walls), 1))
        emit(f"{name}: CPU", [run.cpu_s for run in several], "s")
    for name, several in runs.items():
        system, _, form = name.rpartition(" ")
        ours = system in ("direct", "node")
        if system not in ("loop", "plain"):
            _compare(emit, name, several, runs.get(f"loop {form}"), "the loop's", cpu=CPU_TARGET if ours else None)
        if ours:
            _compare(emit, name, several, runs.get(f"two loops at once {form}"), "two loops' at once")
            _compare(emit, name, several, runs.get(f"pool {form}"), "the pool's", wall=1.0)
        for rival in PEERS if ours else ():
            _compare(emit, name, several, runs.get(rival), f"{PEERS[rival]}'s", wall=1.0 if form in rival else None)


def _compare(
    emit: Emitter,
    name: str,
    several: Sequence[Run],
    others: Sequence[Run] | None,
    whose: str,
    *,
    wall: float | None = None,
    cpu: float | None = None,
) -> None:
    """Wall clock and CPU of the runs of each turn, with their targets."""
    if others is None:
        return
    for what, target in (("wall", wall), ("cpu", cpu)):
        ratios = [getattr(a, f"{what}_s") / getattr(b, f"{what}_s") for a, b in zip(several, others, strict=True)]
        emit(f"{name}: {'CPU' if what == 'cpu' else 'wall clock'} over {whose}", ratios, "times", target=target)


def run(
    emit: Emitter, *, names: Sequence[str] = USUAL, texts: str = "", mb: int = SIZE_MB, repeat: int = REPEATS
) -> None:
    """Write the corpus and measure."""
    texts = texts or os.environ.get("BENCH_TEXTS", "")
    with tempfile.TemporaryDirectory(prefix="p2p-corpus-") as directory:
        sources = texts_in([texts] if texts else [])
        paths = write_corpus(Path(directory), sources, size_bytes=mb * 10**6, files=FILES)
        report(emit, measure(names, paths, repeat=repeat), sum(os.path.getsize(path) for path in paths) / 1e6)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Word count, measured.")
    parser.add_argument("--texts", default="", help="a directory of .txt files, or one")
    parser.add_argument("--mb", type=int, default=SIZE_MB)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    parser.add_argument("--only", nargs="*", choices=[*SYSTEMS, *PEERS], default=USUAL)
    parser.add_argument("--once", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        name, *paths = options.once
        print(json.dumps(SYSTEMS[name](paths)))
    else:
        emit = Emitter("wordcount")
        run(emit, names=options.only, texts=options.texts, mb=options.mb, repeat=options.repeat)


if __name__ == "__main__":
    command(main)
