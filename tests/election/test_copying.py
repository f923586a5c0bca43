"""A node is a copy of a job when the job could be ended from there: with its ledger, its code and its inputs."""

from __future__ import annotations

from p2premap.election import events
from tests.election.world import JOB, World


class Slow(World):
    """Inputs arrive when the test says so; plan and code at once."""

    def _perform(self, name: str, effect: events.ElectionEffect) -> None:
        if isinstance(effect, events.Bring):
            self._queue.append((name, events.Brought(job=effect.job, copying=True)))
        else:
            super()._perform(name, effect)

    def note(self) -> str:
        state = self.cores[self.leader()].job(JOB)
        assert state is not None
        return state.note


def test_the_client_is_told_when_small_inputs_are_with_the_replicas() -> None:
    world = Slow("abc")
    world.create("a", "abc")
    world.put("b", events.Brought(job=JOB))
    assert world.heard(events.Created) == [], "the inputs may be at c in a moment"
    world.put("c", events.Brought(job=JOB))
    assert [e.copies for _, e in world.heard(events.Created)] == [3]
    assert world.now == 0.0
    world.run(0.5)
    assert world.note() == ""


def test_inputs_that_take_their_time_are_no_copy_and_the_job_says_so() -> None:
    world = Slow("abc")
    world.create("a", "abc")
    world.put("b", events.Brought(job=JOB))
    world.run(1.5)
    assert [e.copies for _, e in world.heard(events.Created)] == [2], "c has the ledger, and not the inputs"
    c = world.ids["c"].hex()[:8]
    assert world.note() == f"Its inputs are still being copied to {c}: until then it may have to wait for them."
    assert [e.note for name, e in world.heard(events.LeaderKnown) if name == "a"][-1] == world.note()
    world.put("c", events.Brought(job=JOB))
    world.run(0.5)
    assert world.note() == ""


def test_a_replica_whose_inputs_are_on_their_way_leads_all_the_same() -> None:
    world = Slow("abc")
    world.create("a", "abc")
    world.run(1.5)
    world.crash("a")
    world.run(1.0)
    assert world.leader() == "b"
    b, c = (world.ids[name].hex()[:8] for name in "bc")
    assert world.note() == f"Its inputs are still being copied to {b}, {c}: until then it may have to wait for them."


def test_who_cannot_have_the_plan_is_not_waited_for() -> None:
    world = Slow("abc")
    world.create("a", "abc")
    for name in "bc":
        world.put(name, events.Brought(job=JOB, error="Its plan is nowhere."))
    assert [e.copies for _, e in world.heard(events.Created)] == [1]


class Bare(World):
    """Only d, which is no replica, can give plan and code."""

    def _perform(self, name: str, effect: events.ElectionEffect) -> None:
        if isinstance(effect, events.Bring):
            error = "" if self.names[effect.source] == "d" else "Its plan is nowhere."
            self._queue.append((name, events.Brought(job=effect.job, error=error)))
        else:
            super()._perform(name, effect)


def test_a_plan_that_no_member_has_comes_from_where_the_job_is_handed_in_again() -> None:
    """Its home, the only copy that the client was told of, is gone; the client, or another one, comes again."""
    world = Bare("abcd")
    world.create("a", "abc")
    assert [e.copies for _, e in world.heard(events.Created)] == [1]
    world.crash("a")
    world.run(10.0)
    assert world.leader() == ""
    world.put("d", events.FindJob(request=2, key=b"key"))
    assert [e.job for _, e in world.heard(events.KeyAnswer)] == [JOB]
    world.run(10.0)
    assert world.leader() in ("b", "c")
