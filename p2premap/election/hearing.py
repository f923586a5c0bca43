"""What the members of one cluster say to each other about jobs: each message to the part that it concerns."""

from __future__ import annotations

import math
from typing import assert_never

import msgspec

from p2premap.election import epochs, follower, messages
from p2premap.election.boots import remembers
from p2premap.election.context import Context
from p2premap.election.job import Job
from p2premap.election.records import JobRecord
from p2premap.election.replica import Replica
from p2premap.election.submission import Submissions
from p2premap.election.table import JobTable
from p2premap.ids import JobId, NodeId
from p2premap.wire import Message


class Hearing:
    """See the module.

    Args:
        table: the jobs of this core.
        submissions: what is being handed in here.
    """

    def __init__(self, context: Context, table: JobTable, submissions: Submissions) -> None:
        self._context = context
        self._table = table
        self._submissions = submissions
        self._asked_at: dict[tuple[NodeId, JobId], float] = {}

    def hear(self, node: NodeId, message: Message) -> None:  # noqa: C901  (one branch a message)
        """A member, or this node itself, says something."""
        context = self._context
        match message:
            case messages.Beats(beats=beats):
                for beat in beats:
                    if (job := self._known(node, beat.job)) is not None:
                        follower.on_beat(context, job, node, beat)
            case messages.Heard(acks=acks, leaving=leaving):
                for ack in acks:
                    self._on_ack(node, ack, leaving)
            case messages.StoreJob(record=record):
                self._store(node, record)
            case messages.Batches(batches=batches):
                if batches and (job := self._known(node, batches[0].job)) is not None:
                    follower.on_batches(context, job, node, message)
            case messages.Chosen(cells=cells):
                if cells and (job := self._known(node, cells[0].job)) is not None:
                    follower.on_chosen(job, message)
            case messages.Boots():
                self._boots(node, message)
            case messages.BootsKnown():
                self._boots_known(node, message)
            case messages.FindKey(request=request, key=key):
                found = self._table.find(key)
                if found is not None:
                    self._table.all[JobId(found.job)].provision.offered(node)
                job_id, spec = (found.job, found.spec) if found is not None else (b"", b"")
                context.send(node, messages.KeyFound(request=request, job=job_id, spec=spec))
            case messages.KeyFound():
                self._submissions.inquiries.found(node, message)
            case messages.Append(job=job_id) | messages.Accept(job=job_id) | messages.Prepare(job=job_id):
                if (job := self._known(node, job_id)) is not None:
                    self._hear_leader(node, job, message)
            case (
                messages.JobStored(job=job_id)
                | messages.Want(job=job_id)
                | messages.Promise(job=job_id)
                | messages.Nack(job=job_id)
                | messages.Accepted(job=job_id)
                | messages.Over(job=job_id)
                | messages.Moved(job=job_id)
                | messages.StandNow(job=job_id)
                | messages.ForkWaits(job=job_id)
                | messages.ForkFacts(job=job_id)
                | messages.ForkEnd(job=job_id)
                | messages.ForkTaken(job=job_id)
            ):
                known = self._table.get(JobId(job_id))
                if known is not None:
                    context.touch(known.replica.job)
                    self._hear_member(node, known, message)
            case _:
                pass  # no message of this room: nothing changes

    def _hear_leader(
        self, node: NodeId, job: Job, message: messages.Append | messages.Accept | messages.Prepare
    ) -> None:
        match message:
            case messages.Append():
                follower.on_append(self._context, job, node, message)
            case messages.Accept():
                follower.on_accept(self._context, job, node, message)
            case messages.Prepare():
                follower.on_prepare(self._context, job, node, message)
            case _:
                assert_never(message)

    def _hear_member(  # noqa: C901  (one branch a message)
        self,
        node: NodeId,
        job: Job,
        message: messages.JobStored
        | messages.Want
        | messages.Promise
        | messages.Nack
        | messages.Accepted
        | messages.Over
        | messages.Moved
        | messages.StandNow
        | messages.ForkWaits
        | messages.ForkFacts
        | messages.ForkEnd
        | messages.ForkTaken,
    ) -> None:
        match message:
            case messages.JobStored():
                self._submissions.stored(node, message)
                if job.candidacy is not None:
                    job.candidacy.ask(node)
            case messages.Want():
                self._on_want(node, job, message)
            case messages.Promise():
                if job.candidacy is not None:
                    job.candidacy.hear(node, message)
            case messages.Nack(promised=promised, amnesiac=amnesiac):
                if amnesiac and promised.epoch == job.replica.promised.epoch:
                    job.forgetful.add(node)
                job.refused(promised)
            case messages.Accepted(ballot=ballot, cell=cell):
                if job.leadership is not None and job.leadership.ballot == ballot:
                    job.leadership.accepted(node, cell)
            case messages.Over(view=view):
                if job.replica.active:
                    self._table.conclude(job, view)
                elif job.replica.record.gone:
                    self._table.forks.over(job)
            case messages.Moved():
                epochs.on_moved(self._context, job, node, message)
            case messages.ForkWaits(fork=fork):
                job.homecoming.expect(fork, node)
            case messages.ForkFacts():
                self._table.forks.facts(node, job, message)
            case messages.ForkEnd():
                self._table.forks.end(node, job, message)
            case messages.ForkTaken():
                self._table.forks.taken(job, message)
            case messages.StandNow():
                if job.leader == node and job.may_stand():
                    job.stand()
            case _:
                assert_never(message)

    def _known(self, node: NodeId, job_id: JobId) -> Job | None:
        """The job, touched; where it is not known here, its sender is asked for it, once in a while."""
        job = self._table.get(job_id)
        if job is not None:
            self._context.touch(job_id)
            return job
        now = self._context.now
        if now >= self._asked_at.get((node, job_id), -math.inf):
            self._asked_at = {asked: until for asked, until in self._asked_at.items() if until > now}
            self._asked_at[node, job_id] = now + self._context.config.resend_s
            self._context.send(node, messages.Want(job=job_id, known=False))
        return None

    def _on_ack(self, node: NodeId, ack: messages.Ack, leaving: bool) -> None:
        job = self._table.get(ack.job)
        if job is None or job.leadership is None or job.leadership.ballot != ack.ballot:
            return
        self._context.touch(ack.job)
        if ack.amnesiac:
            job.forgetful.add(node)
        job.leadership.on_ack(node, ack, leaving)
        job.announce()

    def _on_want(self, node: NodeId, job: Job, want: messages.Want) -> None:
        replica, context = job.replica, self._context
        if follower.inactive(context, job, node):
            return
        if job.leadership is not None and node in job.leadership.others():
            job.leadership.wants(node, want)
        elif job.leadership is not None:
            context.send(node, messages.Moved(job=replica.job, promised=replica.promised, members=replica.members))
        elif not want.known and node in replica.members:
            context.send(node, messages.StoreJob(record=replica.record))
        elif want.known and (missing := tuple(c for c in replica.chosen_cells() if c.cell not in want.cells)):
            context.send(node, messages.Chosen(cells=missing))

    def _store(self, node: NodeId, record: JobRecord) -> None:
        """Be a replica of this job."""
        context = self._context
        known = self._table.get(record.job)
        if known is not None and known.replica.rejoins(record, self._context.me):
            self._table.remove(known)
        elif known is not None:
            context.touch(record.job)
            if known.replica.record.origin and not record.origin:
                self._table.accept(known, record.key)
            if not follower.inactive(context, known, node):
                known.replica.write(sync=True, then=lambda: context.send(node, known.provision.stored()))
            return
        record = msgspec.structs.replace(record, amnesiac=False, acknowledged=True)
        replica = Replica(context, record)
        fresh = context.me not in record.members or replica.boot_of(context.me) == context.boot
        job = self._table.add(replica, brought=False, fresh=fresh)
        job.wait(context.config.missed_s)
        job.provision.tell = node
        job.replica.write(record, sync=True, then=job.provision.is_stored)
        job.provision.bring(node)
        job.ask_boots()
        if record.origin:
            job.announce()  # orders of the fork's leader come next

    def _boots(self, node: NodeId, asked: messages.Boots) -> None:
        """Another node has started: tell what this one knew of it, and remember, unless it has forgotten that."""
        known = []
        for job_id in asked.jobs:
            job = self._table.get(JobId(job_id))
            last = 0
            if job is not None and job.replica.active:
                last = job.replica.boot_of(node)
                if remembers(asked.boot, asked.former, last):
                    job.replica.note_boot(node, asked.boot)
            known.append((job_id, last))
        answer = messages.BootsKnown(boot=asked.boot, known=tuple(known))
        self._context.journal.write(sync=True, then=lambda: self._context.send(node, answer))

    def _boots_known(self, node: NodeId, message: messages.BootsKnown) -> None:
        if message.boot != self._context.boot:
            return
        for job_id, last in message.known:
            job = self._table.get(job_id)
            if job is not None and job.replica.active:
                self._context.touch(job_id)
                job.boot_known(node, last)
