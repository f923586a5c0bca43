"""Rotation with real nodes: each has a home, and so a copy of the secret, of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import counts, environment, eventually, job_file, p2premap, plain, private, stop

GATED = """
import os, time
errors = "replace"
reader = "blocks"

def map(key, block):
    with open(os.environ["P2PREMAP_TEST_RAN"], "a") as ran:
        ran.write(f"{{os.getpid()}}\\n")
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    for word in block.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""
STEADY = "from p2premap.tasks import backups; backups.DONE_MIN = 1 << 30; from p2premap.cli import main; main()"
"""`p2premap` that runs no task twice because it takes longer than others: where a test counts attempts."""


class Machine:
    """A node with a home of its own."""

    def __init__(self, root: Path, name: str, secret: Path | None, program: str = "") -> None:
        self.name, self.home = name, str(root / name)
        self.ran = str(root / f"ran-{name}")
        config = root / name / "config"
        config.mkdir(parents=True, mode=0o700)
        if secret is not None:
            shutil.copy(secret, config / "secret")
        self.process: subprocess.Popen[str] | None = None
        self.command = (sys.executable, *(("-c", program) if program else ("-m", "p2premap")))

    @property
    def address(self) -> str:
        return str(self.run("nodes", "--json")[0]["addresses"][0])

    def start(self, join: str = "", *more: str) -> None:
        joins = ("--join", join) if join else ()
        options = ["--name", self.name, "--slots", "1", "--json", "--until-eof", *joins, *more]
        self.process = subprocess.Popen(
            [*self.command, "node", *options],
            env={**environment(self.home), "P2PREMAP_TEST_RAN": self.ran},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        json.loads(self.process.stdout.readline())

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            stop(self.process)
        self.process = None

    def run(self, *args: str) -> Any:
        done = p2premap(self.home, *args)
        assert done.exit_code == 0, (args, done.stdout, done.stderr)
        return json.loads(done.stdout) if "--json" in args else done.stdout

    def sees(self) -> set[str]:
        return {view["name"] for view in self.run("nodes", "--json") if view["state"] == "alive"}

    def status(self) -> Any:
        return self.run("status", "--json")


@contextmanager
def machines(*names: str, program: str = "", options: Sequence[str] = ()) -> Iterator[list[Machine]]:
    """Nodes of one cluster, each with a home of its own.

    Args:
        program: takes the place of `p2premap`.
        options: of each node.
    """
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        root, made = Path(directory), list[Machine]()
        try:
            join = ""
            for name in names:
                made.append(Machine(root, name, root / names[0] / "config" / "secret" if made else None, program))
                made[-1].start(join, *options)
                join = join or made[0].address
            eventually(lambda: all(one.sees() == set(names) for one in made))
            yield made
        finally:
            for one in made:
                one.end()


def test_a_rotation_in_the_middle_of_a_job_costs_it_no_attempt(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number in range(6):
        (inputs / f"{number}.txt").write_text("one two three four\n" * 2_000)
    gate = tmp_path / "gate"
    with machines("n1", "n2", "n3", program=STEADY) as (n1, n2, n3):
        before = n1.status()
        job = n1.run("run", job_file(tmp_path, GATED.format(gate=str(gate))), str(inputs), "--detach").strip()
        eventually(lambda: all(Path(one.ran).exists() for one in (n1, n2, n3)))
        done = n2.run("rotate", "--json")
        assert (done["epoch"], sorted(done["switched"]), done["away"]) == (2, ["n1", "n2", "n3"], [])
        gate.touch()
        n1.run("watch", job, "-o", str(tmp_path / "out"))
        assert counts(tmp_path / "out") == plain(*inputs.iterdir())
        attempts = sum(len(Path(one.ran).read_text().splitlines()) for one in (n1, n2, n3))
        (view,) = n1.run("jobs", "--json")
        maps = next(stage["tasks"] for stage in view["stages"] if stage["name"] == "map")
        assert attempts == maps, "what ran when the secret changed was not run again"
        assert not n1.status()["warnings"] + n2.status()["warnings"] + n3.status()["warnings"]
        after = n1.status()
        assert after["cluster"] != before["cluster"]
        assert after["key_epoch"] == 2
        assert after["state_dir"] == before["state_dir"]
        assert {one.status()["cluster"] for one in (n1, n2, n3)} == {after["cluster"]}
        eventually(lambda: all(one.sees() == {"n1", "n2", "n3"} for one in (n1, n2, n3)))
        assert "number 2" in n1.run("status")


def test_who_is_evicted_is_refused_and_told_and_the_rest_go_on(tmp_path: Path) -> None:
    with machines("n1", "n2", "n3") as (n1, n2, n3):
        refused = p2premap(n1.home, "rotate", "--evict", "n1")
        assert refused.exit_code == 2
        assert "ask another one" in refused.stderr
        refused = p2premap(n1.home, "rotate", "--evict", "nobody")
        assert refused.exit_code == 2
        assert "No node nobody is known" in refused.stderr
        assert n1.status()["key_epoch"] == 1
        done = n1.run("rotate", "--evict", "n3", "--json")
        assert (done["switched"], done["evicted"], done["grace_s"]) == (["n1", "n2"], ["n3"], 0)
        eventually(lambda: n1.sees() == {"n1", "n2"} and n2.sees() == {"n1", "n2"})
        eventually(lambda: n3.sees() == {"n3"})
        told = eventually(lambda: [text for text in n3.status()["warnings"] if "secret was rotated" in text])
        assert "p2premap join TOKEN" in told[0]
        assert told[0] in [one["text"] for one in json.loads(p2premap(n3.home, "doctor", "--json").stdout)]
        assert any("before a rotation" in text for text in n1.status()["warnings"] + n2.status()["warnings"])
        again = n2.run("rotate", "--json")
        assert (again["switched"], again["away"]) == (["n2", "n1"], []), "who was evicted is not away"
        inputs = tmp_path / "in.txt"
        inputs.write_text("one two two\n")
        n2.run("run", job_file(tmp_path, GATED.format(gate=str(inputs))), str(inputs), "-o", str(tmp_path / "out"))
        assert counts(tmp_path / "out") == {"one": 1, "two": 2}
        assert not Path(n3.ran).exists()


def test_who_watches_a_job_that_the_evicted_node_led_gets_the_result_of_those_that_stay(tmp_path: Path) -> None:
    """The evicted node goes on with the job too, alone."""
    inputs, gate = tmp_path / "in.txt", tmp_path / "gate"
    inputs.write_text("one two two\n" * 10_000)
    with machines("n1", "n2", "n3") as (n1, n2, n3):
        job = n3.run("run", job_file(tmp_path, GATED.format(gate=str(gate))), str(inputs), "--detach").strip()
        eventually(lambda: any(Path(one.ran).exists() for one in (n1, n2, n3)))
        eventually(lambda: n1.run("jobs", "--json")[0]["copies"] == 3)
        said = tmp_path / "said"
        with said.open("w") as file:
            watching = subprocess.Popen(
                [*n1.command, "watch", job, "-o", str(tmp_path / "out")],
                env=environment(n1.home),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: "map" in said.read_text())
            assert n1.run("rotate", "--evict", "n3", "--json")["evicted"] == ["n3"]
            eventually(lambda: n1.run("jobs", "--json")[0]["leader"]["name"] in ("n1", "n2"))
            gate.touch()
            assert watching.wait(60) == 0, said.read_text()
        finally:
            watching.kill()
            watching.wait()
        assert "fork" not in said.read_text(), "nothing of what the evicted node does alone"
        assert counts(tmp_path / "out") == plain(inputs)
        assert n2.run("jobs", "--json")[0]["leader"]["name"] in ("n1", "n2")


def test_who_was_away_gets_the_secret_when_it_is_back_and_a_restart_changes_nothing() -> None:
    with machines("n1", "n2", "n3") as (n1, n2, n3):
        state = n3.status()["state_dir"]
        n3.signal(signal.SIGSTOP)
        try:
            done = n1.run("rotate", "--json")
        finally:
            n3.signal(signal.SIGCONT)
        assert (done["switched"], done["away"]) == (["n1", "n2"], ["n3"])
        eventually(lambda: n3.sees() == n1.sees() == {"n1", "n2", "n3"})
        eventually(lambda: n3.status()["key_epoch"] == 2)
        assert n3.status()["state_dir"] == state
        n2.end()
        n2.start()
        eventually(lambda: n2.sees() == {"n1", "n2", "n3"})
        assert n2.status()["key_epoch"] == 2


def test_nodes_of_one_user_share_the_secret_and_are_not_evicted_apart() -> None:
    with private() as cluster:
        home = cluster.home

        def epochs() -> set[int]:
            names = ("n1", "n2", "n3")
            return {json.loads(p2premap(home, "--node", n, "status", "--json").stdout)["key_epoch"] for n in names}

        refused = p2premap(home, "--node", "n1", "rotate", "--evict", "n2")
        assert refused.exit_code == 2
        assert "evict both, or neither" in refused.stderr
        for epoch in (2, 3):
            done = json.loads(p2premap(home, "--node", f"n{epoch}", "rotate", "--json").stdout)
            assert (done["epoch"], sorted(done["switched"]), done["away"]) == (epoch, ["n1", "n2", "n3"], [])
            assert epochs() == {epoch}
        nodes = json.loads(p2premap(home, "--node", "n1", "nodes", "--json").stdout)
        assert [view["state"] for view in nodes] == ["alive"] * 3
