"""`top`: printed once, as JSON, and live in a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from p2premap.cli import top
from p2premap.cli.toppicture import Picture
from p2premap.client.connection import PATIENCE_S, WELCOME_S
from p2premap.client.private import PrivateCluster
from p2premap.control.nodes import NodeView
from p2premap.errors import NodeUnavailable, PeerUnreachable
from p2premap.node.paths import Paths
from tests.cluster import COMMAND, environment, eventually, job_file, p2premap
from tests.still import standing_still
from tests.web.test_hub import ADA, JOB, news, view

BROKEN = "def map(key, line):\n    yield line, 1 / 0\n"


def test_it_prints_nodes_and_jobs_once_where_nobody_looks(three_nodes: PrivateCluster) -> None:
    shown = p2premap(three_nodes.home, "top")
    assert shown.exit_code == 0, shown.stderr
    assert all(name in shown.stdout for name in ("n1", "n2", "n3", "3 of 3 nodes", "alive"))
    told = json.loads(p2premap(three_nodes.home, "top", "--json").stdout)
    assert sorted(node["name"] for node in told["nodes"]) == ["n1", "n2", "n3"]


def test_live_it_shows_what_fails_and_q_ends_it(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    home = {**environment(three_nodes.home), "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen([*COMMAND, "top"], stdin=theirs, stdout=theirs, stderr=theirs, env=home) as process:
        os.close(theirs)
        os.set_blocking(ours, False)
        screen = bytearray()

        def drawn(*texts: str) -> bool:
            try:
                screen.extend(os.read(ours, 1 << 16))
            except BlockingIOError:
                time.sleep(0.02)
            return all(text.encode() in screen for text in texts)

        eventually(lambda: drawn("of 3 nodes", "n2"))
        failed = p2premap(three_nodes.home, "run", job_file(tmp_path, BROKEN), __file__, "--name", "divides")
        assert failed.exit_code == 1
        eventually(lambda: drawn("divides", "failed last", "division by zero"))
        os.write(ours, b"q")
        eventually(lambda: drawn("\x1b[?1049l") or process.poll() is not None)
        assert process.wait(60) == 0
    os.close(ours)


@pytest.mark.parametrize(
    ("width", "there", "not_there"), [(120, "stage", ""), (80, "leader", "stage"), (50, "phase", "leader")]
)
def test_what_matters_most_has_room_in_any_terminal(width: int, there: str, not_there: str) -> None:
    picture = Picture(Console(file=(told := io.StringIO()), width=width, height=24))
    name = "a job with quite a long name for its table"
    ada = NodeView(node=ADA, name="ada", state="alive", pid=1, boot=1)
    picture.hear(news(nodes=(ada,), jobs=(msgspec.structs.replace(view(), name=name, note="It waits."),)))
    picture.print()
    lines = told.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    (row,) = [line for line in lines if line.startswith(JOB.hex()[:8])]
    assert "running" in row
    assert "25%" in row
    (heads,) = [line for line in lines if line.startswith("job ")]
    assert there in heads
    assert not not_there or not_there not in heads


def test_live_it_waits_for_the_only_node_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [PeerUnreachable("It has gone."), NodeUnavailable("None answers."), top.Left()]
    patience: list[float] = []

    def ends(*_: object) -> None:
        raise answers.pop(0)

    @contextlib.contextmanager
    def anywhere(node: str, *, insist: bool, patience_s: float, tick: Callable[[], None]) -> Iterator[None]:
        patience.append(patience_s)
        if isinstance(answers[0], NodeUnavailable):
            ends()
        yield

    monkeypatch.setattr(top, "anywhere", anywhere)
    monkeypatch.setattr(top, "_hear", ends)
    monkeypatch.setattr(top, "AGAIN_S", 0.0)
    picture = Picture(Console(file=io.StringIO()))
    with pytest.raises(top.Left):
        top._follow("", picture, lambda: None)
    assert patience == [PATIENCE_S, 0.0, 0.0], "it does the waiting itself once there is a picture"
    answers.append(NodeUnavailable("There is none at all."))
    with pytest.raises(NodeUnavailable):
        top._follow("", picture, lambda: None)


def test_live_q_ends_it_also_while_the_only_node_stands_still(paths: Paths) -> None:
    picture = Picture(Console(file=io.StringIO()))
    with standing_still(paths, top) as clock, pytest.raises(top.Left):
        top._follow("", picture, partial(clock.is_over, 3.0, top.Left))
    assert clock.now <= 3.0 + 1.5 * WELCOME_S
