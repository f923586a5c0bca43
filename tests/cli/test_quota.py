"""A node with a limit for results: it removes the oldest, and says what it keeps."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from tests.cli.test_rotate import machines
from tests.cluster import eventually, job_file, p2premap

SOURCE = "import os\ndef map(key, line): yield os.urandom(50_000).hex(), 1\ndef reduce(key, ones): return sum(ones)\n"
HOUR_S = 3600.0
QUICK = (
    "from p2premap.cli import main; from p2premap.node import quota; quota.COST = 1; "
    "quota.Quota.__init__.__kwdefaults__['look_s'] = 0.1; main()"
)
"""`p2premap` that looks at what it keeps ten times a second."""


def test_the_oldest_results_go_and_status_tells(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\n")
    run = ("run", job_file(tmp_path, SOURCE), str(tmp_path / "text"), "--json")
    with machines("n1", program=QUICK, options=("--keep", "250k")) as (node,):
        home = node.home
        blobs = Path(node.status()["state_dir"]) / "blobs"
        first = node.run(*run)["id"]
        of_first = set(blobs.glob("??/*"))
        second = node.run(*run)["id"]
        told = eventually(lambda: (found := node.status())["kept_bytes"] > 350_000 and found)
        assert told["kept_bytes_max"] == 250_000
        assert "of results and inputs, of 250 kB at most; the rest is of jobs that go on" in " ".join(
            node.run("status").split()
        )
        for file in blobs.glob("??/*"):
            then = time.time() - (2 * HOUR_S if file in of_first else HOUR_S)
            with suppress(FileNotFoundError):
                os.utime(file, (then, then))
        eventually(lambda: node.status()["kept_bytes"] <= 250_000)
        assert p2premap(home, "results", second, "0").exit_code == 0
        assert p2premap(home, "results", first, "0").exit_code == 69
        assert p2premap(home, "restart", first).exit_code == 0, "code and plan of listed jobs stay"
