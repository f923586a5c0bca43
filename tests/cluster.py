"""Real nodes for tests: processes of their own, a home of their own, gone at the end.

`three_nodes` (a session fixture in tests/conftest.py) is started once for all tests that only use a cluster;
a test that hurts its nodes starts a `PrivateCluster` of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner, Result

from p2premap.cli.app import cli
from p2premap.client.private import PrivateCluster

COMMAND = (sys.executable, "-m", "p2premap")

T = TypeVar("T")


def environment(home: str | Path) -> dict[str, str]:
    """The variables of a user whose directories are all under `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("P2PREMAP_", "XDG_"))}
    return {**kept, "P2PREMAP_HOME": str(home), "TERM": "dumb", "COLUMNS": "100"}


def p2premap(home: str | Path, *args: str) -> Result:
    """Run a command to its end, in this process: a shell would take ten times as long to start it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("P2PREMAP_", "XDG_")):
                patch.delenv(name)
        return CliRunner(env={"P2PREMAP_HOME": str(home), "TERM": "dumb"}).invoke(cli, list(args), prog_name="p2premap")


def heard(home: str | Path, *args: str) -> Result:
    """The same, again where a node has no time to answer for now (69): it may know what the others do not."""
    return eventually(lambda: done if (done := p2premap(home, *args)).exit_code != 69 else None)


def start(home: str | Path, *args: str) -> subprocess.Popen[str]:
    """Start a command; the caller ends it."""
    return subprocess.Popen(
        [*COMMAND, *args],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Signal a process that we started, wait for its end, and return its exit code, stdout and stderr."""
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end: {out}{err}") from None
    return process.returncode, out, err


def eventually(look: Callable[[], T | None], *, within_s: float = 60.0) -> T:
    """What `look` returns as soon as it is true."""
    until = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < until, f"not within {within_s:.0f} s"
        time.sleep(0.05)
    return found


def private(names: Sequence[str] = ("n1", "n2", "n3"), *, slots: int = 1) -> PrivateCluster:
    """A cluster that nobody else uses."""
    return PrivateCluster(names, slots=slots)


def short_home() -> tempfile.TemporaryDirectory[str]:
    """A home with a path short enough for Unix sockets."""
    return tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp", ignore_cleanup_errors=True)


def job_file(tmp_path: Path, text: str) -> str:
    """A job file with this text."""
    path = tmp_path / "job.py"
    path.write_text(text)
    return str(path)


def counts(directory: Path) -> Counter[str]:
    """What the parts of a word count say."""
    found: Counter[str] = Counter()
    for part in sorted(directory.glob("part-*")):
        for line in part.read_text().splitlines():
            word, _, number = line.rpartition("\t")
            found[word] += int(number)
    return found


def plain(*files: Path) -> Counter[str]:
    """The same by a plain count."""
    return Counter(word for file in files for word in file.read_text(errors="replace").split())
