"""Election: who leads each job, and what its replicas have decided. Pure: events in, effects out.

**What it promises.** (1) One value a cell in one lineage. (2) One leader a ballot, and one ballot at most for each
(epoch, n). (3) What was `Protected` or `Decided` is known to every later leader, and `Lead.history` of a successor
begins with exactly the facts, in exactly the order, that any earlier leader had protected. (4) A job that was `Created`
is not forgotten while a quorum of its replicas keeps its disks. (5) While a quorum is up and can talk, somebody leads.
(1) to (4) hold whatever messages are lost, late or repeated, whoever crashes at whatever instant, and whatever any
clock says; time only matters for (5).

**Theory of operation.** One `Job` an id, each with a `Replica` (the acceptor: promise, cells, streams of facts), and
with the part that this node plays in it: follower, `Candidacy` or `Leadership`. `table` has them all, `hearing` gives
each message to the part that it concerns, `submission` makes jobs and finds keys; `boots` says who may vote after a
start; `journal` says when what was written may be spoken of. The safety arguments stand in those modules: cells and
promises in `replica` and `candidate`, facts and their order in `streams`, protection in `leader`.

**How the shell must drive it.**

- Call `step(now, event)` with one event at a time; perform the effects in order. Call it with `Tick` at `deadline()`.
- `ToReplica`: over the link to that node; no message of this room may travel another way, since order counts.
  A message of `p2premap.election.messages` that comes from a member is given back as `FromReplica`.
- `Persist` is answered by exactly one `Persisted` or `PersistFailed`; there is at most one at a time. `LoadBatches` is
  answered by one `BatchesLoaded` that shows at least what was persisted when it was asked for.
- `Bring` is answered by one `Brought`, or by two where inputs take their time; a job that a client submitted here
  counts as brought.
- Gossip's verdicts are passed on: `PeerSeen` (also when a member comes back, or in a new boot), `PeerDoubtful`,
  `PeerGone`; and `PeerUnlinked` whenever a link breaks or is replaced, before anything is sent over the new one.
- Between `Lead` and `Deposed` of a job its tasks may `Append`, `Propose` and, at last, `Conclude`. A leader stays one
  through a change of the replica set, as long as it is elected again (`carried`); else the job is `Deposed` first.
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

from p2premap.config import ElectionConfig
from p2premap.election import events, messages
from p2premap.election.config import is_config
from p2premap.election.context import Context, Peer
from p2premap.election.events import ElectionEffect, ElectionEvent
from p2premap.election.hearing import Hearing
from p2premap.election.job import Job
from p2premap.election.records import CellRecord, JobRecord, Stored, StoredStream
from p2premap.election.replica import Replica
from p2premap.election.submission import Submissions
from p2premap.election.table import JobTable
from p2premap.event import Event
from p2premap.ids import Ballot, Boot, JobId, NodeId


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
        boot: this start of it, stored durably by the caller.
        former: the last starts before it that its disk remembers, the oldest first.
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
        former: tuple[Boot, ...],
        name: str,
        config: ElectionConfig,
        rng: Random,
        now: float,
        stored: Stored,
    ) -> None:
        self.me = me
        self.name = name
        self._context = Context(me=me, boot=boot, former=former, config=config, rng=rng, now=now)
        self._table = JobTable(self._context)
        self._submissions = Submissions(self._context, self._table)
        self._hearing = Hearing(self._context, self._table, self._submissions)
        self._beat_at = math.inf
        self._unchecked = True
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
            job = self._table.add(replica, brought=False, fresh=False)
            if replica.active:
                job.wait(self._context.config.boot_wait_s)
                job.provision.bring_from_others()
                if not record.acknowledged:
                    self._submissions.doubt(job)

    # --- the contract -----------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """The next instant at which it wants a `Tick`; infinity: none."""
        if self._context.out or self._context.touched:
            return self._context.now
        return min(
            self._context.agenda.deadline(),
            self._beat_at,
            self._context.journal.deadline(),
            self._table.forks.deadline(),
            self._submissions.deadline(),
        )

    def step(self, now: float, event: ElectionEvent) -> list[ElectionEffect]:
        """Take one event; say what is to be done."""
        context = self._context
        context.now = now
        self._unchecked = True
        self._take(event)
        self._settle()
        if self._table.forks.deadline() <= now:
            self._table.forks.tick()
            self._settle()
        context.flush()
        effects, context.out = context.out, []
        return effects

    def _settle(self) -> None:
        """Whatever happened to a job may have changed when it wants to be looked at, and whether it is led here."""
        while self._context.inbox:
            self._hearing.hear(self.me, self._context.inbox.pop(0))
        self._table.settle()
        if not self._table.leading:
            self._beat_at = math.inf
        elif self._beat_at == math.inf:
            self._beat_at = self._context.now + self._context.config.heartbeat_s

    # --- views ------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[JobId]:
        """Every job of which something is known here."""
        return list(self._table.all)

    def job(self, job: JobId) -> JobState | None:
        """What is known here of one."""
        known = self._table.get(job)
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
        known = self._table.get(job)
        return known.leader if known is not None else None

    def find(self, key: bytes) -> JobId | None:
        """The job that is known here under this submission key."""
        record = self._table.find(key)
        return JobId(record.job) if record is not None else None

    def _wrote(self, event: events.Persisted | events.PersistFailed) -> None:
        journal = self._context.journal
        before = journal.trouble
        match event:
            case events.Persisted(token=token):
                journal.persisted(token)
            case events.PersistFailed(token=token, text=text):
                journal.failed(self._context.now, token, text)
        if journal.trouble != before:
            for job_id in list(self._table.leading):
                if (job := self._table.get(job_id)) is not None:
                    job.announce()

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        if not self._unchecked:
            return
        self._unchecked = False
        assert not self._context.out, "effects were left behind"
        for job_id, job in self._table.all.items():
            replica, ballot = job.replica, job.ballot
            assert replica.job == job_id, "a replica under another job's name"
            assert job.leadership is None or job.candidacy is None, "leads and stands at once"
            assert ballot is None or ballot <= replica.promised, "leads under a ballot that is not promised here"
            assert job.leadership is None or ballot == replica.promised, "leads although a higher ballot is promised"
            assert (job_id in self._table.leading) == (job.leadership is not None), "who leads does not know it"
            for stream, serial in replica.streams.serials.items():
                assert replica.durable.get(stream, -1) <= serial, "disk ahead of memory"

    # --- events -----------------------------------------------------------------------------------------------------

    def _take(self, event: ElectionEvent) -> None:  # noqa: C901  (one branch an event)
        match event:
            case events.Tick():
                self._tick()
            case events.Woke():
                self._woke()
            case events.FromReplica(node=node, message=message):
                self._hearing.hear(node, message)
            case events.PeerSeen(node=node, boot=boot):
                self._seen(node, boot)
            case events.PeerDoubtful(node=node):
                self._doubt(node)
            case events.PeerGone(node=node, certain=certain):
                self._gone(node, certain)
            case events.PeerUnlinked(node=node):
                self._unlinked(node)
            case events.CreateJob():
                self._submissions.create(event)
            case events.FindJob(request=request, key=key):
                self._submissions.inquiries.find(request, key, self._table.find(key))
            case events.Persisted() | events.PersistFailed():
                self._wrote(event)
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
                known = self._table.get(job)
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
            case events.Brought(error=error, copying=copying):
                job.provision.on_brought(error, copying=copying)
            case events.Propose() | events.Append():
                job.on_said(event)
            case events.Conclude(view=view):
                if job.leads:
                    self._table.conclude(job, view)
            case events.StepDown(reason=reason):
                job.unfit_for(reason)
            case events.AcceptFork():
                self._table.accept(job)
            case events.Forget():
                if job.replica.record.view:
                    self._table.forget(job)
            case _:
                assert_never(event)

    def _tick(self) -> None:
        context = self._context
        while (job_id := context.agenda.pop_due(context.now)) is not None:
            if (job := self._table.get(job_id)) is not None:
                context.touch(job_id)
                job.tick()
        if self._beat_at <= context.now:
            self._beat()
        self._submissions.tick()

    def _beat(self) -> None:
        context = self._context
        self._beat_at = context.now + context.config.heartbeat_s
        beats: dict[NodeId, list[messages.Beat]] = {}
        for job_id in list(self._table.leading):
            context.touch(job_id)
            self._table.all[job_id].tend()
            leadership = self._table.all[job_id].leadership
            if leadership is None:
                continue
            beat = leadership.beat()
            for node in leadership.others():
                if context.reachable(node):
                    beats.setdefault(node, []).append(beat)
        for node, of_node in beats.items():
            context.send(node, messages.Beats(beats=tuple(of_node)))

    def _woke(self) -> None:
        for job in self._table.active():
            job.woke()

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
            for job in self._table.active():
                job.met(node)
                if node in job.replica.members and job.boots.wants(node):
                    unsure.append(job.replica.job)
            if unsure:
                context.send(node, messages.Boots(boot=context.boot, jobs=tuple(unsure), former=context.former))
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
        for job in self._table.active():
            job.lost(node)
        self._submissions.lost(node)

    def _unlinked(self, node: NodeId) -> None:
        for job in self._table.active():
            if job.leadership is not None:
                job.leadership.unlinked(node)

    def _hand_over(self) -> None:
        self._context.leaving = True
        for job_id in self._table.leading:
            self._table.all[job_id].hand_over()
