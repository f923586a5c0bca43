"""Forks that have ended, and forks that are accepted: what becomes of the job when its other replicas are back."""

from __future__ import annotations

from p2premap.election import events
from p2premap.ids import JobId
from tests.election.world import JOB, World

FINAL = "final"


def forked(world: World) -> JobId:
    """The one fork of the job."""
    [(_, fork)] = world.heard(events.Forked)
    assert isinstance(fork, events.Forked)
    assert fork.origin == JOB
    return fork.job


def ended_fork() -> tuple[World, JobId]:
    """A job of a and b; a died, and b's fork of it came to its end."""
    world = World("ab")
    world.create("a", "ab", key=b"mine")
    world.put("a", events.Append(job=JOB, batch=b"before"))
    world.crash("a")
    world.run(0.5)
    fork = forked(world)
    world.put("b", events.Append(job=fork, batch=b"meanwhile"))
    world.put("b", events.Propose(job=fork, cell="m", value=b"pinned"))
    world.put("b", events.Propose(job=fork, cell=FINAL, value=b"done"))
    world.put("b", events.Conclude(job=fork, view=b"view of the fork"))
    return world, fork


def decided(world: World, job: JobId = JOB) -> dict[str, bytes]:
    """The cells of the job, as they were told."""
    return {e.cell: e.value for _, e in world.heard(events.Decided) if e.job == job}  # type: ignore[attr-defined]


def last_lead(world: World) -> events.Lead:
    lead = world.heard(events.Lead)[-1][1]
    assert isinstance(lead, events.Lead)
    return lead


def test_the_job_ends_as_its_fork_did() -> None:
    world, fork = ended_fork()
    assert decided(world) == {}
    world.start("a")
    world.run(5.0)
    assert (last_lead(world).job, last_lead(world).history) == (JOB, (b"before", b"meanwhile"))
    assert decided(world) == {"m": b"pinned", FINAL: b"done"}
    leader = world.leader()
    terms = len(world.heard(events.Lead))
    world.run(20.0)
    assert len(world.heard(events.Lead)) == terms, "it comes home once"
    world.put(leader, events.Conclude(job=JOB, view=b"view of the job"))
    world.run(5.0)
    kept = world.disks["b"]
    assert (kept.jobs[fork].view, fork in kept.batches) == (b"view of the fork", False), "only how it ended is kept"
    assert not [of for of, _ in kept.cells if of == fork]


def test_it_comes_home_after_its_own_node_was_started_again_too() -> None:
    world, _ = ended_fork()
    world.crash("b")
    world.start("b")
    world.run(1.0)
    world.start("a")
    world.run(5.0)
    assert last_lead(world).history == (b"before", b"meanwhile")
    assert decided(world)[FINAL] == b"done"


def test_a_job_that_has_gone_on_takes_the_facts_and_decides_for_itself() -> None:
    world = World("abc")
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"before"))
    for one, other in ("ac", "bc", "ca", "cb"):
        world.put(one, events.PeerGone(node=world.ids[other]))
    world.run(9.0)
    fork = forked(world)
    world.put("c", events.Append(job=fork, batch=b"at c"))
    world.put("c", events.Propose(job=fork, cell=FINAL, value=b"c's"))
    world.put("c", events.Conclude(job=fork, view=b"view of the fork"))
    world.put("a", events.Append(job=JOB, batch=b"at a"))
    for one, other in ("ac", "bc", "ca", "cb"):
        world.put(one, events.PeerSeen(node=world.ids[other], boot=world.cores[other]._context.boot))
    world.run(5.0)
    assert last_lead(world).history == (b"before", b"at a", b"at c")
    assert decided(world) == {}, "what the fork pinned is of facts in another order"
    assert world.disks["c"].jobs[fork].view


def test_no_second_fork_is_opened_after_the_first_has_ended() -> None:
    world, _ = ended_fork()
    world.run(60.0)
    assert len(world.heard(events.Forked)) == 1


def test_an_accepted_fork_is_the_job() -> None:
    world = World("ab")
    world.create("a", "ab", key=b"mine")
    world.put("a", events.Append(job=JOB, batch=b"before"))
    world.crash("a")
    world.run(0.5)
    fork = forked(world)
    assert world.cores["b"].find(b"mine") == JOB
    world.put("b", events.AcceptFork(job=fork))
    assert world.cores["b"].find(b"mine") == fork, "a client that hands it in again finds it"
    state = world.cores["b"].job(fork)
    assert state is not None
    assert (state.fork, state.leads) == ("", True)
    world.start("a")
    world.run(10.0)
    assert world.cores["a"].find(b"mine") != JOB, "who comes back after all is told that there is no such job any more"
    assert world.disks["a"].jobs[JOB].gone
    world.put("b", events.Append(job=fork, batch=b"after"))
    world.put("b", events.Propose(job=fork, cell=FINAL, value=b"done"))
    assert decided(world, fork) == {FINAL: b"done"}
    assert world.leader(fork) == "b"


def test_a_fork_that_has_ended_can_be_accepted() -> None:
    world, fork = ended_fork()
    world.put("b", events.AcceptFork(job=fork))
    state = world.cores["b"].job(fork)
    assert state is not None
    assert (state.fork, state.record.view) == ("", b"view of the fork")
    assert fork not in world.disks["b"].batches
    world.start("a")
    world.run(10.0)
    assert world.disks["a"].jobs[JOB].gone
    assert world.leader() == ""
