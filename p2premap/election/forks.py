"""Going on without a quorum: forks, and how they come home.

A job whose quorum is out of reach decides nothing. One that its user did not declare `strict` may go on as a *fork*:
a job of its own, with an id of its own, a replica set of its own and a copy of all facts and decided cells that its
opener has. What it decides counts for itself alone, so no promise of the job that it came from is broken; its
views and outputs bear its name, and its end is provisional.

**Opening.** After `fork_s` without a quorum in reach, the first of the replica set that can be reached opens the fork;
of two members at once, where the other's process is gone for certain. The fork's id is a digest over the job, its
epoch, what its opener had and who that is: two openers make two forks. Its facts are the opener's, in their order
(`streams.fold`), as the stream of a ballot (0, 0, opener); the opener leads without an election, as the home of a new
job does, under a ballot that is the fork's own (`ballot.first_of_fork`). A decided cell counts in the fork only if its
opener has the facts that the cell speaks of. A fork that loses its own quorum may be forked in turn; that is a fork of
the same job.

**Coming home.** When a replica of both sees that the job is led again, the fork's tasks are stopped, and all its facts
are sent to the job's leader. Where the leader's own facts are a prefix of these, in this order, nothing has happened
but what the fork did: then the rest is appended, and the fork's decided cells are proposed again, as far as the job has
not decided them. Where the job has gone on too, the facts that it lacks are appended, and the cells are left to be
decided anew: a manifest of the fork speaks of facts in another order. Either way the leader then stands once more, so
that its tasks begin with all facts. Facts merge; what is finished is not done again. When they are protected the fork
is dropped everywhere.

A fork that has come to its own end keeps its facts until the job has ended too, and comes home in the same way, sent by
whoever led it last, or another of its replicas where that one is gone, before the job's tasks begin (`homecoming`). So
the job ends as its fork did, with nothing run again, unless it has gone on otherwise itself. Then its user sees two
results, and the job's own is the one that counts.

An opener that is itself no replica of the job any more sends the facts to those who are. `accept` makes the fork the
job, where the rest of the replica set is lost for good; a member of the old one that comes back after all is told that
there is no such job any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from blake3 import blake3

from p2premap.election.ballot import first, first_of_fork
from p2premap.election.config import is_config
from p2premap.election.context import Context
from p2premap.election.epochs import leave
from p2premap.election.events import Deposed, Forked
from p2premap.election.follower import inactive
from p2premap.election.job import Job
from p2premap.election.messages import ForkEnd, ForkFacts, ForkTaken, Moved, StoreJob
from p2premap.election.records import CellRecord, StoredBatch
from p2premap.election.replica import Replica
from p2premap.election.streams import Vector, encode_head, in_order, portions
from p2premap.ids import JOB_ID_BYTES, JobId, NodeId

AGAIN_S = 2.0
"""A fork on its way home that is not heard of is sent again after so long."""

Add = Callable[..., Job]


def fork_id(job: Replica, opener: NodeId) -> JobId:
    """The id of the fork that this node would open now."""
    said = blake3(b"fork" + job.job + opener + str((job.promised.epoch, job.streams.vector())).encode())
    return JobId(said.digest(JOB_ID_BYTES))


def decided_on(replica: Replica, vector: Vector) -> tuple[CellRecord, ...]:
    """The decided cells that speak of nothing but facts that this vector has."""
    chosen = replica.chosen_cells()
    return tuple(c for c in chosen if not is_config(c.cell) and vector.get(c.ballot, -1) >= c.serial)


class Forks:
    """The forks of which this node knows.

    Args:
        jobs: all jobs of this core, forks among them.
        add, remove: put a job there, take it away.
    """

    def __init__(self, context: Context, jobs: dict[JobId, Job], add: Add, remove: Callable[[Job], None]) -> None:
        self._context = context
        self._jobs = jobs
        self._add = add
        self._remove = remove
        self._of: dict[JobId, dict[JobId, None]] = {}
        self._leaders: dict[JobId, NodeId | None] = {}
        """Of the jobs that have forks, as far as they were looked at."""
        self._sent_at: dict[JobId, float] = {}
        self._sent: dict[JobId, int] = {}
        self._home: set[JobId] = set()
        """Forks that have ended, and of which the job has everything."""
        self._arriving: dict[tuple[NodeId, JobId], list[bytes]] = {}
        self._look_at = math.inf

    def of(self, origin: JobId) -> JobId | None:
        """A fork of this job that is known here and has not come home; None where there is none."""
        return next((fork for fork in self._of.get(origin, ()) if fork not in self._home), None)

    def known(self, fork: Job) -> None:
        """A fork is at this node."""
        record = fork.replica.record
        if fork.replica.active or fork.replica.awaits_home:
            origin = JobId(record.origin)
            self._of.setdefault(origin, {})[record.job] = None
            self._look_at = min(self._look_at, self._context.now + self._context.config.heartbeat_s)
            if origin in self._jobs:
                self._jobs[origin].fork = record.job

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, job: Job) -> None:
        """No quorum of this job is in reach, and it is for this node to go on."""
        replica = job.replica
        vector = dict(replica.streams.serials)
        spans = replica.streams.fold(vector)
        fork = job.fork = fork_id(replica, self._context.me)

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            if replica.active and fork not in self._jobs:
                self._store(job, fork, vector, tuple(in_order(spans, batches)))
            job.fork = fork if fork in self._jobs else self.of(replica.job)

        # what is not on disk yet must be, before it can be read back
        replica.write(sync=True, then=lambda: replica.load_beyond({}, loaded))

    def _store(self, job: Job, fork: JobId, vector: Vector, facts: tuple[bytes, ...]) -> None:
        context, old = self._context, job.replica.record
        others = [n for n in old.members if n != context.me and context.reachable(n)]
        others += [n for n, peer in context.peers.items() if peer.alive and n not in others]
        members = (context.me, *others[: max(0, old.copies - 1)])
        past, ballot = first(context.me), first_of_fork(fork, context.me)
        record = msgspec.structs.replace(
            old,
            job=fork,
            key=b"",
            members=members,
            promised=ballot,
            origin=old.origin or old.job,
            boots=tuple(context.boot_of(node) for node in members),
            amnesiac=False,
        )
        replica = Replica(context, record)
        replica.write(record, sync=True)
        stream = [encode_head({}), *facts]
        batches = [StoredBatch(job=fork, ballot=past, serial=n, batch=fact) for n, fact in enumerate(stream)]
        batches.append(StoredBatch(job=fork, ballot=ballot, serial=0, batch=encode_head({past: len(facts)})))
        for cell in decided_on(job.replica, vector):
            replica.choose(msgspec.structs.replace(cell, ballot=past, serial=len(facts)))
        opened = self._add(replica, brought=True, fresh=True)
        replica.store(batches, lambda: self._opened(opened, facts))

    def _opened(self, fork: Job, facts: tuple[bytes, ...]) -> None:
        record = fork.replica.record
        self._context.out.append(Forked(job=record.job, origin=JobId(record.origin)))
        for node in record.members:
            if node != self._context.me:
                self._context.send(node, StoreJob(record=record))
        fork.lead_fork(facts)

    # --- coming home --------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When to look whether a fork can come home."""
        return self._look_at

    def tick(self) -> None:
        """Look at all forks here, while there are any."""
        if self._look_at > self._context.now:
            return
        self._look_at = math.inf
        for origin, fork in [(origin, fork) for origin, forks in self._of.items() for fork in forks]:
            one, other = self._jobs.get(fork), self._jobs.get(origin)
            if one is None or not (one.replica.active or one.replica.awaits_home):
                self._forget(origin, fork)
                continue
            again_s = self._context.config.heartbeat_s if one.replica.active else AGAIN_S
            self._look_at = min(self._look_at, self._context.now + again_s)
            self._context.touch(fork)
            if other is not None and other.replica.record.view:
                self._drop(one)
            elif other is not None and one.replica.active:
                self._look(one, other)
            elif other is not None:
                self._look_after_end(one, other)

    def led(self, job: JobId, leader: NodeId | None) -> None:
        """Who leads this job, if anybody does: a fork of it need not wait until it is looked at when that changes."""
        if job in self._of and self._leaders.get(job) != leader:
            self._leaders[job] = leader
            if leader is not None:
                self._look_at = self._context.now

    def _forget(self, origin: JobId, fork: JobId) -> None:
        self._of.get(origin, {}).pop(fork, None)
        if not self._of.get(origin):
            self._of.pop(origin, None)
            self._leaders.pop(origin, None)
        self._sent_at.pop(fork, None)
        self._sent.pop(fork, None)
        self._home.discard(fork)
        if origin in self._jobs:
            self._jobs[origin].fork = self.of(origin)

    def _look(self, fork: Job, job: Job) -> None:
        if job.replica.active and (job.leader is None or not job.see_quorum()):
            if fork.replica.job in self._sent_at:
                del self._sent_at[fork.replica.job]
                self._sent.pop(fork.replica.job, None)
                fork.step_down(self._context.config.missed_s)  # to be led on, by whoever stands first
            return
        if fork.leadership is None:
            stranger = fork.leader is not None and fork.leader not in job.replica.members
            if stranger and fork.candidacy is None and fork.may_stand():
                fork.stand()  # its leader cannot know that the job is led again
            return
        if self._is_time(fork):
            if fork.leadership.ready:
                fork.leadership.ready = False
                self._context.out.append(Deposed(job=fork.replica.job))
            self._send_home(fork, job)

    def _look_after_end(self, fork: Job, job: Job) -> None:
        """Whoever led the fork last has all of its facts; another replica has most, and says so only in its place."""
        replica, context = fork.replica, self._context
        if job.replica.active and (job.leader is None or not job.see_quorum()):
            self._sent_at.pop(replica.job, None)
            return
        last = replica.promised.node
        mine = last == context.me or not context.reachable(last)
        if self._is_time(fork) and mine and replica.job not in self._home:
            self._send_home(fork, job)

    def _is_time(self, fork: Job) -> bool:
        """Whether to send it now: again, if so, only after a while."""
        now, job = self._context.now, fork.replica.job
        if now < self._sent_at.get(job, -math.inf) + AGAIN_S:
            return False
        self._sent_at[job] = now
        return True

    def _send_home(self, fork: Job, job: Job) -> None:
        leadership, replica = fork.leadership, fork.replica
        vector = dict(replica.streams.serials)
        spans = replica.streams.fold(vector)
        cells = decided_on(replica, vector)
        origin = job.replica.job

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            to = job.leader if job.replica.active else self._someone(job)
            if to is None or fork.leadership is not leadership:
                return
            facts = list(in_order(spans, batches))
            number = 0
            carried = (StoredBatch(job=origin, ballot=replica.promised, serial=0, batch=fact) for fact in facts)
            for portion in portions(carried, self._context.config.batch_bytes_max):
                some = tuple(carrier.batch for carrier in portion)
                self._context.tell(to, ForkFacts(job=origin, fork=replica.job, number=number, facts=some))
                number += len(some)
            self._sent[replica.job] = number
            self._context.tell(to, ForkEnd(job=origin, fork=replica.job, count=number, cells=cells))

        replica.write(sync=True, then=lambda: replica.load_beyond({}, loaded))

    def _someone(self, job: Job) -> NodeId | None:
        """Of a job that this node is no replica of any more: one of those who are; another one each time."""
        replicas = [node for node in job.replica.members if self._context.reachable(node)]
        return self._context.rng.choice(replicas) if replicas else None

    def facts(self, node: NodeId, job: Job, message: ForkFacts) -> None:
        """Facts of a fork arrive at the job's leader."""
        key = (node, message.fork)
        if message.number == 0:
            self._arriving[key] = []
        arriving = self._arriving.get(key)
        if arriving is not None and len(arriving) == message.number and job.leadership is not None:
            arriving.extend(message.facts)
        else:
            self._arriving.pop(key, None)

    def end(self, node: NodeId, job: Job, message: ForkEnd) -> None:
        """They are all here: merge them."""
        if inactive(self._context, job, node):
            return
        facts = self._arriving.pop((node, message.fork), [])
        leadership, replica = job.leadership, job.replica
        if leadership is None or len(facts) != message.count:
            return
        vector = replica.streams.base(leadership.ballot)
        vector[leadership.ballot] = serial = leadership.serial
        spans = replica.streams.fold(vector)

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            if leadership.deposed:
                return
            held = list(in_order(spans, batches))
            if facts[: len(held)] == held and leadership.serial == serial:
                self._merge(node, job, message, facts[len(held) :], message.cells)
            else:
                has = set(held)
                self._merge(node, job, message, [fact for fact in facts if fact not in has], ())

        replica.write(sync=True, then=lambda: replica.load_beyond({}, loaded))

    def _merge(self, node: NodeId, job: Job, end: ForkEnd, facts: list[bytes], cells: tuple[CellRecord, ...]) -> None:
        leadership = job.leadership
        assert leadership is not None, "it is led here"
        new = tuple(c for c in cells if not job.is_chosen(c.cell) and c.cell not in leadership.proposals)
        if not facts and not new:
            if leadership.protected >= leadership.serial:
                self._context.tell(node, ForkTaken(job=job.replica.job, fork=end.fork, count=end.count))
            job.homecoming.arrived(end.fork)
            return
        for fact in facts:
            leadership.append(fact)
        job.homecoming.take(end.fork, node, end.count, new)
        job.lead_anew()

    def taken(self, job: Job, message: ForkTaken) -> None:
        """The fork is part of the job again. Said by the job's leader, and passed on to the fork's replicas."""
        fork = self._jobs.get(message.fork)
        if fork is None or fork.replica.record.origin != job.replica.job:
            return
        if self._sent.get(message.fork) != message.count:
            return
        if fork.replica.active:
            self._drop(fork)
        else:
            self._home.add(fork.replica.job)
            job.fork = self.of(job.replica.job)

    def over(self, job: Job) -> None:
        """A job that this node is no replica of any more has ended."""
        for fork in list(self._of.get(job.replica.job, ())):
            self._drop(self._jobs[fork])

    def _drop(self, fork: Job) -> None:
        """The fork is not needed: here and at all its replicas. One that has ended is remembered as it ended."""
        context, replica = self._context, fork.replica
        context.touch(replica.job)
        if replica.record.view:
            replica.strip()
            self._forget(JobId(replica.record.origin), replica.job)
            return
        gone = Moved(job=replica.job, promised=replica.promised, members=())
        for node in replica.members:
            if node != context.me and context.reachable(node):
                context.send(node, gone)
        leave(context, fork, replica.promised, ())
        self._forget(JobId(replica.record.origin), replica.job)

    # --- a user's word ------------------------------------------------------------------------------------------------

    def accept(self, fork: Job, key: bytes = b"") -> None:
        """This fork is the job from now on; `key`: the job's submission key, where that is not known here."""
        record = fork.replica.record
        origin = self._jobs.get(JobId(record.origin))
        if not record.origin:
            return
        key = origin.replica.record.key if origin is not None else key
        accepted = msgspec.structs.replace(record, origin=b"", key=key)
        fork.replica.update(accepted)
        if record.view:
            fork.replica.strip()
        self._forget(JobId(record.origin), record.job)
        for node in record.members:
            if node != self._context.me and self._context.reachable(node):
                self._context.send(node, StoreJob(record=accepted))
        if origin is not None and origin.replica.active:
            leave(self._context, origin, origin.replica.promised, ())
        fork.announce()
