"""Nodes with different minor versions of Python: source runs on all, bytecode only on the program's own.

One node says that it runs a Python of the future; where another real one has what p2premap needs, it works, too.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2premap
from tests.cli.test_rotate import Machine, machines
from tests.cluster import environment, eventually, job_file
from tests.cluster import p2premap as command

FUTURE = "import platform; platform.python_version = lambda: '3.99.1'; from p2premap.cli import main; main()"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
NEEDED = "import blake3, cbor2, click, cloudpickle, cryptography, msgspec, psutil, rich, trio, zeroconf"

JOB = """
import sys
from near import label

reader = "task"

def map(key, blocks):
    for _ in blocks:
        yield label("%d.%d" % sys.version_info[:2]), 1

def reduce(key, ones):
    return sum(ones)
"""

PROGRAM = """
import sys
import p2premap

FACTOR = 3

def where(x):
    import time
    time.sleep(0.01)
    return "%d.%d" % sys.version_info[:2], FACTOR * x

with p2premap.connect() as cluster:
    answers = list(cluster.map(where, range(60), chunksize=1))
    print(sorted({minor for minor, _ in answers}), sum(number for _, number in answers))
"""


def restart_as(machine: Machine, join: str, *start: str) -> None:
    machine.end()
    machine.command = start
    machine.start(join)


def pythons(machine: Machine) -> set[str]:
    views = [view for view in machine.run("nodes", "--json") if view["state"] == "alive"]
    return {view["python"].rpartition(".")[0] for view in views if view["python"]}


def test_calls_run_on_the_programs_own_minor_and_job_files_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "near.py").write_text("def label(minor):\n    return 'Python ' + minor\n")
    with machines("n1", "n2") as (n1, n2):
        restart_as(n2, n1.address, sys.executable, "-c", FUTURE)
        eventually(lambda: pythons(n1) == {MINOR, "3.99"})
        monkeypatch.setenv("P2PREMAP_HOME", n1.home)
        said: list[str] = []
        with p2premap.connect(told=said.append) as cluster:
            parents = set(cluster.map(_node_above, range(40), chunksize=1))
            why = n1.run("why", cluster.job_id[:8])
        assert n1.process is not None
        assert (parents, said) == ({n1.process.pid}, []), why

        inputs = []
        for number in range(16):
            (tmp_path / f"{number}.txt").write_text("line\n")
            inputs.append(str(tmp_path / f"{number}.txt"))
        done = command(n1.home, "run", job_file(tmp_path, JOB), *inputs, "--require", "python 3.99", "--json")
        (view,) = json.loads(done.stdout)["nodes"]
        assert view["name"] == "n2", "a job file asks for no minor of its own"

        restart_as(n1, n2.address, sys.executable, "-c", FUTURE)
        eventually(lambda: pythons(n1) == {"3.99"})
        with p2premap.connect(told=said.append) as cluster:
            future = cluster.submit(_node_above, 0)
            (unmet, *_) = eventually(lambda: [v["unmet"] for v in n1.run("jobs", "--json") if v["unmet"]])
            assert unmet[0]["lacks"] == f"python {MINOR}"
            assert unmet[0]["has"] == "Python 3.99.1"
            eventually(lambda: said)
            future.cancel()
    assert said == [
        f"No node here runs Python {MINOR}, as this program does and its functions need, but 3.99: "
        "what it calls waits until one comes."
    ]


def _node_above(_: int) -> int:
    """The node that runs this: above the worker and its supervisor."""
    import os
    import time

    time.sleep(0.01)
    with open(f"/proc/{os.getppid()}/stat") as file:
        status = file.read()
    return int(status.rpartition(")")[2].split()[1])


@functools.cache
def other_python() -> str:
    """An interpreter of another minor that has what p2premap depends on; "" if there is none."""
    return next(filter(_can, _candidates()), "")


def _candidates() -> Iterator[str]:
    if named := os.environ.get("P2PREMAP_TEST_PYTHON"):
        yield named
    for minor in range(11, 16):
        if minor != sys.version_info.minor and (found := shutil.which(f"python3.{minor}")):
            yield found


def _can(python: str) -> bool:
    return subprocess.run([python, "-c", NEEDED], capture_output=True, timeout=60).returncode == 0


def test_nodes_of_two_real_minors_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = other_python()
    if not other:
        pytest.skip("no Python of another minor here has what p2premap depends on; name one by P2PREMAP_TEST_PYTHON")
    root = str(Path(p2premap.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", root)
    (tmp_path / "near.py").write_text("def label(minor):\n    return minor\n")
    with machines("n1", "n2") as (n1, n2):
        restart_as(n2, n1.address, other, "-m", "p2premap")
        theirs = eventually(lambda: pythons(n1) - {MINOR}).pop()
        (tmp_path / "program.py").write_text(PROGRAM)
        for python, minor in ((sys.executable, MINOR), (other, theirs)):
            done = subprocess.run(
                [python, str(tmp_path / "program.py")],
                env=environment(n1.home),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.stdout == f"['{minor}'] {3 * sum(range(60))}\n", done.stderr
        (tmp_path / "in.txt").write_text("line\n")
        for minor in (MINOR, theirs):
            args = (job_file(tmp_path, JOB), str(tmp_path / "in.txt"), "--require", f"python {minor}")
            done = command(n1.home, "run", *args)
            assert (done.exit_code, done.stdout) == (0, f"{minor}\t1\n"), done.stderr
