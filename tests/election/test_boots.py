"""Replicas whose disks have been set back: who may have forgotten its word does not give it again."""

from __future__ import annotations

import pytest

from p2premap.election import events, messages
from p2premap.election.boots import remembers
from p2premap.ids import Ballot, Boot, NodeId, next_boot
from p2premap.sim.electionmodel import Disk
from p2premap.wire import Message
from tests.election.world import JOB, World
from tests.sim.planting import Planted, plant

FIRST, SECOND, THIRD = (next_boot(Boot(n << 24), n * 1000) for n in range(3))


def test_what_a_disk_remembers() -> None:
    assert remembers(FIRST, (), 0), "nobody knows it: there is nothing to forget"
    assert remembers(THIRD, (FIRST, SECOND), FIRST)
    assert remembers(THIRD, (FIRST, SECOND), THIRD)
    assert not remembers(SECOND, (FIRST,), THIRD)
    assert not remembers(SECOND + 1, (FIRST,), SECOND), "another start of the same number"
    assert not remembers(THIRD, (FIRST, SECOND + 1), SECOND), "one before that, since when it has started again"
    assert remembers(THIRD, (SECOND,), FIRST), "it began before those that a disk keeps"


class Torn(World):
    """a, b and c hold a job; a and b have decided what c has not heard of. Then a is lost, and b set back."""

    def __init__(self, *, strict: bool = False) -> None:
        self.lost: type[Message] | None = None
        super().__init__("abc")
        self.virgin = (self.lives["b"][:0], Disk())
        self.create("a", "abc", strict=strict)
        self.deaf.add("c")
        self.put("a", events.Propose(job=JOB, cell="m", value=b"first"))
        self.run(1.2)
        assert {event.value for _, event in self.heard(events.Decided)} == {b"first"}
        self.crash("a")
        self.crash("b")
        self.deaf.clear()

    def back(self) -> None:
        """b is what it was before it heard of the job, and starts, again for the first time."""
        self.lives["b"], self.disks["b"] = self.virgin
        self.start("b")

    def arrives(self, to: NodeId, message: Message) -> bool:
        return self.lost is None or not isinstance(message, self.lost)

    def decide_otherwise(self) -> None:
        """c, should it lead, proposes what it likes."""
        if self.leader() == "c":
            self.put("c", events.Propose(job=JOB, cell="m", value=b"second"))
            self.run(2.0)

    def decided(self) -> set[bytes]:
        """What anybody says is decided in the job, not in a fork."""
        return {event.value for _, event in self.heard(events.Decided) if event.job == JOB}


def test_who_knows_nothing_of_a_job_may_have_voted_in_it() -> None:
    world = Torn()
    world.back()
    world.run(4.0)
    world.decide_otherwise()
    assert world.decided() == {b"first"}
    assert world.disks["b"].jobs[JOB].amnesiac


def test_an_answer_that_was_lost_is_given_again() -> None:
    world = Torn()
    world.lost = messages.BootsKnown
    world.back()
    world.run(2.0)
    assert not world.disks["b"].jobs[JOB].amnesiac, "it has not heard yet"
    world.lost = None
    world.run(2.0)
    world.decide_otherwise()
    assert world.decided() == {b"first"}
    assert world.disks["b"].jobs[JOB].amnesiac


def test_without_those_who_have_forgotten_there_is_no_quorum() -> None:
    """Nobody waits for b's word for ever: the job is forked by c, which has what there is."""
    world = Torn()
    world.back()
    world.run(12.0)
    assert [name for name, _ in world.heard(events.Forked)] == ["c"]


def test_a_strict_job_says_whose_disk_is_old() -> None:
    world = Torn(strict=True)
    world.back()
    world.run(12.0)
    assert not world.heard(events.Forked)
    state = world.cores["c"].job(JOB)
    assert state is not None
    a, b = (world.ids[name].hex()[:8] for name in "ab")
    assert state.note == (
        f"2 of 3 replicas are needed; no answer from {a}; older copies of their disks are back at {b}."
    )


def test_who_was_made_a_member_before_it_started_may_vote_when_a_quorum_says_so() -> None:
    world = World("abc")
    world.deaf.update("bc")
    world.create("a", "abc")
    world.run(1.5)
    for name in "bc":
        world.crash(name)
    world.deaf.clear()
    for name in "bc":
        world.start(name)
    world.run(2.0)
    world.crash("a")
    world.run(5.0)
    assert world.leader() in ("b", "c")


def test_all_that_is_left_is_a_replica_that_has_forgotten() -> None:
    """Its word does not count, but it holds the job: it forks."""
    world = World("abc")
    world.create("a", "abc")
    lives = world.lives["b"]
    world.crash("b")
    world.start("b")
    world.run(2.0)
    world.crash("b")
    world.crash("c")
    world.lives["b"] = lives
    world.start("b")
    world.run(2.0)
    assert world.disks["b"].jobs[JOB].amnesiac
    world.crash("a")
    world.run(30.0)
    assert [name for name, _ in world.heard(events.Forked)] == ["b"]


BUGS = (
    Planted(
        what="Who knows nothing of a job counts as one that has never voted in it.",
        where="election.hearing:Hearing._store",
        line="context.me not in record.members or replica.boot_of(context.me) == context.boot",
        becomes="True",
        caught_by="decided-once",
        scenario="told anew",
    ),
    Planted(
        what="Who is asked keeps a boot of somebody who has forgotten the one before.",
        where="election.hearing:Hearing._boots",
        line="remembers(asked.boot, asked.former, last)",
        becomes="True",
        caught_by="decided-once",
        scenario="asked again",
    ),
    Planted(
        what="A start counts as remembered when there were so many.",
        where="election.boots:remembers",
        line="known in (0, boot) or known in former",
        becomes="known <= boot or known in former",
        caught_by="decided-once",
        scenario="told anew",
    ),
)


def decided_after(scenario: str) -> set[bytes]:
    world = Torn()
    if scenario == "asked again":
        world.lost = messages.BootsKnown
        world.back()
        world.run(2.0)
        world.lost = None
    else:
        world.back()
    world.run(4.0)
    world.decide_otherwise()
    return world.decided()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_it_finds_two_decisions(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    assert decided_after(bug.scenario) == {b"first", b"second"}


# --- facts of former leaders ------------------------------------------------------------------------------------------


def late_facts() -> tuple[bool, bool]:
    """Whether b, which has promised c's ballot, takes facts of a's stream from a, and from c."""
    world = World("abc")
    world.create("a", "abc")
    a, c = world.ids["a"], world.ids["c"]
    ballot = Ballot(0, 0, a)
    world.deaf.update("bc")
    world.put("a", events.Append(job=JOB, batch=b"late"))
    [late] = [batch for key, batch in world.disks["a"].batches[JOB].items() if batch.batch == b"late"]
    world.arrives = lambda to, message: False  # type: ignore[method-assign]
    world.put("b", events.FromReplica(node=c, message=messages.Prepare(job=JOB, ballot=Ballot(0, 1, c), vector=())))
    has = []
    for sender in (a, c):
        world.put("b", events.FromReplica(node=sender, message=messages.Batches(batches=(late,))))
        has.append((ballot, late.serial) in world.disks["b"].batches[JOB])
    return has[0], has[1]


def test_facts_of_a_former_leader_come_through_the_next_one() -> None:
    """Else a quorum could hold what the next leader, who has b's promise already, begins without."""
    assert late_facts() == (False, True)


def test_it_finds_facts_of_a_former_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = Planted(
        what="A replica takes facts of a former leader after it has promised to follow another.",
        where="election.follower:on_batches",
        line="job.replica.promised.node in (node, context.me)",
        becomes="True",
        caught_by="protected",
        scenario="late facts",
    )
    plant(monkeypatch, bug)
    assert late_facts() == (True, True)
