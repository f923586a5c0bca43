"""One seed, one history: in two processes, whatever their hash seeds; and another seed, another history."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
from p2premap.sim.cluster import Cluster
from p2premap.sim.faults import Faults
cluster = Cluster(6, seed={seed}, strict=False)
cluster.form()
faults = Faults(cluster, random=cluster.world.random("faults"))
cluster.world.run_for(30.0)
faults.end()
cluster.world.run_for(10.0)
print(cluster.world.trace.digest(), cluster.world.steps, faults.happened)
"""


def history(seed: int, hash_seed: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(seed=seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout


def test_the_trace_hash_depends_on_the_seed_alone() -> None:
    first = history(5, "1")
    assert first == history(5, "4242")
    assert first != history(6, "1")
