"""The examples that are programs, run as somebody types them, on three nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import environment

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(nodes: PrivateCluster, directory: Path, *command: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command],
        env=environment(nodes.home),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_futures(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    said = run(three_nodes, tmp_path, str(EXAMPLES / "futures.py"))
    assert "has 350 steps, from 77031" in said
    assert "ZeroDivisionError" in said


def test_pi(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    first, again = (float(run(three_nodes, tmp_path, str(EXAMPLES / "pi.py"), "2")) for _ in range(2))
    assert first == again
    assert abs(first - 3.14159) < 0.01


def test_grid_search(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = run(three_nodes, tmp_path, str(EXAMPLES / "grid_search.py"))
    assert said == "9 settings tried; best {'C': 10, 'gamma': 0.001}: 0.9867\n"


def test_dask_array(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    pytest.importorskip("dask.array")
    said = run(three_nodes, tmp_path, str(EXAMPLES / "dask_array.py"))
    assert said.strip() == "4,000,000 numbers, standard deviation 0.2887"
