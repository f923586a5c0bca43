"""The architecture holds: layers, pure rooms, and what a daemon process loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = (
    *("asyncio", "cloudpickle", "http", "multiprocessing", "numpy", "pickle", "psutil", "rich", "zeroconf"),
    *("p2premap.worker.loop", "p2premap.worker.mapreduce"),
)
ROOT = Path(__file__).parent.parent


def test_the_import_contracts_hold() -> None:
    """`--no-cache`: a stale cache once kept a broken contract green."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_daemon_loads_neither_pickle_nor_numpy_nor_rich() -> None:
    """They cost memory on every idle node, and the daemon must not be able to unpickle by accident."""
    code = "import sys, p2premap.node.daemon; print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_only_the_sim_directory_is_reached_by_the_link() -> None:
    link = ROOT / "p2premap" / "sim"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "sim"
