"""Ballots: who may lead a job now, and how those that are led tell.

A job has one ballot at a time, ordered (epoch, n, node). Whoever leads has had its ballot promised by a quorum of the
job's replicas; a successor takes a higher one (Paxos Made Simple, 2.2). Nobody tells a deposed leader in time, so those
who take its orders must: a `Fence` remembers the highest ballot that it has seen for each job and admits no
lower one (the fencing tokens of Gray and Cheriton's leases, here without a clock).
"""

from __future__ import annotations

from p2premap.ids import Ballot, JobId, NodeId


def first(home: NodeId) -> Ballot:
    """The ballot under which a job's home leads it from the start: its first replica set needs no election."""
    return Ballot(0, 0, home)


def successor(highest: Ballot, me: NodeId) -> Ballot:
    """The lowest ballot of this node that beats `highest` in the same epoch."""
    return Ballot(highest.epoch, highest.n + 1, me)


FIRST_OF_FORKS = 1 << 16
"""A job's own leaders would have to be elected so often to come so far."""
FORKS_APART = 4_000_000


def first_of_fork(fork: JobId, opener: NodeId) -> Ballot:
    """The ballot under which the opener of a fork leads it.

    A leader's n numbers the attempts that it gives out (`p2premap.tasks.state.ATTEMPTS_A_TERM`, which fits u32 up to
    n = 4,294,966), and a job takes over what its forks did: an attempt's number at a node must not mean two things.
    So a fork does not count on from its job, but from a place that its id chooses. Two forks of one job that choose the
    same (one pair in some millions) cost a fact at most: of two results of one task under one number from one node, the
    second is taken for the first, which counts in any case.
    """
    return Ballot(0, FIRST_OF_FORKS + int.from_bytes(fork[:4], "big") % FORKS_APART, opener)


class Fence:
    """The highest ballot seen for each job.

    Args:
        jobs_max: beyond this the job that was not heard of for the longest time is forgotten: it must be over by
            then, since a running job's leader speaks at least every few seconds.
    """

    def __init__(self, jobs_max: int) -> None:
        self._jobs_max = jobs_max
        self._highest: dict[JobId, Ballot] = {}

    def __len__(self) -> int:
        return len(self._highest)

    def admits(self, job: JobId, ballot: Ballot) -> bool:
        """Whether an order under this ballot may be followed; from then on no lower one is."""
        highest = self._highest.pop(job, ballot)
        self._highest[job] = max(highest, ballot)
        if len(self._highest) > self._jobs_max:
            del self._highest[next(iter(self._highest))]
        return ballot >= highest
