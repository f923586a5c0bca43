"""One seed, one history: in two processes, whatever their hash seeds; and another seed, another history."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CORES = """
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

DAEMONS = """
import trio
from p2premap.sim.daemon.houses import simulate
from tests.sim.stories import run_job

async def story(daemons):
    await daemons.start_all()
    async def lose_it(job):
        await trio.sleep(0.7)
        daemons.world.power_off(daemons.world.seats[0])
    await run_job(daemons, lose_it)
    return daemons.world.trace.digest(), daemons.world.steps, trio.current_time()

print(simulate(story, nodes=4, seed={seed}))
"""

ENGINES = {"the event engine": CORES, "whole daemons": DAEMONS}


def history(script: str, seed: int, hash_seed: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script.format(seed=seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@pytest.mark.parametrize("engine", ENGINES)
def test_the_trace_hash_depends_on_the_seed_alone(engine: str) -> None:
    script = ENGINES[engine]
    first = history(script, 5, "1")
    assert first == history(script, 5, "4242")
    assert first != history(script, 6, "1")
