"""A node is lost in the shuffle or in the reduce, or its disk fills up, with real processes.

Each test asserts that what it is about has happened: that the node held shuffle parts, that the reduce had begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_rotate import Machine, machines
from tests.cluster import counts, eventually, job_file, p2premap, private

TRACED = """
import os, time

def node():
    \"\"\"The daemon that this runs under: above the worker and its supervisor.\"\"\"
    with open(f"/proc/{{os.getppid()}}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])

def note(what):
    with open({trace!r}, "a") as file:
        file.write(f"{{what}} {{node()}}\\n")

def map(key, line):
    note(f"begin {{line.split()[0]}}")
    while not os.path.exists({map_gate!r}):
        time.sleep(0.01)
    word = line.split()[0]
    note(f"map {{word}}")
    yield word, line

def reduce(key, values):
    note(f"reduce {{key}}")
    while not os.path.exists({reduce_gate!r}):
        time.sleep(0.01)
    return sum(1 for _ in values)
"""
WORDS = [f"word{number}" for number in range(12)]


class Job:
    """A job whose steps wait for gates and leave a trace."""

    def __init__(self, directory: Path) -> None:
        self.trace, self.map_gate, self.reduce_gate = (
            directory / name for name in ("trace", "map-gate", "reduce-gate")
        )
        self.trace.touch()
        inputs = directory / "in"
        inputs.mkdir()
        for word in WORDS:
            (inputs / f"{word}.txt").write_text(f"{word} {'.' * 2_000}\n")  # small files would share a task
        self.inputs = str(inputs)
        gates = {name: str(getattr(self, name)) for name in ("trace", "map_gate", "reduce_gate")}
        self.file = job_file(directory, TRACED.format(**gates))
        self.out = directory / "out"

    def noted(self, what: str) -> list[tuple[str, int]]:
        """(word, node's process) of each call so far."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return [(word, int(pid)) for step, word, pid in lines if step == what]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_node_killed_while_it_holds_shuffle_parts_has_those_alone_made_again(job: Job) -> None:
    with private() as cluster:
        home = cluster.home
        options = ("--detach", "--copies", "1", "--partitions", "6")
        number = p2premap(home, "--node", "n1", "run", job.file, job.inputs, *options).stdout.strip()
        eventually(lambda: re.search(r"out at n\d, n\d", p2premap(home, "why", number).stdout))
        job.map_gate.touch()
        eventually(lambda: job.noted("reduce"))
        maps = [pid for _, pid in job.noted("map") if pid != cluster.pids[0]]
        assert maps, "others than the leader hold shuffle parts"
        lost, other = ("n2", "n3") if maps[0] == cluster.pids[1] else ("n3", "n2")
        before = job.noted("map")
        held = {word for word, pid in before if pid == maps[0]}
        cluster.kill(lost)
        job.reduce_gate.touch()
        done = p2premap(home, "--node", other, "watch", number, "-o", str(job.out))
        assert done.exit_code == 0, done.stderr
        assert counts(job.out) == Counter(WORDS)
        again = {word for word, _ in job.noted("map")[len(before) :]}
        assert again, "shuffle parts were made again"
        assert again <= held


def test_a_node_killed_while_it_reduces_has_its_work_done_elsewhere(job: Job) -> None:
    job.map_gate.touch()
    with private() as cluster:
        home = cluster.home
        number = p2premap(
            home, "--node", "n1", "run", job.file, job.inputs, "--detach", "--partitions", "6"
        ).stdout.strip()
        lost = cluster.pids[1]
        ran = eventually(lambda: [word for word, pid in job.noted("reduce") if pid == lost])
        cluster.kill("n2")

        def stages() -> list[dict[str, int]]:
            (view,) = json.loads(p2premap(home, "--node", "n1", "jobs", "--json").stdout)
            return view["stages"]

        eventually(lambda: stages()[1]["lost_attempts"] >= 1)  # else a backup may have won before
        job.reduce_gate.touch()
        done = p2premap(home, "--node", "n3", "watch", number, "-o", str(job.out))
        assert done.exit_code == 0, done.stderr
        assert counts(job.out) == Counter(WORDS)
        assert set(ran) <= {word for word, pid in job.noted("reduce") if pid != lost}
        assert sum(stage["failed_attempts"] for stage in stages()) == 0


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of this size."""
    path.mkdir(parents=True, exist_ok=True)
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=False).returncode
    ):
        pytest.skip("this system does not let us mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_fills_up_in_the_shuffle_sends_its_tasks_elsewhere(job: Job) -> None:
    with machines("n1", "n2") as (n1, n2):
        n2.end()
        root = Path(n2.home)
        with small_disk(root / "state", "24m"):
            try:
                _fill_in_the_shuffle(job, n1, n2, root / "state" / "ballast")
            finally:
                n2.end()


def _fill_in_the_shuffle(job: Job, n1: Machine, n2: Machine, ballast: Path) -> None:
    n2.start(n1.address)
    eventually(lambda: n1.sees() == {"n1", "n2"})
    number = n1.run("run", job.file, job.inputs, "--detach", "--partitions", "2").strip()
    assert n2.process is not None
    full = n2.process.pid
    eventually(lambda: full in {pid for _, pid in job.noted("begin")})
    fill(ballast)
    job.map_gate.touch()
    job.reduce_gate.touch()
    done = p2premap(n1.home, "watch", number, "-o", str(job.out))
    assert done.exit_code == 0, done.stderr
    assert counts(job.out) == Counter(WORDS)
    tried = {word for word, pid in job.noted("map") if pid == full}
    assert tried, "it had begun to map"
    assert tried <= {word for word, pid in job.noted("map") if pid != full}, "what it could not write, another did"
    (view,) = n1.run("jobs", "--json")
    assert view["stages"][0]["failed_attempts"] == 0, "a full disk is not the task's fault"
    assert any("the disk is full" in warning for warning in n2.status()["warnings"])
