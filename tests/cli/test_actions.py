"""Actions as a person runs them, on real nodes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import eventually, job_file, p2premap, private, start, stop

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "text_statistics.py")
BOOK = "A Book\n\nCHAPTER one\nit was a dark night\n\nCHAPTER two\nand extraordinarily so\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server for the files in tmp_path / "web"."""
    (tmp_path / "web").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_and_urls_are_split_processed_and_merged(three_nodes: PrivateCluster, tmp_path: Path, web: str) -> None:
    (tmp_path / "web" / "there.txt").write_text(BOOK)
    (tmp_path / "here.txt").write_text(BOOK.replace("two", "three"))
    out = tmp_path / "out"
    inputs = (str(tmp_path / "here.txt"), f"{web}/there.txt")
    done = p2premap(three_nodes.home, "run", EXAMPLE, *inputs, "--option", "longest=2", "-o", str(out))
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["chapters.txt", "part-00000"]
    assert json.loads((out / "part-00000").read_text()) == {"chapters": 6, "words": 28, "longest": "extraordinarily"}
    titles = [line.split(maxsplit=1)[1] for line in (out / "chapters.txt").read_text().splitlines()]
    assert titles == ["(front)", "CHAPTER one", "CHAPTER three", "(front)", "CHAPTER one", "CHAPTER two"]
    assert "1 part and 1 saved file" in done.stderr.splitlines()[-1]


def test_json_values_are_inputs_and_each_result_is_a_line_of_json(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    job = job_file(
        tmp_path,
        "import p2premap\n"
        "class Twice(p2premap.Action):\n"
        "    def process(self):\n"
        "        if self.input == 5:\n"
        "            self.add(6)\n"
        "        return [self.input, self.input * 2, self.options]\n",
    )
    done = p2premap(three_nodes.home, "run", job, "5", '"ab"', "[1]", "--option", "who=me", "--option", "n=[1]")
    assert done.exit_code == 0, done.stderr
    options = {"who": "me", "n": [1]}
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[5, 10, options], ["ab", "abab", options], [[1], [1, 1], options], [6, 12, options]]


FAILS = (
    "import os, p2premap\n"
    "class Halves(p2premap.Action):\n"
    "    def process(self):\n"
    "        open('scratch', 'w').close()\n"
    "        if self.input % 2:\n"
    "            self.run_command('echo no good >&2; exit 3')\n"
    "        return [self.input, sorted(os.listdir('.')), self.run_command('exit 4', check=False).code]\n"
)


def test_a_unit_that_fails_fails_the_job_unless_such_are_to_be_left_out(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    job = job_file(tmp_path, FAILS)
    done = p2premap(three_nodes.home, "run", job, "2", "3")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "ended with exit code 3: no good" in done.stderr.splitlines()[-1]
    done = p2premap(three_nodes.home, "run", job, "2", "3", "4", "--skip-failed")
    assert done.exit_code == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[2, ["scratch"], 4], [4, ["scratch"], 4]], "a directory of its own, empty at first"


REFUSED = [
    (("no-such-file",), "is no file, no URL and no JSON value"),
    ((), "No input"),
    (("1", "--partitions", "3"), "Actions have no partitions"),
    (("1", "--option", "x"), "write NAME=VALUE"),
    (("1", "--kind", "nonesuch"), "No module for jobs of kind 'nonesuch' is installed here"),
    (("1", "--kind", "calls"), "are made by programs"),
]


@pytest.mark.parametrize(("args", "sentence"), REFUSED)
def test_wrong_inputs_are_refused_in_one_sentence(
    three_nodes: PrivateCluster, tmp_path: Path, args: tuple[str, ...], sentence: str
) -> None:
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, FAILS), *args)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sentence in done.stderr


CLASSES = [
    ("class A(p2premap.Action):\n    pass\n", "has no method process"),
    ("class A(Action):\n    def process(self, input): pass\n", "takes nothing but self"),
    ("class A(Action):\n    async def process(self): pass\n", "is an async function"),
    ("class A(Action):\n    def process(self): pass\nclass B(Action):\n    def process(self): pass\n", "(A, B)"),
]


@pytest.mark.parametrize(("source", "sentence"), CLASSES)
def test_a_wrong_action_is_refused_in_one_sentence(
    three_nodes: PrivateCluster, tmp_path: Path, source: str, sentence: str
) -> None:
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, source), "1")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sentence in done.stderr


def test_a_node_that_refuses_an_action_runs_none_of_it(tmp_path: Path) -> None:
    job = job_file(
        tmp_path,
        "import p2premap, os\nclass Where(p2premap.Action):\n    def process(self):\n        return os.getppid()\n",
    )
    with private(("kind",)) as cluster:
        prim = start(cluster.home, "node", "--name", "prim", "--slots", "4", "--refuse-action", "Where", "--json")
        try:
            assert prim.stdout is not None
            pid = json.loads(prim.stdout.readline())["pid"]
            eventually(lambda: len(json.loads(p2premap(cluster.home, "nodes", "--json").stdout)) == 2)
            done = p2premap(cluster.home, "--node", "prim", "run", job, *map(str, range(8)), "--json")
            assert done.exit_code == 0, done.stderr
            shape = json.loads(done.stdout)
            assert [node["name"] for node in shape["nodes"]] == ["kind"]
            assert shape["leader"]["pid"] == pid, "it leads what it does not run"
            cluster.stop("kind")
            left = p2premap(cluster.home, "run", job, "1", "--detach")
            view = eventually(lambda: _waits(cluster.home, left.stdout.strip()))
            assert "prim says: its owner refuses the action Where" in view
        finally:
            stop(prim)


def _waits(home: str, job: str) -> str:
    found = next(j for j in json.loads(p2premap(home, "jobs", "--json").stdout) if j["id"] == job)
    return str(found["note"]) if "says" in found["note"] else ""


FANS_OUT = (
    "import os, time, p2premap\n"
    "class FansOut(p2premap.Action):\n"
    "    def split(self):\n"
    "        return [[self.input, number] for number in range(10)]\n"
    "    def process(self):\n"
    "        while self.input[1] > 6 and not os.path.exists({gate!r}):\n"
    "            time.sleep(0.01)\n"
    "        if self.input[1] == 9:\n"
    "            self.add([self.input[0], 10])\n"
    "        return self.input\n"
    "    def merge(self):\n"
    "        return self.input\n"
)


def test_an_action_outlives_the_node_that_leads_it_and_grows_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with private(("kind", "prim", "quiet")) as cluster:
        file = job_file(tmp_path, FANS_OUT.format(gate=str(gate)))
        done = p2premap(cluster.home, "--node", "kind", "run", file, "1", "2", "3", "--detach")
        job = done.stdout.strip()
        eventually(lambda: _done(cluster.home, job) >= 6)
        cluster.kill("kind")
        gate.touch()
        out = tmp_path / "out"
        watched = p2premap(cluster.home, "--node", "prim", "watch", job, "-o", str(out))
        assert watched.exit_code == 0, watched.stderr
        merged = json.loads((out / "part-00000").read_text())
        assert merged == [[first, number] for first in (1, 2, 3) for number in range(11)], "each once, in order"


def _done(home: str, job: str) -> int:
    found = json.loads(p2premap(home, "--node", "kind", "jobs", "--json").stdout)
    return sum(stage["done"] for view in found if view["id"] == job for stage in view["stages"])


def test_without_order_merging_is_spread_over_the_nodes(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    job = job_file(
        tmp_path,
        "import p2premap\n"
        "class Sum(p2premap.Action):\n"
        "    unordered = True\n"
        "    def split(self):\n"
        "        return range(self.input)\n"
        "    def process(self):\n"
        "        return self.input\n"
        "    def merge(self):\n"
        "        return sum(self.input)\n",
    )
    out = tmp_path / "out"
    done = p2premap(three_nodes.home, "run", job, "150", "--json", "-o", str(out))
    assert done.exit_code == 0, done.stderr
    stages = [(stage["name"], stage["tasks"]) for stage in json.loads(done.stdout)["stages"]]
    assert stages == [("process", 151), ("merge", 2), ("merge", 1)]
    assert json.loads((out / "part-00000").read_text()) == sum(range(150))
