"""A sort of 1 GB of lines with 256 MB of memory, beside GNU sort: the same lines, the same order, the same limit.

One node with two slots, 128 MB a task; GNU sort in the C locale with two threads and a buffer of 256 MB. Both read the
same files and write the result to the same disk; whether they wrote the same is checked.
`python -m bench.sort --mb 100` sorts less.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.children import ROOT, command, said_by
from bench.nodes import Cluster, cpu_s, trees, until
from bench.report import Emitter

QUICK: Final = {"repeat": 1, "size_mb": 10}
SIZE_MB = 1_000
FILES = 10
LINE = 100
"""Bytes of a line: 24 hexadecimal digits, which decide the order, and a text that follows."""
MEMORY_MB = 256
SLOTS = 2
REPEATS = 3


def write_lines(directory: Path, size_mb: int, *, seed: int = 1) -> list[str]:
    """Files of lines in no order; their paths."""
    drawing = random.Random(seed)
    rest = "".join(drawing.choices("abcdefghijklmnopqrstuvwxyz ", k=4 * LINE))
    paths = [directory / f"{number}.txt" for number in range(FILES)]
    for path in paths:
        with path.open("w") as file:
            for _ in range(size_mb * 10**6 // LINE // FILES):
                start = drawing.randrange(3 * LINE)
                file.write(f"{drawing.getrandbits(96):024x}{rest[start : start + LINE - 25]}\n")
    return [str(path) for path in paths]


def gnu_sort(paths: list[str], out: Path) -> tuple[float, float]:
    """Seconds of wall clock and CPU."""
    typed = ["sort", f"--parallel={SLOTS}", "-S", f"{MEMORY_MB}M", "-T", str(out.parent), "-o", str(out), *paths]
    wall, before = time.perf_counter(), os.times()
    said_by(typed, env={**os.environ, "LC_ALL": "C"})
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - wall, used


def ours(paths: list[str], out: Path) -> tuple[float, float]:
    """The same, by `p2premap run`."""
    with Cluster(["only"], slots=SLOTS) as cluster:
        limit = f"{MEMORY_MB // SLOTS}M"
        job = str(ROOT / "bench" / "sort_job.py")
        typed = [sys.executable, "-m", "p2premap", "run", job, *paths, "-o", str(out), "--memory-limit", limit]
        wall, before, cpu = time.perf_counter(), os.times(), cpu_s(cluster.pids)
        environment = {**os.environ, "P2PREMAP_HOME": cluster.home}
        said_by(typed, env=environment, quiet=True)
        wall, after = time.perf_counter() - wall, os.times()
        until(lambda: len(trees(cluster.pids)) == len(cluster.pids))
        cpu = cpu_s(cluster.pids) - cpu + after.children_user + after.children_system
        return wall, cpu - before.children_user - before.children_system


def same(parts: Path, whole: Path) -> bool:
    """Whether the parts, one after the other, are the file."""
    with whole.open("rb") as expected:
        for part in sorted(parts.glob("part-*")):
            with part.open("rb") as file:
                while piece := file.read(1 << 20):
                    if expected.read(len(piece)) != piece:
                        return False
        return not expected.read(1)


def run(emit: Emitter, *, size_mb: int = SIZE_MB, repeat: int = REPEATS) -> None:
    """Write the lines, sort them in turns, compare."""
    theirs_s, ours_s, theirs_cpu, ours_cpu = list[float](), list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="p2p-sort-", dir=os.environ.get("BENCH_DISK")) as name:
        directory = Path(name)
        paths = write_lines(directory, size_mb)
        for _ in range(repeat):
            wall, cpu = gnu_sort(paths, directory / "sorted")
            theirs_s.append(wall)
            theirs_cpu.append(cpu)
            wall, cpu = ours(paths, directory / "parts")
            ours_s.append(wall)
            ours_cpu.append(cpu)
            if not same(directory / "parts", directory / "sorted"):
                raise ValueError("the orders differ")
            shutil.rmtree(directory / "parts")
    emit("GNU sort", theirs_s, "s", mb=size_mb)
    emit("GNU sort: CPU", theirs_cpu, "s")
    emit("p2premap", ours_s, "s", mb=size_mb)
    emit("p2premap: CPU", ours_cpu, "s")
    ratios = [mine / other for mine, other in zip(ours_s, theirs_s, strict=True)]
    emit("p2premap: wall clock over GNU sort's", ratios, "times")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="A sort, measured.")
    parser.add_argument("--mb", type=int, default=SIZE_MB)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    options = parser.parse_args()
    run(Emitter("sort"), size_mb=options.mb, repeat=options.repeat)


if __name__ == "__main__":
    command(main)
