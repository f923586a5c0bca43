"""Election: who leads each job, and what its replicas have decided. Pure: events in, effects out.

**What it promises.** (1) One value a cell in one lineage. (2) One leader a ballot, and one ballot at most for each
(epoch, n). (3) What was `Protected` or `Decided` is known to every later leader, and `Lead.history` of a successor
begins with exactly the facts, in exactly the order, that any earlier leader had protected. (4) A job that was `Created`
is not forgotten while a quorum of its replicas keeps its disks. (5) While a quorum is up and can talk, somebody leads.
(1) to (4) hold whatever messages are lost, late or repeated, whoever crashes at whatever instant, and whatever any
clock says; time only matters for (5).

**Theory of operation.** One `Job` an id, each with a `Replica` (the acceptor: promise, cells, streams of facts), and
with the part that this node plays in it: follower, `Candidacy` or `Leadership`. `submission` makes jobs and finds keys;
`boots` says who may vote after a start; `journal` says when what was written may be spoken of. The safety arguments
stand in those modules: cells and promises in `replica` and `candidate`, facts and their order in `streams`,
protection in `leader`.

**How the shell must drive it.**

- Call `step(now, event)` with one event at a time; perform the effects in order. Call it with `Tick` at `deadline()`.
- `ToReplica`: over the link to that node; no message of this room may travel another way, since order counts.
  A message of `p2premap.election.messages` that comes from a member is given back as `FromReplica`.
- `Persist` is answered by exactly one `Persisted` or `PersistFailed`; there is at most one at a time. `LoadBatches` is
  answered by one `BatchesLoaded` that shows at least what was persisted when it was asked for.
- `Bring` is answered by one `Brought`; a job that a client submitted here counts as brought.
- Gossip's verdicts are passed on: `PeerSeen` (also when a member comes back, or in a new boot), `PeerDoubtful`,
  `PeerGone`; and `PeerUnlinked` whenever a link breaks or is replaced, before anything is sent over the new one.
- Between `Lead` and `Deposed` of a job its tasks may `Append`, `Propose` and, at last, `Conclude`. A job that is led
  already and led anew (under the ballot of a new replica set) is `Deposed` first.
- At a start: load the disk, construct the core, then tell of the peers.

Sources: Lamport, "Paxos Made Simple" (2001); Rystsov, "CASPaxos" (2018), for registers instead of a log; Ongaro and
Ousterhout, "Raft" (2014), for terms and heartbeats; Lamport, Malkhi and Zhou, "Vertical Paxos and Primary-Backup
Replication" (2009) and "Reconfiguring a State Machine" (2010), for replica sets ended by a stop sign; Dean and
Ghemawat, "MapReduce" (2004), for pinned results; Apache's SPARK-23207 for what mixing two lineages does.
"""

from __future__ import annotations

import math
from random import Random
from typing import assert_never

import msgspec

from p2premap.config import ElectionConfig
from p2premap.election import events, follower, messages
from p2premap.election.boots import BootCheck
from p2premap.election.config import is_config
from p2premap.election.context import Context, Peer
from p2premap.election.events import ElectionEffect, ElectionEvent
from p2premap.election.forks import Forks
from p2premap.election.job import Job
from p2premap.election.records import CellRecord, ForgetJob, JobRecord, Stored, StoredStream
from p2premap.election.replica import Replica
from p2premap.election.submission import Creation, Inquiries, first_head, first_record
from p2premap.event import Event
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.wire import Message


class JobState(Event, frozen=True, kw_only=True):
    """What this node knows of a job.

    Args:
        record: as it is stored here: its spec, its members, and its last view, if it is over.
        leader: who leads it; None: nobody, as far as is known here.
        leads: this node does, and its tasks know.
        ballot: the highest that is promised here.
        copies: how many replicas hold it.
        note: what it waits for, or "".
        fork: the name of the fork that this job is, or "".
        decided: the cells that are known to be decided.
    """

    job: JobId
    record: JobRecord
    leader: NodeId | None
    leads: bool
    ballot: Ballot
    copies: int
    note: str
    fork: str
    decided: tuple[str, ...]


class ElectionCore:
    """All jobs of one node.

    Args:
        me: this node.
        boot: how many times it has started, stored durably by the caller.
        name: for people.
        config: intervals and limits.
        rng: for every choice of the protocol.
        now: the first instant, in the caller's clock.
        stored: what the disk holds.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        boot: Boot,
        name: str,
        config: ElectionConfig,
        rng: Random,
        now: float,
        stored: Stored,
    ) -> None:
        self.me = me
        self.name = name
        self._context = Context(me=me, boot=boot, config=config, rng=rng, now=now)
        self._jobs: dict[JobId, Job] = {}
        self._keys: dict[bytes, JobId] = {}
        self._creations: dict[JobId, Creation] = {}
        self._inquiries = Inquiries(self._context)
        self._agenda = self._context.agenda
        self._leading: dict[JobId, None] = {}
        self._inactive: dict[JobId, None] = {}
        """Jobs that are over or have moved away, the oldest first."""
        self._beat_at = math.inf
        self._asked_at: dict[tuple[NodeId, JobId], float] = {}
        self._forks = Forks(self._context, self._jobs, self._add, self._remove)
        self._unsure_at = math.inf
        self._restore(now, stored)

    def _restore(self, now: float, stored: Stored) -> None:
        cells: dict[JobId, list[CellRecord]] = {}
        streams: dict[JobId, list[StoredStream]] = {}
        for cell in stored.cells:
            cells.setdefault(cell.job, []).append(cell)
        for stream in stored.streams:
            streams.setdefault(stream.job, []).append(stream)
        for record in stored.jobs:
            replica = Replica(self._context, record, cells.get(record.job, ()), streams.get(record.job, ()))
            job = self._add(replica, brought=False, fresh=False)
            if replica.active:
                job.wait(self._context.config.boot_wait_s)
                job.bring_from_others()
                job.unsure = not record.acknowledged
                self._unsure_at = now + self._context.config.boot_wait_s

    # --- the contract -----------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """The next instant at which it wants a `Tick`; infinity: none."""
        if self._context.out or self._context.touched:
            return self._context.now
        return min(
            self._agenda.deadline(),
            self._beat_at,
            self._context.journal.deadline(),
            self._inquiries.deadline(),
            self._forks.deadline(),
            self._unsure_at,
            min((creation.deadline() for creation in self._creations.values()), default=math.inf),
        )

    def step(self, now: float, event: ElectionEvent) -> list[ElectionEffect]:
        """Take one event; say what is to be done."""
        context = self._context
        context.now = now
        self._take(event)
        while context.inbox:
            self._hear(self.me, context.inbox.pop(0))
        self._settle()
        context.flush()
        effects, context.out = context.out, []
        return effects

    def _settle(self) -> None:
        """Whatever happened to a job may have changed when it wants to be looked at, and whether it is led here."""
        touched = self._context.touched
        while touched:
            job_id = next(iter(touched))
            del touched[job_id]
            job = self._jobs.get(job_id)
            if job is not None and job.leadership is not None:
                self._leading[job_id] = None
            else:
                self._leading.pop(job_id, None)
            if job is not None:
                self._agenda.put(job_id, job.deadline())
                if not job.replica.active and job_id not in self._inactive:
                    self._inactive[job_id] = None
        while len(self._inactive) > self._context.config.concluded_max:
            self._forget(self._jobs[next(iter(self._inactive))])
        if not self._leading:
            self._beat_at = math.inf
        elif self._beat_at == math.inf:
            self._beat_at = self._context.now + self._context.config.heartbeat_s

    # --- views ------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[JobId]:
        """Every job of which something is known here."""
        return list(self._jobs)

    def job(self, job: JobId) -> JobState | None:
        """What is known here of one."""
        known = self._jobs.get(job)
        if known is None:
            return None
        record = known.replica.record
        return JobState(
            job=job,
            record=record,
            leader=known.leader,
            leads=known.leads,
            ballot=record.promised,
            copies=known.copies,
            note=known.note(),
            fork=job.hex()[:8] if record.origin else "",
            decided=tuple(cell.cell for cell in known.replica.chosen_cells() if not is_config(cell.cell)),
        )

    def leader_of(self, job: JobId) -> NodeId | None:
        """Who leads it, as far as is known here."""
        known = self._jobs.get(job)
        return known.leader if known is not None else None

    def find(self, key: bytes) -> JobId | None:
        """The job that is known here under this submission key."""
        job = self._keys.get(key)
        return job if job is not None and not self._jobs[job].replica.record.gone else None

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        assert not self._context.out, "effects were left behind"
        for job_id, job in self._jobs.items():
            replica, ballot = job.replica, job.ballot
            assert replica.job == job_id, "a replica under another job's name"
            assert job.leadership is None or job.candidacy is None, "leads and stands at once"
            assert ballot is None or ballot <= replica.promised, "leads under a ballot that is not promised here"
            assert job.leadership is None or ballot == replica.promised, "leads although a higher ballot is promised"
            assert (job_id in self._leading) == (job.leadership is not None), "who leads does not know it"
            assert all(replica.durable.get(b, -1) <= s for b, s in replica.streams.serials.items()), (
                "disk ahead of memory"
            )

    # --- events -----------------------------------------------------------------------------------------------------

    def _take(self, event: ElectionEvent) -> None:  # noqa: C901  (one branch an event)
        match event:
            case events.Tick():
                self._tick()
            case events.Woke():
                self._woke()
            case events.FromReplica(node=node, message=message):
                self._hear(node, message)
            case events.PeerSeen(node=node, boot=boot):
                self._seen(node, boot)
            case events.PeerDoubtful(node=node):
                self._doubt(node)
            case events.PeerGone(node=node, certain=certain):
                self._gone(node, certain)
            case events.PeerUnlinked(node=node):
                self._unlinked(node)
            case events.CreateJob():
                self._create(event)
            case events.FindJob(request=request, key=key):
                self._inquiries.find(request, key, self.find(key))
            case events.Persisted(token=token):
                self._context.journal.persisted(token)
            case events.PersistFailed(token=token, text=text):
                self._context.journal.failed(self._context.now, token, text)
            case events.BatchesLoaded(token=token, batches=batches):
                self._context.loaded(token, batches)
            case events.HandOver():
                self._hand_over()
            case (
                events.Brought(job=job)
                | events.Propose(job=job)
                | events.Append(job=job)
                | events.Conclude(job=job)
                | events.StepDown(job=job)
                | events.AcceptFork(job=job)
                | events.Forget(job=job)
            ):
                known = self._jobs.get(job)
                if known is not None:
                    self._context.touch(job)
                    self._to_job(known, event)
            case _:
                assert_never(event)

    def _to_job(
        self,
        job: Job,
        event: events.Brought
        | events.Propose
        | events.Append
        | events.Conclude
        | events.StepDown
        | events.AcceptFork
        | events.Forget,
    ) -> None:
        match event:
            case events.Brought(error=error):
                job.on_brought(error)
            case events.Propose(cell=cell, value=value):
                if job.leads and job.leadership is not None:
                    job.leadership.propose(cell, value)
            case events.Append(batch=batch):
                if job.leads and job.leadership is not None:
                    job.leadership.append(batch)
            case events.Conclude(view=view):
                if job.leads:
                    self._conclude(job, view)
            case events.StepDown(reason=reason):
                job.unfit_for(reason)
            case events.AcceptFork():
                self._forks.accept(job)
                self._keys[job.replica.record.key] = job.replica.job
            case events.Forget():
                if job.replica.record.view:
                    self._forget(job)
            case _:
                assert_never(event)

    def _tick(self) -> None:
        context = self._context
        while (job_id := self._agenda.pop_due(context.now)) is not None:
            if (job := self._jobs.get(job_id)) is not None:
                context.touch(job_id)
                job.tick()
        if self._beat_at <= context.now:
            self._beat()
        if self._inquiries.deadline() <= context.now:
            self._inquiries.tick()
        self._forks.tick()
        if self._unsure_at <= context.now:
            self._unsure_at = math.inf
            for job in [job for job in self._active() if job.unsure]:
                self._make_sure(job)
        for creation in list(self._creations.values()):
            creation.check()
        self._drop_creations()

    def _beat(self) -> None:
        context = self._context
        self._beat_at = context.now + context.config.heartbeat_s
        beats: dict[NodeId, list[messages.Beat]] = {}
        for job_id in list(self._leading):
            context.touch(job_id)
            self._jobs[job_id].tend()
            leadership = self._jobs[job_id].leadership
            if leadership is None:
                continue
            beat = leadership.beat()
            for node in leadership.others():
                if context.reachable(node):
                    beats.setdefault(node, []).append(beat)
        for node, of_node in beats.items():
            context.send(node, messages.Beats(beats=tuple(of_node)))

    def _woke(self) -> None:
        for job in self._active():
            job.woke()

    def _active(self) -> list[Job]:
        """Jobs that are neither over nor moved away; each is touched."""
        active = [job for job in self._jobs.values() if job.replica.active]
        for job in active:
            self._context.touch(job.replica.job)
        return active

    # --- peers ------------------------------------------------------------------------------------------------------

    def _seen(self, node: NodeId, boot: Boot) -> None:
        context = self._context
        if node == self.me:
            return
        peer = context.peers.get(node)
        if peer is not None and peer.boot != boot:
            self._gone(node, certain=True)  # whatever it led in its former life it leads no more
        if peer is None or peer.boot != boot or peer.gone:
            context.peers[node] = Peer(boot, context.now)
            unsure = []
            for job in self._active():
                job.met(node)
                if node in job.replica.members and job.boots.wants(node):
                    unsure.append(job.replica.job)
            if unsure:
                context.send(node, messages.Boots(boot=context.boot, jobs=tuple(unsure)))
        elif not peer.alive:
            peer.alive = True
            peer.since = context.now

    def _doubt(self, node: NodeId) -> None:
        peer = self._context.peers.get(node)
        if peer is not None and peer.alive:
            peer.alive = False
            peer.since = self._context.now

    def _gone(self, node: NodeId, certain: bool) -> None:
        peer = self._context.peers.get(node)
        if peer is None or (peer.gone and peer.certain >= certain):
            return
        if not peer.gone:
            peer.since = self._context.now
        peer.alive = False
        peer.gone = True
        peer.certain = certain
        for job in self._active():
            job.lost(node)
        for creation in self._creations.values():
            creation.lost(node)
        self._drop_creations()
        self._inquiries.lost(node)

    def _unlinked(self, node: NodeId) -> None:
        for job in self._active():
            if job.leadership is not None:
                job.leadership.unlinked(node)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _add(self, replica: Replica, *, brought: bool, fresh: bool) -> Job:
        boots = BootCheck(self.me, fresh=fresh, amnesiac=replica.record.amnesiac)
        job = Job(self._context, replica, brought=brought, boots=boots)
        self._jobs[replica.job] = job
        if replica.record.key:
            self._keys[replica.record.key] = replica.job
        job.stranded = self._forks.open
        if replica.record.origin:
            self._forks.known(job)
        if (fork := self._forks.of(replica.job)) is not None:
            job.fork = fork
        self._context.touch(replica.job)
        return job

    def _remove(self, job: Job) -> None:
        record = job.replica.record
        del self._jobs[record.job]
        self._leading.pop(record.job, None)
        self._inactive.pop(record.job, None)
        if self._keys.get(record.key) == record.job:
            del self._keys[record.key]

    def _create(self, event: events.CreateJob) -> None:
        context = self._context
        known = self._jobs.get(event.job)
        if known is not None and known.replica.active:
            context.out.append(events.Created(request=event.request, job=event.job, copies=known.copies))
            return
        if known is not None or not event.members or event.members[0] != self.me:
            context.out.append(events.CreateFailed(request=event.request, text="There was such a job here already."))
            return
        replica = Replica(context, first_record(context, event))
        job = self._add(replica, brought=True, fresh=True)
        creation = self._creations[event.job] = Creation(context, event, job)

        def failed(text: str) -> None:
            creation.failed(text)
            del self._creations[event.job]
            self._remove(job)

        context.journal.write(replica.record, sync=True, failed=failed)
        replica.store([first_head(event.job, self.me)], creation.start)

    def _make_sure(self, job: Job) -> None:
        """A job of which no client was told before this node's last life ended: perhaps it was told of another."""
        record = job.replica.record

        def answer(other: JobId | None) -> None:
            if self._jobs.get(record.job) is not job or not job.replica.active:
                return
            self._context.touch(record.job)
            job.unsure = False
            if other not in (None, record.job) and not job.replica.record.acknowledged:
                self._forget(job)
                self._context.out.append(events.Dropped(job=record.job))
            else:
                job.replica.update(msgspec.structs.replace(job.replica.record, acknowledged=True))

        self._inquiries.start(record.key, None, answer)

    def _drop_creations(self) -> None:
        for job_id in [job_id for job_id, creation in self._creations.items() if creation.done]:
            del self._creations[job_id]

    def _conclude(self, job: Job, view: bytes) -> None:
        """The job is over: its leader says so here, or somebody tells."""
        replica, context = job.replica, self._context
        others = job.leadership.others() if job.leadership is not None else ()
        job.retire()
        replica.conclude(view, lambda: context.out.append(events.Concluded(job=replica.job, view=view)))
        for node in others:
            if context.reachable(node):
                context.send(node, messages.Over(job=replica.job, view=view))

    def _forget(self, job: Job) -> None:
        self._remove(job)
        self._context.journal.write(ForgetJob(job=job.replica.job), sync=False)

    def _hand_over(self) -> None:
        self._context.leaving = True
        for job_id in self._leading:
            self._jobs[job_id].hand_over()

    # --- messages ---------------------------------------------------------------------------------------------------

    def _hear(self, node: NodeId, message: Message) -> None:  # noqa: C901  (one branch a message)
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
            case messages.Boots(boot=boot, jobs=jobs):
                self._boots(node, boot, jobs)
            case messages.BootsKnown():
                self._boots_known(node, message)
            case messages.FindKey(request=request, key=key):
                context.send(node, messages.KeyFound(request=request, job=self.find(key) or b""))
            case messages.KeyFound():
                self._inquiries.found(node, message)
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
                | messages.ForkFacts(job=job_id)
                | messages.ForkEnd(job=job_id)
                | messages.ForkTaken(job=job_id)
            ):
                known = self._jobs.get(JobId(job_id))
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
        | messages.ForkFacts
        | messages.ForkEnd
        | messages.ForkTaken,
    ) -> None:
        match message:
            case messages.JobStored():
                if (creation := self._creations.get(job.replica.job)) is not None:
                    creation.stored(node, message)
                    self._drop_creations()
                if job.candidacy is not None:
                    job.candidacy.ask(node)
            case messages.Want():
                self._on_want(node, job, message)
            case messages.Promise():
                if job.candidacy is not None:
                    job.candidacy.hear(node, message)
            case messages.Nack(promised=promised):
                job.refused(promised)
            case messages.Accepted(ballot=ballot, cell=cell):
                if job.leadership is not None and job.leadership.ballot == ballot:
                    job.leadership.accepted(node, cell)
            case messages.Over(view=view):
                if job.replica.active:
                    self._conclude(job, view)
                elif job.replica.record.gone:
                    self._forks.over(job)
            case messages.Moved():
                job.moved(node, message)
            case messages.ForkFacts():
                self._forks.facts(node, job, message)
            case messages.ForkEnd():
                self._forks.end(node, job, message)
            case messages.ForkTaken():
                self._forks.taken(job, message)
            case messages.StandNow():
                if job.leader == node and job.may_stand():
                    job.stand()
            case _:
                assert_never(message)

    def _known(self, node: NodeId, job_id: JobId) -> Job | None:
        """The job, touched; where it is not known here, its sender is asked for it, once in a while."""
        job = self._jobs.get(job_id)
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
        job = self._jobs.get(ack.job)
        if job is None or job.leadership is None or job.leadership.ballot != ack.ballot:
            return
        self._context.touch(ack.job)
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
        known = self._jobs.get(record.job)
        if known is not None and known.replica.rejoins(record, self.me):
            self._remove(known)
        elif known is not None:
            context.touch(record.job)
            self._forks.told(known, record)
            if not follower.inactive(context, known, node):
                known.replica.write(sync=True, then=lambda: context.send(node, known.stored()))
            return
        record = msgspec.structs.replace(record, amnesiac=False, acknowledged=True)
        job = self._add(Replica(context, record), brought=False, fresh=True)
        job.wait(context.config.missed_s)
        job.tell_stored = node
        job.replica.write(record, sync=True, then=job.is_stored)
        job.bring(node)

    # --- boots ------------------------------------------------------------------------------------------------------

    def _boots(self, node: NodeId, boot: Boot, jobs: tuple[JobId, ...]) -> None:
        """Another node has started: tell what this one knew of it, and remember."""
        known = []
        for job_id in jobs:
            job = self._jobs.get(job_id)
            highest = 0
            if job is not None and job.replica.active:
                highest = job.replica.boot_of(node)
                job.replica.note_boot(node, boot)
            known.append((job_id, highest))
        answer = messages.BootsKnown(boot=boot, known=tuple(known))
        self._context.journal.write(sync=True, then=lambda: self._context.send(node, answer))

    def _boots_known(self, node: NodeId, message: messages.BootsKnown) -> None:
        if message.boot != self._context.boot:
            return
        for job_id, highest in message.known:
            job = self._jobs.get(job_id)
            if job is not None and job.replica.active:
                self._context.touch(job_id)
                job.boot_known(node, highest)
