"""A node whose ledger was damaged, rolled back or lost, and one whose disk is full, as its user sees it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import counts, eventually, job_file, p2premap, short_home, start, stop

WORD_COUNT = """
def map(key, line):
    for word in line.split():
        yield word, 1

def reduce(word, counts):
    yield word, sum(counts)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with short_home() as directory:
        yield Path(directory)


class Node:
    """A node of this home, running until the block ends."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __enter__(self) -> Node:
        self._process = start(self._home, "node", "--slots", "1")
        return self

    def status(self) -> dict[str, object]:
        def look() -> dict[str, object] | None:
            result = p2premap(self._home, "status", "--json")
            return json.loads(result.stdout) if result.exit_code == 0 else None

        return eventually(look)

    def __exit__(self, *_: object) -> None:
        stop(self._process)


def ledger_of(status: dict[str, object]) -> Path:
    return Path(str(status["state_dir"])) / "ledger.db"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["overwritten", "older copy", "removed"])
def test_a_node_that_lost_its_promises_takes_a_new_identity_and_keeps_the_old_aside(home: Path, damage: str) -> None:
    with Node(home) as node:
        first = node.status()
    ledger = ledger_of(first)
    copy = ledger.read_bytes()
    if damage == "older copy":
        with Node(home) as node:
            assert ledger_of(node.status()) == ledger
        ledger.write_bytes(copy)
    elif damage == "overwritten":
        ledger.write_bytes(copy[:4096] + os.urandom(len(copy) - 4096))
    else:
        ledger.unlink()
    with Node(home) as node:
        second = node.status()
    assert second["state_dir"] != first["state_dir"]
    assert any("took a new identity" in str(w) and "ledger" in str(w) for w in second["warnings"])
    aside = [p for p in ledger.parent.parent.iterdir() if ".aside-" in p.name]
    assert [p.name.split(".")[0] for p in aside] == [ledger.parent.name]
    with Node(home) as node:
        third = node.status()
    assert third["state_dir"] == second["state_dir"]
    assert not any("new identity" in str(w) for w in third["warnings"])


def fill(path: Path) -> None:
    """All that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_a_full_disk_is_told_jobs_are_refused_and_the_node_goes_on(home: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(home)], check=False).returncode:
        pytest.skip("this system does not let us mount")
    text = tmp_path / "text"
    text.write_text("one two\none\n")
    job = job_file(tmp_path, WORD_COUNT)
    try:
        with Node(home) as node:
            node.status()
            ballast = home / "ballast"
            fill(ballast)
            assert any("the disk is full" in str(w) for w in node.status()["warnings"])
            refused = p2premap(home, "run", job, str(text), "-o", str(tmp_path / "out"))
            assert refused.exit_code == 1
            assert "the disk is full" in refused.stderr
            ballast.unlink()
            assert not any("the disk is full" in str(w) for w in node.status()["warnings"])
            done = p2premap(home, "run", job, str(text), "-o", str(tmp_path / "out"))
            assert done.exit_code == 0, done.stderr
            assert counts(tmp_path / "out") == {"one": 2, "two": 1}
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
