"""Kill -9 while a job runs: what ran there runs elsewhere, and who watched through it watches on."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import counts, eventually, job_file, p2premap, plain, private, short_home, start

GATED = """
import os, time
errors = "replace"
reader = "blocks"

def map(key, block):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    for word in block.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""


def test_a_job_and_its_watcher_outlive_a_node(tmp_path: Path) -> None:
    out, gate, texts = (tmp_path / name for name in ("out", "gate", "texts"))
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"one two three {number}\n" * 2_000)
    with private() as cluster:
        home = cluster.home
        file = job_file(tmp_path, GATED.format(gate=str(gate)))
        job = p2premap(home, "--node", "n1", "run", file, str(texts), "--detach").stdout.strip()
        watching = start(home, "--node", "n2", "watch", job, "-o", str(out), "--json")

        def busy() -> bool:
            views = json.loads(p2premap(home, "--node", "n1", "nodes", "--json").stdout)
            return any(view["name"] == "n2" and view["busy"] for view in views)

        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["phase"] == "running"  # it has seen the job
        eventually(busy)
        cluster.kill("n2")
        gate.touch()
        lines, err = watching.communicate(timeout=120)
        assert watching.returncode == 0, err
        assert counts(out) == plain(*texts.iterdir())
        last = json.loads(lines.splitlines()[-1])
        assert last["phase"] == "done"
        assert sum(stage["lost_attempts"] for stage in last["stages"]) > 0

        def state() -> str:
            views = json.loads(p2premap(home, "--node", "n1", "nodes", "--json").stdout)
            return {view["name"]: view["state"] for view in views}["n2"]

        eventually(lambda: state() == "dead")


TALKS = """
import os, time, p2premap

class Talks(p2premap.Action):
    def process(self):
        print("this is", self.input)
        with open(f"/proc/{{os.getppid()}}/stat") as file:
            node = file.read().rpartition(")")[2].split()[1]
        open(os.path.join({marks!r}, node), "w").close()
        while len(os.listdir({marks!r})) < 3:
            time.sleep(0.01)
        return self.input
"""


def test_what_a_task_printed_is_in_the_ledger_when_its_node_is_gone(tmp_path: Path) -> None:
    numbers, marks = [str(number) for number in range(100, 106)], tmp_path / "marks"
    marks.mkdir()
    with private() as cluster:
        home = cluster.home
        file = job_file(tmp_path, TALKS.format(marks=str(marks)))
        done = p2premap(home, "--node", "n1", "run", file, *numbers, "--json")
        view = json.loads(done.stdout)
        assert {one["name"] for one in view["nodes"]} == {"n1", "n2", "n3"}, "all of them worked"
        for name in ("n2", "n3"):
            cluster.kill(name)
        shown = p2premap(home, "--node", "n1", "logs", view["id"])
        assert shown.exit_code == 0
        assert [shown.stdout.count(f"this is {number}\n") for number in numbers] == [1] * 6, shown.stdout
        assert "on n2, which does not answer; the end of it, from the job's ledger <==" in shown.stdout


def test_a_node_stops_when_told() -> None:
    with short_home() as home:
        process = start(home, "node", "--name", "lone", "--slots", "1", "--json")
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        assert (up["name"], up["pid"]) == ("lone", process.pid)
        assert p2premap(home, "stop").exit_code == 0
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
        assert p2premap(home, "status").exit_code == 69
