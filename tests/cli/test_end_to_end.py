"""The commands as a person types them, against three real nodes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import counts, eventually, job_file, p2premap, plain, start, stop

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDCOUNT = str(EXAMPLES / "wordcount.py")


def test_nodes_see_each_other(three_nodes: PrivateCluster) -> None:
    alive = {("n1", "alive"), ("n2", "alive"), ("n3", "alive")}
    for name in ("n1", "n2", "n3"):

        def seen(name: str = name) -> list[dict[str, object]]:
            found: list[dict[str, object]] = json.loads(
                p2premap(three_nodes.home, "--node", name, "nodes", "--json").stdout
            )
            return found if {(n["name"], n["state"]) for n in found} == alive else []

        found = eventually(seen)
        assert [n["name"] for n in found if n["me"]] == [name]
        assert sorted(n["pid"] for n in found) == sorted(three_nodes.pids)


@pytest.mark.parametrize("node", ["n1", "n3"])
def test_a_word_count_equals_a_plain_count_from_any_node(
    three_nodes: PrivateCluster, texts: Path, tmp_path: Path, node: str
) -> None:
    out = tmp_path / "out"
    done = p2premap(three_nodes.home, "--node", node, "run", WORDCOUNT, str(texts), "-o", str(out))
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert counts(out) == plain(*(p for p in texts.rglob("*.txt")))
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"Job \w{{8}} is done after .* s \(.*/s of input\): .* in {re.escape(str(out))}/\.", last)


def test_without_o_the_result_goes_to_standard_output(three_nodes: PrivateCluster, texts: Path) -> None:
    file = texts / "unended.txt"
    done = p2premap(three_nodes.home, "run", WORDCOUNT, str(file))
    assert done.exit_code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["one\t1", "two\t2"]


def test_a_detached_job_is_watched_listed_and_fetched(three_nodes: PrivateCluster, texts: Path, tmp_path: Path) -> None:
    home, out = three_nodes.home, tmp_path / "out"
    done = p2premap(home, "run", WORDCOUNT, str(texts), "--detach", "--name", "detached")
    job = done.stdout.strip()
    assert re.fullmatch("[0-9a-f]{32}", job), done.stderr
    watched = p2premap(home, "--node", "n2", "watch", job[:8], "-o", str(out))
    assert watched.exit_code == 0, watched.stderr
    assert counts(out) == plain(*(p for p in texts.rglob("*.txt")))
    listed = next(j for j in json.loads(p2premap(home, "jobs", "--json").stdout) if j["id"] == job)
    assert (listed["name"], listed["phase"]) == ("detached", "done")
    assert listed["leader"]["pid"] in three_nodes.pids


def test_a_job_that_is_over_is_fetched_from_a_node_that_never_kept_it(
    three_nodes: PrivateCluster, texts: Path, tmp_path: Path
) -> None:
    home, out = three_nodes.home, tmp_path / "out"
    first = ("--copies", "1", "--json", "-o", str(tmp_path / "first"))
    done = p2premap(home, "--node", "n1", "run", WORDCOUNT, str(texts), *first)
    job = json.loads(done.stdout)["id"]
    watched = p2premap(home, "--node", "n3", "watch", job, "-o", str(out))
    assert watched.exit_code == 0, watched.stderr
    assert counts(out) == plain(*(p for p in texts.rglob("*.txt")))


def test_json_tells_where_the_output_is(three_nodes: PrivateCluster, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = p2premap(three_nodes.home, "run", WORDCOUNT, str(texts), "-o", str(out), "--json")
    shape = json.loads(done.stdout)
    assert (shape["phase"], shape["output"]) == ("done", str(out))
    assert sum(node["tasks"] for node in shape["nodes"]) == sum(stage["tasks"] for stage in shape["stages"])
    assert done.stderr == ""


def test_what_tasks_print_is_in_the_logs(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    job = job_file(
        tmp_path,
        "import logging, sys\n"
        "def map(key, line):\n"
        "    print('to stdout', line)\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    logging.warning('to the log')\n"
        "    yield line, 1\n",
    )
    (tmp_path / "in.txt").write_text("hello\n")
    done = p2premap(three_nodes.home, "run", job, str(tmp_path / "in.txt"), "--json")
    shown = p2premap(three_nodes.home, "logs", json.loads(done.stdout)["id"])
    assert shown.exit_code == 0
    for text in ("to stdout hello", "to stderr", "to the log"):
        assert text in shown.stdout


REFUSED = [
    ("def map(key, line:\n", "line 1"),
    ("def mapp(key, line):\n    yield line, 1\n", "has no function map"),
    ("def map(line):\n    yield line, 1\n", "map must take two arguments"),
]


@pytest.mark.parametrize(("source", "sentence"), REFUSED, ids=["syntax", "no map", "arguments"])
def test_a_wrong_job_file_is_refused_in_one_sentence(
    three_nodes: PrivateCluster, texts: Path, tmp_path: Path, source: str, sentence: str
) -> None:
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, source), str(texts))
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_inputs_are_refused_in_one_sentence(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\0" * 100)
    (tmp_path / "nothing").mkdir()
    cases = {
        "missing.txt": "No such file",
        "empty.txt": "The input is empty",
        "binary.txt": "is not text",
        "nothing": "There are no files",
        "*.csv": "Nothing matches",
    }
    for name, sentence in cases.items():
        done = p2premap(three_nodes.home, "run", WORDCOUNT, str(tmp_path / name), "-o", str(tmp_path / "out"))
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_directory_is_never_overwritten(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("precious")
    done = p2premap(three_nodes.home, "run", WORDCOUNT, __file__, "-o", str(tmp_path))
    assert done.exit_code == 2
    assert "holds the output of an earlier job" in done.stderr
    done = p2premap(three_nodes.home, "run", WORDCOUNT, __file__, "-o", __file__)
    assert done.exit_code == 2
    assert "is a file" in done.stderr


FAILING = [
    (
        "def map(key, line):\n    yield line, 1 / 0\n",
        "ZeroDivisionError: division by zero",
        ["job.py", "line 2", "in.txt"],
    ),
    ("def map(key, line):\n    yield line\n", "must give (key, value) pairs", ["in.txt"]),
    (
        "def map(key, line):\n    yield line, (lambda: 1)\ndef reduce(key, values):\n    return 1\n",
        "pickle",
        [],
    ),
    ("def map(key, line):\n    import os\n    os._exit(3)\n", "exit", []),
    ("import nowhere_to_be_found\ndef map(key, line):\n    yield line, 1\n", "nowhere_to_be_found", []),
]


@pytest.mark.parametrize(
    ("source", "sentence", "shown"), FAILING, ids=["raises", "wrong shape", "unpicklable", "crashes", "import"]
)
def test_a_failing_job_tells_what_happened_where(
    three_nodes: PrivateCluster, tmp_path: Path, source: str, sentence: str, shown: list[str]
) -> None:
    (tmp_path / "in.txt").write_text("a\nb\n")
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, source), str(tmp_path / "in.txt"))
    assert done.exit_code == 1, done.stderr
    assert done.stdout == ""
    assert sentence in done.stderr
    for text in shown:
        assert text in done.stderr
    assert "p2premap/worker" not in done.stderr
    assert re.search(r"^p2premap: Job \w{8} failed: ", done.stderr.splitlines()[-1])


SLEEPS = "import time\ndef map(key, line):\n    time.sleep(60)\n    yield line, 1\n"


def phase(home: str, name: str) -> str:
    return next((j["phase"] for j in json.loads(p2premap(home, "jobs", "--json").stdout) if j["name"] == name), "")


def test_ctrl_c_cancels_where_nobody_can_be_asked(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home = three_nodes.home
    running = start(home, "run", job_file(tmp_path, SLEEPS), __file__, "--name", "interrupted")
    eventually(lambda: phase(home, "interrupted") == "running")
    code, out, err = stop(running, signal.SIGINT)
    assert (code, out) == (130, "")
    assert "is cancelled" in err
    assert phase(home, "interrupted") == "cancelled"


def test_a_job_that_exceeds_the_timeout_is_cancelled(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home = three_nodes.home
    done = p2premap(home, "run", job_file(tmp_path, SLEEPS), __file__, "--name", "slow", "--timeout", "0.5")
    assert done.exit_code == 124
    assert "the time given by --timeout is over" in done.stderr
    assert phase(home, "slow") == "cancelled"


def test_json_tells_of_a_job_that_did_not_succeed_too(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    job = job_file(tmp_path, "def map(key, line):\n    yield line, 1 / 0\n")
    failed = p2premap(three_nodes.home, "run", job, __file__, "--json")
    shape = json.loads(failed.stdout)
    assert (failed.exit_code, shape["phase"], shape["output"]) == (1, "failed", "")
    assert "ZeroDivisionError" in shape["error"]
    assert "line 2" in shape["detail"]
    late = p2premap(three_nodes.home, "run", job_file(tmp_path, SLEEPS), __file__, "--json", "--timeout", "0.5")
    shape = json.loads(late.stdout)
    assert (late.exit_code, shape["phase"], shape["error"]) == (124, "cancelled", "--timeout is over")


def test_an_attempt_that_exceeds_its_time_limit_fails_the_job(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, SLEEPS), __file__, "--time-limit", "0.2")
    assert done.exit_code == 1
    assert "time limit" in done.stderr.lower()


def test_cancel_ends_a_job_led_elsewhere(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home = three_nodes.home
    args = ("run", job_file(tmp_path, SLEEPS), __file__, "--detach", "--name", "elsewhere")
    job = p2premap(home, "--node", "n1", *args).stdout.strip()
    done = p2premap(home, "--node", "n2", "cancel", job[:8])
    assert (done.exit_code, done.stderr) == (0, f"The job {job[:8]} is cancelled; nothing of it runs any more.\n")
    watched = p2premap(home, "--node", "n3", "watch", job)
    assert watched.exit_code == 1
    assert "was cancelled" in watched.stderr
