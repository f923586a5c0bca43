"""Texts to count, and a scripted daemon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from p2premap.node.paths import Paths
from tests.cli.scripted import script
from tests.fakedaemon import FakeDaemon

SOURCES = Path(__file__).parents[2] / "p2premap"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A directory of texts: an empty file, one without a line end, one of a single long line, and some with words."""
    directory = tmp_path / "texts"
    (directory / "deeper").mkdir(parents=True)
    for number, source in enumerate(sorted(SOURCES.rglob("*.py"))):
        (directory / ("deeper" if number % 2 else ".") / f"{number}.txt").write_text(source.read_text() * 3)
    (directory / "empty.txt").write_text("")
    (directory / "unended.txt").write_text("one two\ntwo")
    (directory / "long.txt").write_text("münchen café " * 50_000)
    return directory


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterable[FakeDaemon]:
    monkeypatch.setattr("p2premap.cli.membership.BACK_S", 0.1)  # this one never begins again in another cluster
    with FakeDaemon(paths, script) as fake:
        yield fake
