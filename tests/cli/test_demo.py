"""`p2premap demo`: the right answer, and nothing left, whatever ends it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import eventually, start, stop


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 20_000)
    return str(path)


@pytest.fixture(scope="module")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """So much that nobody counts it before a signal comes."""
    path = tmp_path_factory.mktemp("long") / "text.txt"
    path.write_text("to be or not to be\n" * 3_000_000)
    yield str(path)
    path.unlink()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_it_counts_right_and_leaves_nothing(home: Path, text: str) -> None:
    process = start(home, "demo", "--input", text, "--json")
    nodes = eventually(lambda: len(family(process)) >= 3 and family(process))
    of_nodes = nodes[0].environ()["P2PREMAP_HOME"]
    assert of_nodes != str(home)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    shape = json.loads(out)
    assert (shape["right"], shape["words"], shape["different"]) == (True, 120_000, 4)
    assert set(shape["nodes"]) <= {"red", "green", "blue"}
    assert psutil.wait_procs(nodes, timeout=60)[1] == []
    assert not Path(of_nodes).exists()
    assert not list(home.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(home: Path, long_text: str, number: signal.Signals) -> None:
    process = start(home, "demo", "--input", long_text)
    nodes = eventually(lambda: len(family(process)) >= 3 and family(process))
    code, out, _ = stop(process, number)
    assert (code, out) == (130, "")
    assert psutil.wait_procs(nodes, timeout=60)[1] == []


def test_killed_outright_it_still_leaves_no_node(home: Path, long_text: str) -> None:
    process = start(home, "demo", "--input", long_text)
    nodes = eventually(lambda: len(family(process)) >= 3 and family(process))
    process.kill()
    process.communicate()
    assert psutil.wait_procs(nodes, timeout=60)[1] == []


def test_wrong_input_is_a_sentence(home: Path) -> None:
    process = start(home, "demo", "--input", "/nowhere/at/all")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "Cannot read /nowhere/at/all" in err
