"""The API of one of three nodes that stay alive, and a job file for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.web.api import Api

COUNT = '''"""Counts words."""


def map(key, value):
    for word in value.split():
        yield word, 1


def reduce(key, values):
    yield key, sum(values)
'''


@pytest.fixture(scope="session")
def api(three_nodes: PrivateCluster) -> Api:
    """n1's."""
    jobs = Path(three_nodes.home) / "config" / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    (jobs / "count.py").write_text(COUNT)
    (jobs / "broken.py").write_text("def map(:\n")
    return Api(three_nodes.home, "n1")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Something to count."""
    path = tmp_path / "text.txt"
    path.write_text("one two two three three three\n" * 200)
    return path
