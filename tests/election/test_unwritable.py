"""A job whose replicas' disks are full waits, and says for what."""

from __future__ import annotations

from p2premap.election import events
from tests.election.world import JOB, World


def note(world: World) -> str:
    state = world.cores[world.leader()].job(JOB)
    assert state is not None
    return state.note


def test_a_job_that_most_of_its_replicas_cannot_write_says_where_space_is_needed() -> None:
    world = World("abc")
    world.create("a", "abc")
    a, b, c = (world.ids[name].hex()[:8] for name in "abc")
    world.full.add("b")
    world.put("a", events.Append(job=JOB, batch=b"facts"))
    world.run(1.0)
    assert note(world) == "", "a and c are enough"
    world.full.add("c")
    world.put("a", events.Append(job=JOB, batch=b"facts"))
    world.run(1.0)
    full = "Its ledger cannot be written at {}: their disks are full, or fail; free some space there."
    assert note(world) == full.format(f"{b}, {c}")
    world.full.add("a")
    world.put("a", events.Append(job=JOB, batch=b"facts"))
    assert note(world) == full.format(f"{a}, {b}, {c}")
    world.full.clear()
    world.run(2.0)
    assert note(world) == ""
