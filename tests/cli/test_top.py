"""`top`: printed once, as JSON, and live in a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path

from p2premap.client.private import PrivateCluster
from tests.cluster import COMMAND, environment, eventually, job_file, p2premap

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
        assert process.wait(10) == 0
    os.close(ours)
