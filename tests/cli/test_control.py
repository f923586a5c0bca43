"""why, restart, cleanup and drain, as a person types them, against real nodes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cli.test_rotate import STEADY, machines
from tests.cluster import counts, eventually, heard, job_file, p2premap, plain, private, short_home, start, stop

WORDCOUNT = str(Path(__file__).parents[2] / "examples" / "wordcount.py")
SLOW = """
import os, time
def map(key, line):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    yield line.strip(), 1
def reduce(key, values):
    return sum(values)
"""


def phase(home: str | Path, job: str) -> str:
    """Of a job."""
    listed = json.loads(p2premap(home, "jobs", "--json").stdout)
    return next((view["phase"] for view in listed if view["id"] == job), "")


def detached(home: str | Path, *args: str) -> str:
    """Hand in a job; its id."""
    done = p2premap(home, *args, "--detach")
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


def gated(tmp_path: Path) -> tuple[str, Path, Path]:
    """A job file whose tasks wait for a file; that file; and inputs."""
    gate, inputs = tmp_path / "gate", tmp_path / "in"
    inputs.mkdir()
    for number in range(4):
        (inputs / f"{number}.txt").write_text(f"word{number}\n")
    return job_file(tmp_path, SLOW.format(gate=str(gate))), gate, inputs


# --- why ----------------------------------------------------------------------------------------------------------


def test_why_tells_of_a_job_its_tasks_and_the_nodes(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home = three_nodes.home
    file, gate, inputs = gated(tmp_path)
    job = detached(home, "run", file, str(inputs))

    def why(*what: str) -> str:
        done = p2premap(home, "--node", "n2", "why", *what)
        assert done.exit_code == 0, done.stderr
        return done.stdout.strip()

    eventually(lambda: "out at" in why(job[:8]))
    assert re.match(r"0 of \d+ tasks of stage map are done; \d+ (is|are) out at (n\d, )*n\d", why(job[:8]))
    eventually(lambda: re.match(r"Task 0\.0 \(map\) is at n\d as attempt 0 for [\d.]+ s", why(job, "0.0")))
    assert "Stage 1 is not planned yet" in why(job, "1.0")
    for command in ("why", "logs"):
        unknown = p2premap(home, command, job, "0.999")
        assert (unknown.exit_code, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
        assert re.search(r"has no task 0\.999: of its stages, map has 0 to \d+ \(0\.x\)", unknown.stderr)
    eventually(lambda: any(f"task 0.0 of {job[:8]}" in why(name) for name in ("n1", "n2", "n3")))
    gate.touch()
    eventually(lambda: phase(home, job) == "done")
    assert why(job) == f"The job {job[:8]} is done."
    node = json.loads(p2premap(home, "nodes", "--json").stdout)[0]
    eventually(lambda: "is well and offers 1 slot; busy: 0; nothing runs here." in why(node["id"][:8]))


def test_why_of_what_nobody_knows(three_nodes: PrivateCluster) -> None:
    for what in ("nobody", "abcdef", "n"):
        done = p2premap(three_nodes.home, "why", what)
        assert done.exit_code == 2, done.stdout
        assert done.stderr.count("\n") == 1


# --- priorities and limits ----------------------------------------------------------------------------------------


def test_a_job_of_higher_priority_takes_the_slot_back(tmp_path: Path) -> None:
    with private(("n1",)) as cluster:
        home = cluster.home
        file, gate, inputs = gated(tmp_path)
        low = detached(home, "run", file, str(inputs), "--time-limit", "60s")
        eventually(lambda: "out at n1" in p2premap(home, "why", low).stdout)
        words = tmp_path / "words.txt"
        words.write_text("one two\n" * 10)
        high = p2premap(home, "run", WORDCOUNT, str(words), "--priority", "5")
        assert high.exit_code == 0, high.stderr
        assert phase(home, low) == "running"
        gate.touch()
        eventually(lambda: phase(home, low) == "done")
        view = next(v for v in json.loads(p2premap(home, "jobs", "--json").stdout) if v["id"] == low)
        assert [stage["failed_attempts"] for stage in view["stages"]] == [0, 0]


def test_a_node_whose_owner_keeps_memory_free_offers_nothing_and_says_why(tmp_path: Path) -> None:
    with short_home() as home:
        node = start(home, "node", "--name", "lean", "--min-free-memory", "100000G", "--json")
        assert node.stdout is not None
        node.stdout.readline()
        eventually(lambda: "less memory is free" in p2premap(home, "status").stdout)
        assert "offers 0 slots: less memory is free than its owner wants." in p2premap(home, "nodes").stderr
        words = tmp_path / "words.txt"
        words.write_text("one two\n" * 10)
        job = detached(home, "run", WORDCOUNT, str(words))
        eventually(lambda: p2premap(home, "why", job).stdout.strip().endswith("wait: lean offers no slot."))
        why = p2premap(home, "why", "lean").stdout
        assert "offers 0 slots and no more, because less memory is free than its owner wants; busy: 0" in why
        assert stop(node)[0] == 0


# --- restart ------------------------------------------------------------------------------------------------------


def test_a_job_runs_again_from_any_node_with_its_inputs_and_options(
    three_nodes: PrivateCluster, texts: Path, tmp_path: Path
) -> None:
    home = three_nodes.home
    first = detached(home, "--node", "n1", "run", WORDCOUNT, str(texts), "--name", "twice", "--partitions", "3")
    eventually(lambda: phase(home, first) == "done")
    again = p2premap(home, "--node", "n3", "restart", first[:8])
    assert again.exit_code == 0, again.stderr
    second = again.stdout.strip()
    assert second != first
    out = tmp_path / "out"
    watched = p2premap(home, "watch", second, "-o", str(out))
    assert watched.exit_code == 0, watched.stderr
    assert counts(out) == plain(*texts.rglob("*.txt"))
    view = next(v for v in json.loads(p2premap(home, "jobs", "--json").stdout) if v["id"] == second)
    assert view["name"] == "twice"
    assert len(list(out.glob("part-*"))) == 3


def test_what_is_not_known_cannot_run_again(three_nodes: PrivateCluster) -> None:
    done = heard(three_nodes.home, "restart", "abcdef12")
    assert done.exit_code == 2
    assert "No job abcdef12 is known" in done.stderr


# --- cleanup ------------------------------------------------------------------------------------------------------


def test_cleanup_removes_what_is_over_everywhere_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    with private(("n1", "n2")) as cluster:
        home = cluster.home
        inputs = tmp_path / "words.txt"
        inputs.write_text("one two\n" * 1000)
        old = detached(home, "run", WORDCOUNT, str(inputs))
        eventually(lambda: phase(home, old) == "done")
        kept = p2premap(home, "cleanup")
        assert kept.exit_code == 0, kept.stderr
        assert kept.stderr.splitlines() == [
            "Removed 0 files (0 B) on 2 nodes, and 0 jobs from the list.",
            f"Kept: {old[:8]} (over for less than 7 d).",
        ]
        (tmp_path / "slow").mkdir()
        file, gate, more = gated(tmp_path / "slow")
        going_on = detached(home, "run", file, str(more))
        eventually(lambda: phase(home, going_on) == "running")
        spared = json.loads(p2premap(home, "cleanup", "--days", "0", "--json").stdout)
        assert (spared["jobs"], {job["id"]: job["why"] for job in spared["kept"]}) == (
            [],
            {going_on: "not over", old: f"over, but {going_on[:8]}, which goes on, may need something of it"},
        )
        assert phase(home, old) == "done", "its results are younger than a minute more than the job that goes on"
        gate.touch()
        eventually(lambda: phase(home, going_on) == "done")
        found = json.loads(p2premap(home, "cleanup", "--days", "0", "--json").stdout)
        assert sorted(found["jobs"]) == sorted([old, going_on])
        assert found["blobs"] >= 4
        assert (found["nodes"], found["silent"]) == (2, [])
        eventually(lambda: json.loads(p2premap(home, "jobs", "--json").stdout) == [])


# --- drain and SIGTERM --------------------------------------------------------------------------------------------


def test_a_drained_node_ends_what_it_runs_hands_its_jobs_over_and_stops(tmp_path: Path) -> None:
    with private(("n1", "n2", "n3")) as cluster:
        home = cluster.home
        file, gate, inputs = gated(tmp_path)
        job = detached(home, "--node", "n1", "run", file, str(inputs))
        eventually(lambda: "out at" in p2premap(home, "why", job).stdout)
        hung_up = start(home, "--node", "n1", "drain", "--wait", "60s")
        eventually(lambda: "it is being drained" in p2premap(home, "--node", "n2", "why", "n1").stdout)
        stop(hung_up, signal.SIGINT)
        eventually(lambda: "is well" in p2premap(home, "--node", "n2", "why", "n1").stdout)
        draining = start(home, "--node", "n1", "drain", "--wait", "60s")
        eventually(lambda: "it is being drained" in p2premap(home, "--node", "n2", "why", "n1").stdout)
        assert draining.poll() is None
        gate.touch()
        _, err = draining.communicate(timeout=120)
        assert draining.returncode == 0, err
        assert "stops. Nothing of it is needed any more." in err
        gone = eventually(
            lambda: [
                view
                for view in json.loads(p2premap(home, "--node", "n2", "nodes", "--json").stdout)
                if view["name"] == "n1" and view["state"] in ("left", "dead")
            ]
        )
        assert gone
        done = p2premap(home, "--node", "n2", "watch", job, "-o", str(tmp_path / "out"))
        assert done.exit_code == 0, done.stderr
        assert sum(counts(tmp_path / "out").values()) == 4


COUNTED = """
import os, time
def map(key, line):
    with open({runs!r}, "a") as file:
        file.write(line + "\\n")
    yield line, 1
def reduce(key, values):
    goes = os.environ["P2PREMAP_TEST_RAN"].endswith("n1")
    while not os.path.exists({going!r} if goes else {gate!r}):
        time.sleep(0.01)
    return sum(values)
"""
PATIENT = f"from p2premap.node import leaving; leaving.DRAIN_S = 60.0; {STEADY}"


@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_what_only_a_node_that_goes_holds_is_not_made_again(tmp_path: Path, how: str) -> None:
    """Map output is on every node when one of them goes, which leads the job, too."""
    gates = {name: tmp_path / name for name in ("gate", "going")}
    runs, inputs = tmp_path / "runs", tmp_path / "in"
    inputs.mkdir()
    for number in range(6):
        (inputs / f"{number}.txt").write_text(f"word{number}\n")
    file = job_file(tmp_path, COUNTED.format(runs=str(runs), **{name: str(path) for name, path in gates.items()}))
    with machines("n1", "n2", "n3", program=PATIENT) as (n1, n2, _):
        job = n1.run("run", file, str(inputs), "--detach").strip()
        eventually(lambda: "stage reduce" in n2.run("why", job))
        before = runs.read_text()
        assert len(before.splitlines()) == 6
        gates["going"].touch()
        if how == "drain":
            n1.run("drain", "--wait", "60s")
        else:
            n1.end()
        eventually(lambda: "n1" not in n2.sees())
        gates["gate"].touch()
        n2.run("watch", job, "-o", str(tmp_path / "out"))
        assert sum(counts(tmp_path / "out").values()) == 6
        assert runs.read_text() == before
