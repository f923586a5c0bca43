"""How a job comes to be: creation by its home, and the search for a submission key.

**Creation.** A job's id is bound to its first replica set, so that no id has two. The home stores the job, then has
the other members store it; it leads under the ballot (0, 0, home) without any election: storing the job *is* a promise
of that ballot, since nobody who has not stored it can have promised another. When all living members have answered,
or `create_wait_s` has passed, the client is told in how many copies its job exists: as it really is. A member that
was not reached is a member nevertheless; it catches up, or is replaced.

**Keys.** A client that does not know whether its job was accepted submits it again, perhaps elsewhere, under the same
key. So a node first asks the others which job they know by it. A home that restarts and finds a job that it had not yet
acknowledged asks too: where another job has the key, the client was told of that one, and this one is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from p2premap.election.ballot import first
from p2premap.election.context import Context
from p2premap.election.events import Created, CreateFailed, CreateJob, Dropped, KeyAnswer
from p2premap.election.job import Job
from p2premap.election.messages import Batches, FindKey, JobStored, KeyFound, StoreJob
from p2premap.election.records import JobRecord, StoredBatch
from p2premap.election.replica import Replica
from p2premap.election.streams import encode_head
from p2premap.election.table import JobTable
from p2premap.ids import JobId, NodeId


def first_record(context: Context, event: CreateJob) -> JobRecord:
    """The record of a job that is created here."""
    return JobRecord(
        job=event.job,
        key=event.key,
        spec=event.spec,
        members=event.members,
        promised=first(context.me),
        strict=event.strict,
        copies=event.copies,
        boots=tuple(context.boot_of(node) for node in event.members),
    )


def first_head(job: JobId, home: NodeId) -> StoredBatch:
    """The head of the home's stream: it begins with nothing."""
    return StoredBatch(job=job, ballot=first(home), serial=0, batch=encode_head({}))


class Creation:
    """A job that is being created here.

    Args:
        event: what was asked for.
        job: at this node; its record is on disk.
    """

    __slots__ = ("_context", "_event", "_job", "_until", "copies", "done", "waiting")

    def __init__(self, context: Context, event: CreateJob, job: Job) -> None:
        self._context = context
        self._event = event
        self._job = job
        self._until = math.inf
        self.copies = 1
        self.done = False
        self.waiting: set[NodeId] = set()

    def start(self) -> None:
        """The record is on disk: have the other members store it."""
        context = self._context
        self._until = context.now + context.config.create_wait_s
        self.waiting = {n for n in self._job.replica.members if n != context.me and context.alive(n)}
        self._job.lead_first()
        for node in self._job.replica.members:
            if node != context.me and context.reachable(node):
                context.send(node, StoreJob(record=self._job.replica.record))
                context.send(node, Batches(batches=(first_head(self._job.replica.job, context.me),)))
        self.check()

    def stored(self, node: NodeId, message: JobStored) -> None:
        """A member has it on disk."""
        if node in self.waiting:
            self.waiting.discard(node)
            self.copies += message.brought
        self.check()

    def lost(self, node: NodeId) -> None:
        """A member is not expected to answer any more."""
        self.waiting.discard(node)
        self.check()

    def deadline(self) -> float:
        """When the others are not waited for any longer."""
        return self._until

    def check(self) -> None:
        """Whether the client can be told."""
        if self.done or self._until == math.inf or (self.waiting and self._context.now < self._until):
            return
        self.done = True
        self._until = math.inf
        replica = self._job.replica
        if replica.active:
            replica.update(msgspec.structs.replace(replica.record, acknowledged=True), self._acknowledged)

    def _acknowledged(self) -> None:
        event = self._event
        self._context.out.append(Created(request=event.request, job=event.job, copies=self.copies))
        self._job.begin_first()

    def failed(self, text: str) -> None:
        """It could not be written here."""
        self.done = True
        self._context.out.append(CreateFailed(request=self._event.request, text=text))


class Inquiry:
    """A search for a key among the living members.

    Args:
        then: called with the answer, a job and what was submitted as that; (None, b"") if nobody knows one.
    """

    __slots__ = ("job", "spec", "then", "until", "waiting")

    def __init__(self, then: Callable[[JobId | None, bytes], None], waiting: set[NodeId], until: float) -> None:
        self.then = then
        self.waiting = waiting
        self.until = until
        self.job: JobId | None = None
        self.spec = b""


class Inquiries:
    """The searches of one core."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[int, Inquiry] = {}
        self._next = 0

    def find(self, request: int, key: bytes, known: JobRecord | None) -> None:
        """Answer `FindJob`: at once, where this node knows."""

        def answer(job: JobId | None, spec: bytes) -> None:
            self._context.out.append(KeyAnswer(request=request, job=job, spec=spec))

        self.start(key, known, answer)

    def start(self, key: bytes, known: JobRecord | None, then: Callable[[JobId | None, bytes], None]) -> None:
        """Ask all living members, unless this node knows already."""
        context = self._context
        alive = [node for node in context.peers if context.alive(node)] if known is None else []
        self._next += 1
        inquiry = Inquiry(then, set(alive), context.now + context.config.create_wait_s)
        if known is not None:
            inquiry.job, inquiry.spec = JobId(known.job), known.spec
        self._running[self._next] = inquiry
        for node in alive:
            context.send(node, FindKey(request=self._next, key=key))
        self._check(self._next)

    def found(self, node: NodeId, message: KeyFound) -> None:
        """A member answers."""
        inquiry = self._running.get(message.request)
        if inquiry is None or node not in inquiry.waiting:
            return
        inquiry.waiting.discard(node)
        if message.job:
            inquiry.job, inquiry.spec = JobId(message.job), message.spec
        self._check(message.request)

    def lost(self, node: NodeId) -> None:
        """A member will not answer."""
        for number, inquiry in list(self._running.items()):
            inquiry.waiting.discard(node)
            self._check(number)

    def deadline(self) -> float:
        """When the next one ends without all answers."""
        return min([inquiry.until for inquiry in self._running.values()]) if self._running else math.inf

    def tick(self) -> None:
        """End those that have waited long enough."""
        for number in list(self._running):
            self._check(number)

    def _check(self, number: int) -> None:
        inquiry = self._running[number]
        if inquiry.job is None and inquiry.waiting and self._context.now < inquiry.until:
            return
        del self._running[number]
        inquiry.then(inquiry.job, inquiry.spec)


class Submissions:
    """What is being handed in at this node, or looked for.

    Args:
        table: the jobs of this core.
    """

    def __init__(self, context: Context, table: JobTable) -> None:
        self._context = context
        self._table = table
        self._creations: dict[JobId, Creation] = {}
        self._unsure_at = math.inf
        self.inquiries = Inquiries(context)

    def deadline(self) -> float:
        """When there may be no more to wait for."""
        due = min(self.inquiries.deadline(), self._unsure_at)
        if self._creations:
            due = min(due, *[creation.deadline() for creation in self._creations.values()])
        return due

    def tick(self) -> None:
        """End what has waited long enough."""
        now = self._context.now
        if self.inquiries.deadline() <= now:
            self.inquiries.tick()
        if self._unsure_at <= now:
            self._unsure_at = math.inf
            for job in [job for job in self._table.active() if job.unsure]:
                self._make_sure(job)
        if self._creations:
            for creation in list(self._creations.values()):
                creation.check()
            self._drop_creations()

    def create(self, event: CreateJob) -> None:
        """A client hands a job in."""
        context = self._context
        known = self._table.get(event.job)
        if known is not None and known.replica.active:
            context.out.append(Created(request=event.request, job=event.job, copies=known.copies))
            return
        if known is not None or not event.members or event.members[0] != self._context.me:
            context.out.append(CreateFailed(request=event.request, text="There was such a job here already."))
            return
        replica = Replica(context, first_record(context, event))
        job = self._table.add(replica, brought=True, fresh=True)
        creation = self._creations[event.job] = Creation(context, event, job)

        def failed(text: str) -> None:
            creation.failed(text)
            del self._creations[event.job]
            self._table.remove(job)

        context.journal.write(replica.record, sync=True, failed=failed)
        replica.store([first_head(event.job, self._context.me)], creation.start)

    def stored(self, node: NodeId, message: JobStored) -> None:
        """A member has a job on disk that may be being created here."""
        if (creation := self._creations.get(JobId(message.job))) is not None:
            creation.stored(node, message)
            self._drop_creations()

    def lost(self, node: NodeId) -> None:
        """A member will not answer."""
        for creation in self._creations.values():
            creation.lost(node)
        self._drop_creations()
        self.inquiries.lost(node)

    def doubt(self, job: Job) -> None:
        """After a start: a job of which no client was told; that is looked into when the others have been met."""
        job.unsure = True
        self._unsure_at = self._context.now + self._context.config.boot_wait_s

    def _make_sure(self, job: Job) -> None:
        """A job of which no client was told before this node's last life ended: perhaps it was told of another."""
        record = job.replica.record

        def answer(other: JobId | None, _: bytes) -> None:
            if self._table.get(record.job) is not job or not job.replica.active:
                return
            self._context.touch(record.job)
            job.unsure = False
            if other not in (None, record.job) and not job.replica.record.acknowledged:
                self._table.forget(job)
                self._context.out.append(Dropped(job=record.job))
            else:
                job.replica.update(msgspec.structs.replace(job.replica.record, acknowledged=True))

        self.inquiries.start(record.key, None, answer)

    def _drop_creations(self) -> None:
        for job_id in [job_id for job_id, creation in self._creations.items() if creation.done]:
            del self._creations[job_id]
