"""Jobs for each node in the simulator: leaders die, nodes come late, and each that is there at the end has answered."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest
import trio

from p2premap.client.plan import plan_mapreduce
from p2premap.client.submission import Submission
from p2premap.ids import JobId
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.slots import Pace
from p2premap.sim.daemon.visitor import Visitor
from p2premap.tasks.job import JobOptions, Phase
from tests.sim.stories import leader_of

EACH = """
each_node = True
lasts = 20

def map(node, _):
    yield "nodes", node

def reduce(key, nodes):
    return sorted(nodes)
"""
ENDLESS = """
import itertools
datasource = itertools.count()
endless = True
lasts = 7

def map(number, key):
    yield number, key * key
"""


def plan(directory: Path, text: str, *, seed: int, slots: int = 4) -> Submission:
    path = directory / "job.py"
    path.write_text(text)
    planned = plan_mapreduce(str(path), (), slots=slots, partitions=0, options=JobOptions())
    spec = msgspec.structs.replace(planned.spec, submission_key=Random(seed).randbytes(16))
    return Submission(spec=spec, blobs=planned.blobs, files=(), bytes_in=0, tasks=0)


async def leader_dies(daemons: DaemonWorld, job: JobId) -> int:
    """Which machine that was."""
    seat = leader_of(daemons, job)
    assert seat is not None, "somebody leads"
    daemons.world.crash(seat)
    return seat.index


@pytest.mark.parametrize("seed", range(4))
def test_each_node_answers_once_whoever_leads_and_whoever_comes_late(tmp_path: Path, seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        daemons.world.crash(daemons.world.seats[4])
        await trio.sleep(8.0)
        visitor = Visitor(daemons)
        given = plan(tmp_path, EACH, seed=seed)
        job = await visitor.hand_in(given.spec, given.blobs)
        await trio.sleep(daemons.random.uniform(0.5, 6.0))
        gone = await leader_dies(daemons, job)
        await trio.sleep(daemons.random.uniform(1.0, 6.0))
        daemons.world.start(daemons.world.seats[4])
        view = await visitor.see_through(job)
        assert view.phase is Phase.DONE
        assert view.takeovers >= 1
        part = b"".join((await visitor.fetch(view)).values())
        answered = set(msgspec.json.decode(part.partition(b"\t")[2]))
        there = {f"n{index}" for index in range(5) if index != gone}
        assert there <= answered <= there | {f"n{gone}"}

    simulate(story, nodes=5, seed=seed, pace=Pace(task_s=0.3))


@pytest.mark.parametrize("seed", range(2))
def test_no_key_of_an_endless_datasource_is_left_out_or_taken_twice(tmp_path: Path, seed: int) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons)
        given = plan(tmp_path, ENDLESS, seed=seed)
        job = await visitor.hand_in(given.spec, given.blobs)
        await trio.sleep(daemons.random.uniform(1.0, 5.0))
        await leader_dies(daemons, job)
        view = await visitor.see_through(job)
        assert view.phase is Phase.DONE
        assert view.takeovers >= 1
        parts = await visitor.fetch(view)
        lines = b"".join(parts[number] for number in sorted(parts)).splitlines()
        assert lines == [b"%d\t%d" % (number, number * number) for number in range(len(lines))]
        assert len(lines) > 50

    simulate(story, nodes=4, seed=seed, pace=Pace(task_s=0.3))
