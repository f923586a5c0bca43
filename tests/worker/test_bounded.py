"""Memory: a shuffle far larger than what an attempt may take, and runs that are too many to be merged at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from textwrap import dedent

import pytest

from bench.direct import run_direct
from p2premap.client.plan import plan_mapreduce
from p2premap.tasks.job import JobOptions, Limits
from p2premap.tasks.mapreduce_plan import MapParams
from p2premap.worker import grouping, shuffle
from p2premap.worker import merge as merging
from p2premap.worker.merge import Run, merge
from p2premap.worker.pairs import Pair
from p2premap.worker.runtime import Segment
from p2premap.worker.shuffle import RunWriter, narrowed
from p2premap.worker.vocabulary import Vocabulary
from tests.worker.jobs import context, forgotten, lines, settings

LIMIT_BYTES = 40 << 20

PROGRAM = """
    import sys
    from bench.direct import run_direct
    from p2premap.client.plan import plan_mapreduce
    from p2premap.tasks.job import JobOptions, Limits

    here, options = sys.argv[1], JobOptions(limits=Limits(memory_bytes=int(sys.argv[2])))
    given = {"slots": 1, "partitions": 2, "compression": "none", "options": options}
    submission = plan_mapreduce(f"{here}/job.py", [f"{here}/in.txt"], **given)
    for part in run_direct(submission, f"{here}/work").parts:
        sys.stdout.write(part.decode())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_shuffle_ten_times_larger_than_the_memory_limit(tmp_path: Path) -> None:
    """400 MB between map and reduce, in a process that never takes more than 40 MB."""
    source = """
        def map(key, line):
            for n in range(1_000):
                yield n * 7_919 % 1_000, (line * 4_096)[:4_096]

        def reduce(key, values):
            yield key, sum(map_len(values))
            if key > 990:
                with open("/proc/self/status") as status:  # ru_maxrss starts at the forking process's
                    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
                yield f"peak of {key}", int(peak) << 10

        def map_len(values):
            for value in values:
                yield len(value)
    """
    (tmp_path / "job.py").write_text(dedent(source))
    (tmp_path / "in.txt").write_text("".join(f"line {n}\n" for n in range(100)))
    program = [sys.executable, "-c", dedent(PROGRAM), str(tmp_path), str(LIMIT_BYTES)]
    out = subprocess.run(program, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True).stdout
    found = dict(line.split("\t") for line in out.splitlines())
    counted = {int(key): int(value) for key, value in found.items() if not key.startswith("peak")}
    assert counted == dict.fromkeys(range(1_000), 100 * 4_096)
    assert sum(counted.values()) > 9.7 * LIMIT_BYTES
    peaks = [int(value) for key, value in found.items() if key.startswith("peak")]
    assert max(peaks) < LIMIT_BYTES


def run_of(path: Path, columns: list[tuple[int, list[int]]]) -> Run:
    with path.open("wb") as file:
        writer = RunWriter(file.write, compression="none", block_bytes=100)
        writer.add_lists([key for key, _ in columns], [values for _, values in columns])
    return Run(Segment(str(path), 0, path.stat().st_size, b"", True, ""))


@pytest.mark.parametrize("most", [0, 2, 3, 100])
def test_too_many_runs_are_merged_in_several_passes(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of a key stay in order of run, and no merge is wider than it may be."""
    widths: list[int] = []

    def counted(runs: list[Run]):
        widths.append(len(runs))
        return merge(runs)

    monkeypatch.setattr(shuffle, "merge", counted)
    runs = [run_of(tmp_path / f"{n}", [(key, [n, n]) for key in range(n % 3, 50, n % 5 + 1)]) for n in range(17)]
    expected = sorted((key, n) for n in range(17) for key in range(n % 3, 50, n % 5 + 1) for _ in range(2))
    attempt = context(tmp_path)
    narrow = narrowed(runs, most, attempt, 100)
    assert len(narrow) <= (most or 17)
    assert (attempt.spilled is not None) == (0 < most < 17), "what is put aside on disk is told, and nothing else"
    found = [(key, value) for keys, groups in merging.merge(narrow) for key in keys for value in groups[key]]
    assert found == expected
    assert all(width <= most for width in widths)
    assert [key for key, _ in groupby(found, lambda pair: pair[0])] == sorted({key for key, _ in expected})


def test_what_an_attempt_may_hold_follows_its_limit() -> None:
    assert shuffle.budget(0) == shuffle.MEMORY_BYTES
    assert shuffle.budget(1 << 40) == shuffle.MEMORY_BYTES
    assert shuffle.budget(1) == 2 << 20
    assert shuffle.budget(96 << 20) == 32 << 20


@pytest.mark.parametrize("size", [40_000, 400])
def test_large_values_are_counted_before_many_are_taken(tmp_path: Path, size: int) -> None:
    """Nothing is known of the first values; then no more are taken than fit."""
    source = f"""
        def map(key, line):
            for n in range(20_000_000 // {size}):
                yield n % 50, (line * {size})[:{size}]

        def reduce(key, values):
            yield key, sum(len(value) for value in values)
    """
    (tmp_path / "job.py").write_text(dedent(source))
    held: list[int] = []
    plain = grouping.Lists.add

    def counted(self: grouping.Lists, pairs: Iterator[Pair], most: int) -> Iterator[Pair] | None:
        rest = plain(self, pairs, most)
        held.append(sum(len(value) for values in self.groups.values() for value in values))
        return rest

    (tmp_path / "in.txt").write_text("line\n")
    options = JobOptions(limits=Limits(memory_bytes=LIMIT_BYTES))
    with pytest.MonkeyPatch.context() as patch, forgotten():
        patch.setattr(grouping.Lists, "add", counted)
        patch.chdir(tmp_path)
        submission = plan_mapreduce("job.py", ["in.txt"], slots=1, partitions=1, compression="none", options=options)
        outcome = run_direct(submission, tmp_path / "work")
    assert sum(int(line.split("\t")[1]) for line in lines(outcome)) == 20_000_000 // size * size
    assert max(held) < 1.3 * shuffle.budget(LIMIT_BYTES)


@pytest.mark.parametrize("most", [2_621, 2_001, 17])
def test_an_add_of_one_pair_does_not_make_the_next_ones_look_small(tmp_path: Path, most: int) -> None:
    """A file comes in pieces, and what is left of one after a chunk may be a single pair."""
    budget = 4 << 20
    params = MapParams(names=(), partitions=1, compression="none", block_bytes=4096)
    taking = shuffle.MapOutput(settings(), params, context(tmp_path), Vocabulary(), memory_bytes=budget)
    held: list[int] = []
    for piece in range(200_000 // most):
        first = piece * most
        taking.add(iter([(b"%080d" % (first + n), None) for n in range(most)]))
        taking.add(iter([(b"%080d" % first, None)]))
        held.append(taking.bytes_held)
    assert max(held) < 1.5 * budget
