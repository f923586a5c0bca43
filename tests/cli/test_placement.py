"""Requirements with real nodes: who runs what, and what is said where nobody can."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import p2premap
from tests.cli.test_rotate import machines
from tests.cluster import COMMAND, counts, environment, eventually, job_file
from tests.cluster import p2premap as command

WORDS = """
requires = ["tag fast"]

def map(key, line):
    for word in line.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""


def test_a_job_runs_where_it_can_and_says_who_lacks_what_where_it_cannot(tmp_path: Path) -> None:
    inputs = tmp_path / "in.txt"
    inputs.write_text("one two\n" * 1000)
    file = job_file(tmp_path, WORDS)
    with machines("n1", "n2") as (n1, n2):
        refused = command(n1.home, "run", file, str(inputs), "--require", "disk 5")
        assert refused.exit_code == 2
        assert "'disk 5' is not understood" in refused.stderr
        args = ("run", file, str(inputs), "-o", str(tmp_path / "out"), "--require", "package cbor2")
        said = tmp_path / "said"
        with said.open("w") as stderr:
            process = subprocess.Popen([*COMMAND, *args], env=environment(n1.home), stderr=stderr)

        def waits() -> str:
            """The job, once it is known of the nodes which packages they have."""
            (view,) = n1.run("jobs", "--json") or [{"id": "", "unmet": []}]
            lacking = {(row["node"], row["lacks"]) for row in view["unmet"]}
            return view["id"] if lacking == {("n1", "tag fast"), ("n2", "tag fast")} else ""

        try:
            job = eventually(waits)
            why = n1.run("why", job)
            assert why.splitlines()[1].split() == ["NODE", "LACKS", "HAS"]
            assert "n2    tag fast  no tags" in why.splitlines()
            eventually(lambda: "n1 lacks tag fast (it has no tags)" in said.read_text())
            eventually(lambda: "NODE  LACKS     HAS" in said.read_text().splitlines())
            n2.end()
            n2.start(n1.address, "--tag", "fast")
            process.wait(60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, said.read_text()
        assert counts(tmp_path / "out") == {"one": 1000, "two": 1000}
        (view,) = n1.run("jobs", "--json")
        assert {one["name"] for one in view["nodes"]} == {"n2"}


def test_futures_run_only_where_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    with machines("n1", "n2") as (n1, n2):
        n2.end()
        n2.start(n1.address, "--tag", "fast")
        monkeypatch.setenv("P2PREMAP_HOME", n1.home)
        with pytest.raises(p2premap.JobRejected, match="say which tag"):
            p2premap.connect(requires="tag")
        with p2premap.connect(requires=["tag fast", "program sh | program zsh"], told=lambda _: None) as cluster:
            parents = set(cluster.map(_node_above, range(8)))
        assert n2.process is not None
        assert parents == {n2.process.pid}


def _node_above(_: int) -> int:
    """The node that runs this: above the worker and its supervisor."""
    import os

    with open(f"/proc/{os.getppid()}/stat") as file:
        status = file.read()
    return int(status.rpartition(")")[2].split()[1])
