"""`run --with-requirements` and `connect(with_requirements=...)` with real nodes, from wheels in a directory."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import p2premap
from p2premap.client.private import PrivateCluster
from tests.cli.test_rotate import Machine, machines
from tests.cluster import eventually, job_file, private, start
from tests.cluster import p2premap as command
from tests.wheels import requirements, wheel

JOB = """
requires = ["package tiny >=1.2"]

def map(key, line):
    import sys, tiny, inner
    yield (tiny.VERSION, inner.VERSION), 1

def reduce(key, ones):
    return sum(ones)
"""
HELD = """
import os, trio
from p2premap.cli import main
from p2premap.node.environments import Environments

install = Environments._install

async def when_open(self, lock, path):
    while not os.path.exists({gate!r}):
        await trio.sleep(0.01)
    await install(self, lock, path)

Environments._install = when_open
main()
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    directory = tmp_path / "wheels"
    wheel(directory, "tiny", "1.1", requires=["inner"])
    wheel(directory, "tiny", "1.5", requires=["inner"])
    wheel(directory, "inner", "2.0")
    return directory


def made(home: str) -> list[str]:
    return sorted(path.name for path in Path(home).glob("state/*/*/*/environments/*.ready"))


def test_a_job_has_installed_what_it_asks_for(tmp_path: Path, wheels: Path) -> None:
    """While an installer runs the nodes answer, and say what they do; a second job finds it all made."""
    asked = requirements(tmp_path / "requirements.txt", wheels, "tiny")
    (tmp_path / "in.txt").write_text("line\n" * 10)
    args = ("run", job_file(tmp_path, JOB), str(tmp_path / "in.txt"), "--with-requirements", asked)
    gate = tmp_path / "gate"
    with machines("n1", "n2", program=HELD.format(gate=str(gate))) as (n1, n2):

        def notes() -> list[str]:
            return [view["note"] for view in n1.run("jobs", "--json") if "making its environment" in view["note"]]

        def making(node: Machine) -> bool:
            return "it is making the environment of a job" in str(node.run("why", node.name))

        first = start(n1.home, *args)
        try:
            assert "says: making its environment" in eventually(notes)[0]
            eventually(lambda: making(n1))
            gate.touch()
            out, err = first.communicate(timeout=120)
        finally:
            if first.poll() is None:
                first.kill()
                first.communicate()
        assert (first.returncode, out) == (0, '["1.5","2.0"]\t10\n'), err
        assert "Resolving" in err
        eventually(lambda: not making(n1) and not making(n2))
        assert len({*made(n1.home), *made(n2.home)}) == 1
        shutil.rmtree(wheels)
        again = command(n1.home, *args)
        assert (again.exit_code, again.stdout) == (0, out), again.stderr
        assert "Resolving" not in again.stderr, "the lock is kept, and the wheels are with the nodes"
        cleaned = n1.run("cleanup", "--days", "0", "--json")
        assert cleaned["environments"] >= 1
        assert made(n1.home) == made(n2.home) == []


def test_calls_and_calls_that_they_make_have_it_too(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requirements(tmp_path / "requirements.txt", wheels, "tiny==1.1")
    with private(("n1",)) as cluster:
        monkeypatch.setenv("P2PREMAP_HOME", cluster.home)
        with p2premap.connect(with_requirements=asked, told=lambda _: None) as connected:

            def inside(depth: int) -> tuple[str, str, bool]:
                import sys

                import tiny

                import p2premap

                if depth:
                    with p2premap.connect() as inner:
                        return inner.submit(inside, depth - 1).result(60)
                return tiny.VERSION, sys.prefix, "hypothesis" in sys.modules

            version, prefix, _ = connected.submit(inside, 1).result(60)
        assert version == "1.1"
        assert Path(prefix).parent.name == "environments"
        with p2premap.connect(told=lambda _: None) as connected:
            assert connected.submit(_prefix).result(60) == sys.prefix, "no environment for who asks for none"


def _prefix() -> str:
    import sys

    return sys.prefix


def test_what_cannot_be_resolved_is_one_sentence(three_nodes: PrivateCluster, tmp_path: Path, wheels: Path) -> None:
    wheel(wheels, "inner", "1.0")
    wheel(wheels, "other", requires=["inner>=2"])
    wheel(wheels, "msgspec", "0.1")
    (tmp_path / "in.txt").write_text("line\n")
    for lines, sentence in (
        (["tiny", "inner<2", "other"], "Cannot install .*inner<2.*: .*other 1.0 depends on inner>=2"),
        (["msgspec==0.1"], "msgspec==0.1.*: .*p2premap msgspec>="),
    ):
        asked = requirements(tmp_path / "requirements.txt", wheels, *lines)
        args = ("run", job_file(tmp_path, JOB), str(tmp_path / "in.txt"), "--with-requirements", asked)
        done = command(three_nodes.home, *args)
        assert done.exit_code == 2
        said = done.stderr.strip().splitlines()[-1]
        assert f"{asked} cannot be resolved: " in said
        assert re.search(sentence, said), said


def test_a_missing_requirements_file_is_one_sentence(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("line\n")
    done = command(
        three_nodes.home, "run", job_file(tmp_path, JOB), str(tmp_path / "in.txt"), "--with-requirements", "nowhere.txt"
    )
    assert done.exit_code == 2
    assert "Cannot read the requirements file nowhere.txt: No such file or directory." in done.stderr


def test_a_node_that_cannot_make_it_is_passed_over_and_says_why(tmp_path: Path, wheels: Path) -> None:
    asked = requirements(tmp_path / "requirements.txt", wheels, "tiny")
    (tmp_path / "in.txt").write_text("line\n" * 10)
    args = ("run", job_file(tmp_path, JOB), str(tmp_path / "in.txt"), "--with-requirements", asked)
    with machines("n1", "n2") as (n1, n2):
        for path in Path(n1.home).glob("state/*/*/*/blobs"):
            (path.parent / "environments").write_text("in the way")
        done = command(n1.home, *args)
        assert (done.exit_code, done.stdout) == (0, '["1.5","2.0"]\t10\n'), done.stderr
        assert (made(n1.home), len(made(n2.home))) == ([], 1)
        n2.end()
        process = start(n1.home, *args)
        try:
            said = eventually(lambda: [v["note"] for v in n1.run("jobs", "--json") if "cannot be made" in v["note"]])
            assert "n1 says: its environment cannot be made: " in said[0]
            (job,) = [v["id"] for v in n1.run("jobs", "--json") if v["phase"] == "running" or v["phase"] == "waiting"]
            eventually(lambda: "its environment cannot be made" in n1.run("why", job))
        finally:
            process.kill()
            process.communicate()
