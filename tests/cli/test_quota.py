"""A node with a limit for results: it removes the oldest, and says what it keeps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.cluster import eventually, job_file, p2premap, short_home, start, stop

SOURCE = "import os\ndef map(key, line): yield os.urandom(50_000).hex(), 1\ndef reduce(key, ones): return sum(ones)\n"
HOUR_S = 3600.0


def test_the_oldest_results_go_and_status_tells(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\n")
    run = ("run", job_file(tmp_path, SOURCE), str(tmp_path / "text"), "--json")
    with short_home() as home:
        node = start(home, "node", "--slots", "1", "--keep", "250k")
        try:
            eventually(lambda: p2premap(home, "status").exit_code == 0)
            blobs = Path(status(home)["state_dir"]) / "blobs"
            first = json.loads(p2premap(home, *run).stdout)["id"]
            of_first = set(blobs.glob("??/*"))
            second = json.loads(p2premap(home, *run).stdout)["id"]
            told = eventually(lambda: (found := status(home))["kept_bytes"] > 350_000 and found)
            assert told["kept_bytes_max"] == 250_000
            shown = " ".join(p2premap(home, "status").stdout.split())
            assert "of results and inputs, of 250 kB at most; the rest is of jobs that go on" in shown
            for file in blobs.glob("??/*"):
                then = time.time() - (2 * HOUR_S if file in of_first else HOUR_S)
                os.utime(file, (then, then))
            eventually(lambda: status(home)["kept_bytes"] <= 250_000)
            assert p2premap(home, "results", second, "0").exit_code == 0
            assert p2premap(home, "results", first, "0").exit_code == 69
            assert p2premap(home, "restart", first).exit_code == 0, "code and plan of listed jobs stay"
        finally:
            stop(node)


def status(home: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(p2premap(home, "status", "--json").stdout)
    return found
