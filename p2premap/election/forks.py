"""Going on without a quorum: forks, and how they come home.

A job whose quorum is out of reach decides nothing. One that its user did not declare `strict` may go on as a *fork*:
a job of its own, with an id of its own, a replica set of its own and a copy of all facts and decided cells that its
opener has. What it decides counts for itself alone, so no promise of the job that it came from is broken; its
views and outputs bear its name, and its end is provisional.

**Opening.** After `fork_s` without a quorum in reach, the first of the replica set that can be reached opens the fork;
of two members at once, where the other's process is gone for certain. The fork's id is a digest over the job, its
epoch, what its opener had and who that is: two openers make two forks. Its facts are the opener's, in their order
(`streams.fold`), as the stream of a ballot (0, 0, opener); the opener leads under (0, 1, opener), without an election,
as the home of a new job does. A decided cell counts in the fork only if its opener has the facts that the cell speaks
of. A fork that loses its own quorum may be forked in turn; that is a fork of the same job.

**Coming home.** When a replica of both sees that the job is led again, the fork's tasks are stopped, and all its facts
are sent to the job's leader. Where the leader's own facts are a prefix of these, in this order, nothing has happened
but what the fork did: then the rest is appended, and the fork's decided cells are proposed again, as far as the job has
not decided them. Where the job has gone on too, the facts that it lacks are appended, and the cells are left to be
decided anew: a manifest of the fork speaks of facts in another order. Either way the leader then stands once more, so
that its tasks begin with all facts. Facts merge; what is finished is not done again. When they are protected the fork
is dropped everywhere.

A fork that has come to its own end stays what it is: its user sees two results, and the job's own is the one that
counts. An opener that is itself no replica of the job any more sends the facts to those who are. `accept` makes the
fork the job, where the rest of the replica set is lost for good; a member of the old one that comes back after all is
told that there is no such job any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from blake3 import blake3

from p2premap.election.ballot import first, successor
from p2premap.election.config import is_config
from p2premap.election.context import Context
from p2premap.election.epochs import leave
from p2premap.election.events import Deposed, Forked
from p2premap.election.follower import inactive
from p2premap.election.job import Job
from p2premap.election.messages import ForkEnd, ForkFacts, ForkTaken, Moved, StoreJob
from p2premap.election.records import CellRecord, JobRecord, StoredBatch
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
        self._sent_at: dict[JobId, float] = {}
        self._sent: dict[JobId, int] = {}
        self._arriving: dict[tuple[NodeId, JobId], list[bytes]] = {}
        self._look_at = math.inf

    def of(self, origin: JobId) -> JobId | None:
        """A fork of this job that is known here; None where there is none."""
        return next(iter(self._of.get(origin, ())), None)

    def known(self, fork: Job) -> None:
        """A fork is at this node."""
        record = fork.replica.record
        if fork.replica.active:
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
        past, ballot = first(context.me), successor(first(context.me), context.me)
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
        for cell in job.replica.chosen_cells():
            if not is_config(cell.cell) and vector.get(cell.ballot, -1) >= cell.serial:
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
            if one is None or not one.replica.active:
                self._forget(origin, fork)
                continue
            self._look_at = self._context.now + self._context.config.heartbeat_s
            self._context.touch(fork)
            if other is not None and other.replica.record.view:
                self._drop(one)
            elif other is not None:
                self._look(one, other)

    def _forget(self, origin: JobId, fork: JobId) -> None:
        self._of.get(origin, {}).pop(fork, None)
        if not self._of.get(origin):
            self._of.pop(origin, None)
        self._sent_at.pop(fork, None)
        self._sent.pop(fork, None)
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
        if self._context.now >= self._sent_at.get(fork.replica.job, -math.inf) + AGAIN_S:
            self._sent_at[fork.replica.job] = self._context.now
            self._send_home(fork, job)

    def _send_home(self, fork: Job, job: Job) -> None:
        leadership, replica = fork.leadership, fork.replica
        assert leadership is not None, "it is led here"
        if leadership.ready:
            leadership.ready = False
            self._context.out.append(Deposed(job=replica.job))
        spans = replica.streams.fold(dict(replica.streams.serials))
        cells = tuple(cell for cell in replica.chosen_cells() if not is_config(cell.cell))
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
        if arriving is not None and len(arriving) == message.number and job.leads:
            arriving.extend(message.facts)
        else:
            self._arriving.pop(key, None)

    def end(self, node: NodeId, job: Job, message: ForkEnd) -> None:
        """They are all here: merge them."""
        if inactive(self._context, job, node):
            return
        facts = self._arriving.pop((node, message.fork), [])
        leadership, replica = job.leadership, job.replica
        if leadership is None or not leadership.ready or len(facts) != message.count:
            return
        vector = replica.streams.base(leadership.ballot)
        vector[leadership.ballot] = serial = leadership.serial
        spans = replica.streams.fold(vector)

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            if leadership.deposed or not leadership.ready:
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
            return
        for fact in facts:
            leadership.append(fact)
        job.takes[end.fork] = (node, end.count)
        job.lead_anew(new)

    def taken(self, job: Job, message: ForkTaken) -> None:
        """The fork is part of the job again. Said by the job's leader, and passed on to the fork's replicas."""
        fork = self._jobs.get(message.fork)
        if fork is None or not fork.replica.active or fork.replica.record.origin != job.replica.job:
            return
        if self._sent.get(message.fork) == message.count:
            self._drop(fork)

    def over(self, job: Job) -> None:
        """A job that this node is no replica of any more has ended."""
        for fork in list(self._of.get(job.replica.job, ())):
            self._drop(self._jobs[fork])

    def _drop(self, fork: Job) -> None:
        """The fork is not needed: here and at all its replicas."""
        context, replica = self._context, fork.replica
        context.touch(replica.job)
        gone = Moved(job=replica.job, promised=replica.promised, members=())
        for node in replica.members:
            if node != context.me and context.reachable(node):
                context.send(node, gone)
        leave(context, fork, replica.promised, ())
        self._forget(JobId(replica.record.origin), replica.job)

    # --- a user's word ------------------------------------------------------------------------------------------------

    def accept(self, fork: Job) -> None:
        """This fork is the job from now on."""
        record = fork.replica.record
        origin = self._jobs.get(JobId(record.origin))
        if not record.origin:
            return
        key = origin.replica.record.key if origin is not None else b""
        accepted = msgspec.structs.replace(record, origin=b"", key=key)
        fork.replica.update(accepted)
        self._forget(JobId(record.origin), record.job)
        for node in record.members:
            if node != self._context.me and self._context.reachable(node):
                self._context.send(node, StoreJob(record=accepted))
        if origin is not None and origin.replica.active:
            leave(self._context, origin, origin.replica.promised, ())
        fork.announce()

    def told(self, fork: Job, record: JobRecord) -> None:
        """Another replica of this fork has heard that it was accepted."""
        if fork.replica.record.origin and not record.origin:
            self.accept(fork)
