"""The console: Python with `await`, and the lines that are no Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest

from p2premap.cli.console import Awaits, Habits, shape, shown
from p2premap.client.everywhere import HostStatistics, evaluate, host_statistics
from p2premap.client.private import PrivateCluster
from tests.cluster import environment


def _typed(home: str, directory: Path, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """What comes of these lines."""
    command = [sys.executable, "-m", "p2premap", "repl", *options]
    text = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        command,
        env=environment(home),
        cwd=directory,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_python_on_the_cluster_with_await_at_the_top(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    done = _typed(
        three_nodes.home,
        tmp_path,
        "def square(x):",
        "    return x * x",
        "",
        "list(cluster.map(square, range(5)))",
        "_[-1]",
        "import trio",
        "x = await trio.to_thread.run_sync(lambda: 42)",
        "x",
        "x + 1",
        "1 / 0",
        "x + 2",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 1, 4, 9, 16]", "16", "42", "43", "44"]
    assert "ZeroDivisionError" in done.stderr
    assert "everywhere.py" not in done.stderr, "none of our lines"
    assert "p2premap/cli" not in done.stderr


def test_patterns_lambdas_and_blank_lines(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two two\n")
    (tmp_path / "b.txt").write_text("two\n")
    lines = (
        "*.txt",
        "_['two']",
        "_ + 1",
        "*.txt @ lambda text: len(text)",
        "@ lambda _: os.getpid() > 0",
        "",
        "a.txt",
        "a.txt @ lambda text: 1 / 0",
        "nothing*.txt",
    )
    done = _typed(three_nodes.home, tmp_path, *lines, options=("--json",))
    assert done.returncode == 0, done.stderr
    count, two, then, lengths, everywhere, hosts, name = done.stdout.splitlines()
    assert json.loads(count) == {"one": 1, "two": 3}
    assert (two, then) == ("3", "4"), "as Python keeps its last answer"
    assert json.loads(lengths) == {"a.txt": 12, "b.txt": 4}
    assert json.loads(everywhere) == {"n1": True, "n2": True, "n3": True}
    assert set(json.loads(hosts)) == {"n1", "n2", "n3"}
    assert json.loads(name) == {"one": 1, "two": 2}, "a name that means nothing to Python is a pattern, too"
    assert "ZeroDivisionError" in done.stderr
    assert "SyntaxError" in done.stderr, "where nothing matches it is Python after all"


class Cluster:
    """Has nothing to say."""

    def connection(self) -> None:
        raise AssertionError("it was asked")


PYTHON = [
    "x",
    "x * y",
    "1 +",
    "len(x)",
    "print @ x",
    "def f():",
    "f = lambda: 1",
    "a.txt = 1",
    "import os",
    "*nowhere*",
]


@pytest.mark.parametrize("line", PYTHON)
def test_what_is_python_is_left_to_python(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x * y", "len(x)", "import os"):
        (tmp_path / name).write_text("a file of that name")
    assert not Habits(Cluster(), {"x": 1, "y": 2}, print).knows(line)  # type: ignore[arg-type]


def test_what_awaits_shares_one_loop_and_raises_here() -> None:
    import trio

    awaits = Awaits()
    events: list[trio.Event] = []

    async def make() -> None:
        events.append(trio.Event())

    async def use() -> str:
        events[0].set()
        await events[0].wait()
        return "set"

    async def fail() -> None:
        raise KeyError("nothing")

    awaits.run(make())
    assert awaits.run(use()) == "set"
    with pytest.raises(KeyError):
        awaits.run(fail())
    awaits.close()


def test_answers_for_people_and_programs() -> None:
    words = Counter({"the": 2, "a": 2, "fox": 1})
    lines = click.unstyle(shown(words)).splitlines()
    assert lines == ["COUNT  WORD", "2      a", "2      the", "1      fox", "5 words, 3 different"]
    here = host_statistics()
    assert here.host in shown({"n1": here})
    assert shape({"n1": here}) == {"n1": here._asdict()}
    assert isinstance(here, HostStatistics)
    assert shown({"a.txt": [1]}) == "a.txt: [1]"


def test_a_function_is_made_of_its_source() -> None:
    assert evaluate("lambda text: len(text)", "abc") == 3
    assert evaluate("lambda text: (word for word in text.split())", "a b") == ["a", "b"], "a generator cannot travel"
    with pytest.raises(TypeError, match="is no function"):
        evaluate("1", "")
