"""Ballots are ordered; a fence admits none below the highest that it has seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2premap.election.ballot import Fence, first, first_of_fork, successor
from p2premap.ids import Ballot, JobId, NodeId
from p2premap.tasks.state import ATTEMPTS_A_TERM

A, B = NodeId(b"A" * 16), NodeId(b"B" * 16)
JOB, OTHER = JobId(b"j" * 16), JobId(b"k" * 16)

ballots = st.builds(Ballot, st.integers(0, 2), st.integers(0, 2), st.sampled_from([A, B]))


def test_an_epoch_beats_every_round_and_a_round_every_node() -> None:
    assert Ballot(1, 0, A) > Ballot(0, 9, B)
    assert Ballot(0, 1, A) > Ballot(0, 0, B)
    assert Ballot(0, 0, B) > Ballot(0, 0, A)


@given(ballots, st.sampled_from([A, B]))
def test_a_successor_beats_what_it_follows_within_the_epoch(highest: Ballot, me: NodeId) -> None:
    mine = successor(highest, me)
    assert mine > highest
    assert mine.epoch == highest.epoch
    assert mine.node == me
    assert mine > first(me)


@given(st.lists(st.tuples(st.sampled_from([JOB, OTHER]), ballots), max_size=30))
def test_a_fence_admits_a_ballot_if_and_only_if_no_higher_one_was_seen(orders: list[tuple[JobId, Ballot]]) -> None:
    fence = Fence(10)
    highest: dict[JobId, Ballot] = {}
    for job, ballot in orders:
        assert fence.admits(job, ballot) == (ballot >= highest.get(job, ballot))
        highest[job] = max(highest.get(job, ballot), ballot)


def test_a_fence_is_bounded_and_forgets_the_job_not_heard_of_for_longest() -> None:
    fence = Fence(2)
    new, old = Ballot(0, 1, B), first(A)
    for name in (b"1", b"2", b"1", b"3"):
        assert fence.admits(JobId(name * 16), new)
    assert len(fence) == 2
    assert not fence.admits(JobId(b"1" * 16), old)
    assert fence.admits(JobId(b"2" * 16), old)


@given(st.binary(min_size=16, max_size=16), st.sampled_from([A, B]))
def test_a_forks_attempts_are_numbered_apart_from_its_jobs_and_fit(fork: bytes, opener: NodeId) -> None:
    mine = first_of_fork(JobId(fork), opener)
    assert mine > first(opener)
    assert mine.n >= 60_000, "its job is not led so often"
    assert (mine.n + 200_000) * ATTEMPTS_A_TERM < 2**32
