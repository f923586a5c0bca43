"""Leading a job: facts to all members, cells by vote. The second phase of Paxos.

**Facts** go out as they come, in batches, while they are being written here; a member acknowledges how far its disk
holds this leader's stream (which implies what came before, see `streams`). `Protected` follows the highest serial that
a quorum has reached. Recent batches stay in memory until every living member has them; who lacks more asks
(`Want`), and is served from disk.

**Cells** wait until all facts that were appended before them are protected: a value that speaks of facts (a manifest)
can then never outlive them. Then the value is accepted here and sent; with a quorum of acceptances it is chosen. The
leader waits for the other living members too, up to `decide_wait_s`: more copies of what is said to be decided, at no
cost in safety.

What was lost with a link is repaired by the heartbeat: it tells the length of the stream and the number of decided
cells; and acceptances that are missing are asked for again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection

from p2premap.election.context import Context
from p2premap.election.messages import Accept, Ack, Append, Batches, Beat, Chosen, StoreJob, Want
from p2premap.election.quorum import is_quorum, reached
from p2premap.election.records import CellRecord, StoredBatch
from p2premap.election.replica import Replica
from p2premap.election.streams import Vector, encode_head, in_order, portions
from p2premap.ids import Ballot, NodeId

RECENT_BYTES_MAX = 8 << 20
"""Batches in memory beyond this are dropped there, whoever lacks them: they are on disk."""


class Follower:
    """A member as its leader knows it.

    Args:
        acked: how far it has our stream on disk; -1: not even the head.
        sent: how far it was sent on the present link; None: unknown, wait until it says.
        cells: of so many cells it knows that they are chosen.
        loading: something is being read from disk for it.
        amnesiac: its memory is not whole.
        copying: it does not have all inputs yet.
        leaving: it is about to go.
        unwritable: its disk takes nothing now.
    """

    __slots__ = ("acked", "amnesiac", "cells", "copying", "leaving", "loading", "sent", "unwritable")

    def __init__(self) -> None:
        self.acked = -1
        self.cells = 0
        self.sent: int | None = None
        self.loading = False
        self.amnesiac = False
        self.copying = False
        self.leaving = False
        self.unwritable = False


class Proposal:
    """A cell on its way.

    Args:
        after: the serial that must be protected first.
        sent_at: when it was sent last; -inf: never.
    """

    __slots__ = ("accepted", "after", "sent_at", "since", "value")

    def __init__(self, value: bytes, after: int) -> None:
        self.value = value
        self.after = after
        self.accepted: set[NodeId] = set()
        self.since = math.inf
        self.sent_at = -math.inf


class Leadership:
    """This node leads a job under one ballot.

    Args:
        decided: called with each cell that is chosen.
        protected: called with each serial that a quorum has reached.
    """

    def __init__(
        self,
        context: Context,
        replica: Replica,
        ballot: Ballot,
        *,
        decided: Callable[[str, bytes], None],
        protected: Callable[[int], None],
    ) -> None:
        self._context = context
        self._replica = replica
        self._decided = decided
        self._protected = protected
        self.ballot = ballot
        self.ready = False
        """Whether `Lead` was said."""
        self.deposed = False
        self.offset = 0
        """How many facts the tasks had appended before this stream (`carried`)."""
        self.serial = -1
        self.protected = -1
        self.followers: dict[NodeId, Follower] = {}
        self._since = context.now
        self._stopping = False
        self.joining: tuple[NodeId, ...] = ()
        """The next replica set, while it is being prepared: it must have all facts too."""
        self.proposals: dict[str, Proposal] = {}
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        for node in replica.members:
            self.follower(node)

    # --- beginning --------------------------------------------------------------------------------------------------

    def begin(self, then: Callable[[tuple[bytes, ...]], None]) -> None:
        """Write the head of the own stream, and read back the history; `then` gets it."""
        replica = self._replica
        base = dict(replica.streams.serials)
        head = StoredBatch(job=replica.job, ballot=self.ballot, serial=0, batch=encode_head(base))
        spans = replica.streams.fold(base)

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            if not self.deposed:
                then(tuple(in_order(spans, batches)))

        def on_disk() -> None:
            if not self.deposed:
                self._own_disk()
                replica.load_beyond({}, loaded)

        self.serial = 0
        taken = replica.store([head], on_disk)
        assert taken, "a ballot is used twice"

    def begin_first(self) -> None:
        """Lead a job that has just been created: its stream's head is on disk."""
        self.serial = 0
        self._own_disk()

    def follower(self, node: NodeId) -> Follower:
        """The member, known from now on."""
        known = self.followers.get(node)
        if known is None:
            known = self.followers[node] = Follower()
        return known

    @property
    def copies(self) -> int:
        """How many replicas hold the job."""
        return sum(1 for node in self._replica.members if self.follower(node).acked >= 0)

    def age(self) -> float:
        """For how long it has been led."""
        return self._context.now - self._since

    def others(self) -> list[NodeId]:
        """Everybody whom facts are sent to."""
        return [n for n in dict.fromkeys((*self._replica.members, *self.joining)) if n != self._context.me]

    # --- facts ------------------------------------------------------------------------------------------------------

    def append(self, batch: bytes) -> None:
        """The next batch of the stream."""
        replica = self._replica
        last, self.serial = self.serial, self.serial + 1
        stored = StoredBatch(job=replica.job, ballot=self.ballot, serial=self.serial, batch=batch)
        taken = replica.store([stored], self._own_disk)
        assert taken, "the own stream has a gap"
        self._recent.append(batch)
        self._recent_bytes += len(batch)
        message = Append(job=replica.job, ballot=self.ballot, serial=self.serial, batches=(batch,))
        for node in self.others():
            follower = self.follower(node)
            if follower.sent == last and self._context.reachable(node):
                follower.sent = self.serial
                self._context.send(node, message)

    def _own_disk(self) -> None:
        if not self.deposed:
            self.acked(self._context.me, self._replica.durable.get(self.ballot, -1))

    def on_ack(self, node: NodeId, ack: Ack, leaving: bool) -> None:
        """A member tells what it has on disk."""
        if node in self.followers:
            follower = self.followers[node]
            follower.cells = max(follower.cells, ack.cells)
            follower.amnesiac = ack.amnesiac
            follower.copying = ack.copying
            follower.unwritable = ack.unwritable
            follower.leaving = leaving
            self.acked(node, -1 if ack.serial is None else ack.serial)

    def acked(self, node: NodeId, serial: int) -> None:
        """A member has the stream on disk up to here."""
        follower = self.follower(node)
        if serial > follower.acked:
            follower.acked = min(serial, self.serial)
            self._measure()
            self._trim()
        if follower.sent is None and serial >= 0 and node != self._context.me:
            self._stream(node, serial)

    def _measure(self) -> None:
        serials = {node: follower.acked for node, follower in self.followers.items()}
        serial = reached(self._replica.members, serials)
        if self.joining:
            serial = min(serial, reached(self.joining, serials))
        if serial > self.protected:
            self.protected = serial
            self._protected(serial)
            self.propose_ready()

    @property
    def _oldest(self) -> int:
        """The serial of the first batch in memory."""
        return self.serial - len(self._recent) + 1

    def _trim(self) -> None:
        """Drop from memory what all living members have, and what is too much."""
        own = self.follower(self._context.me).acked
        waiting = [self.follower(node).acked for node in self.others() if self._context.alive(node)]
        least = min(waiting, default=own)
        while self._recent and (self._oldest <= least or self._recent_bytes > RECENT_BYTES_MAX) and self._oldest <= own:
            self._recent_bytes -= len(self._recent.popleft())

    def _stream(self, node: NodeId, has: int) -> bool:
        """Send what follows this serial from memory, and from then on each batch as it comes; False: not in memory."""
        if has + 1 < self._oldest:
            return False
        self.follower(node).sent = self.serial
        serial = has + 1
        wanted = [
            StoredBatch(job=self._replica.job, ballot=self.ballot, serial=serial + n, batch=batch)
            for n, batch in enumerate(list(self._recent)[serial - self._oldest :])
        ]
        for portion in portions(wanted, self._context.config.batch_bytes_max):
            message = Append(
                job=self._replica.job,
                ballot=self.ballot,
                serial=portion[0].serial,
                batches=tuple(stored.batch for stored in portion),
            )
            self._context.send(node, message)
        return True

    # --- members that lack something --------------------------------------------------------------------------------

    def unlinked(self, node: NodeId) -> None:
        """What was under way to it may be lost."""
        if node in self.followers:
            self.followers[node].sent = None

    def wants(self, node: NodeId, want: Want) -> None:
        """A member tells what it has."""
        replica = self._replica
        if not want.known:
            self._context.send(node, StoreJob(record=replica.record))
            return
        missing = tuple(cell for cell in replica.chosen_cells() if cell.cell not in want.cells)
        if missing:
            self._context.send(node, Chosen(cells=missing))
        vector = dict(want.vector)
        has = vector.get(self.ballot)
        if has is None or not self._stream(node, has):
            self.feed(node, vector)

    def feed(self, node: NodeId, vector: Vector) -> None:
        """Send from disk what is beyond this, then what has come meanwhile."""
        follower = self.follower(node)
        if follower.loading:
            return
        follower.loading = True

        def loaded(batches: tuple[StoredBatch, ...]) -> None:
            follower.loading = False
            if self.deposed or not self._context.reachable(node):
                return
            has = vector.get(self.ballot, -1)
            for portion in portions(batches, self._context.config.batch_bytes_max):
                self._context.send(node, Batches(batches=portion))
            has = max((b.serial for b in batches if b.ballot == self.ballot), default=has)
            if has >= 0 and not self._stream(node, has):
                follower.sent = None

        self._replica.load_beyond(vector, loaded)

    # --- cells ------------------------------------------------------------------------------------------------------

    def propose(self, cell: str, value: bytes) -> None:
        """Have a cell decided; the first value of a ballot counts."""
        known = self._replica.cells.get(cell)
        if known is not None and known.chosen:
            self._decided(cell, known.value)
        elif cell not in self.proposals:
            self.proposals[cell] = Proposal(value, self.serial)
            self.propose_ready()

    def propose_ready(self) -> None:
        """Send the proposals whose facts are protected."""
        for cell, proposal in list(self.proposals.items()):
            if proposal.since == math.inf and proposal.after <= self.protected and not self._stopping:
                self._propose_now(cell, proposal)

    def _propose_now(self, cell: str, proposal: Proposal) -> None:
        proposal.since = self._context.now
        me = self._context.me
        self._replica.accept(self._record(cell, proposal), lambda: self.accepted(me, cell))
        self._send_accept(cell, proposal)

    def _record(self, cell: str, proposal: Proposal) -> CellRecord:
        return CellRecord(
            job=self._replica.job, cell=cell, ballot=self.ballot, value=proposal.value, serial=max(proposal.after, 0)
        )

    def _send_accept(self, cell: str, proposal: Proposal) -> None:
        proposal.sent_at = self._context.now
        serial = max(proposal.after, 0)
        message = Accept(job=self._replica.job, ballot=self.ballot, cell=cell, value=proposal.value, serial=serial)
        for node in self._replica.members:
            if node not in proposal.accepted and node != self._context.me and self._context.reachable(node):
                self._context.send(node, message)

    def accepted(self, node: NodeId, cell: str) -> None:
        """A member has accepted."""
        proposal = self.proposals.get(cell)
        if self.deposed or proposal is None:
            return
        proposal.accepted.add(node)
        self._decide(cell, proposal)

    def _decide(self, cell: str, proposal: Proposal) -> None:
        replica = self._replica
        if self.deposed or not is_quorum(replica.members, proposal.accepted):
            return
        waited = self._context.now >= proposal.since + self._context.config.decide_wait_s
        if not waited and any(n not in proposal.accepted and self._context.alive(n) for n in replica.members):
            return
        del self.proposals[cell]
        replica.choose(self._record(cell, proposal))
        self.tell((replica.cells[cell],))
        self._decided(cell, proposal.value)

    def tell(self, cells: tuple[CellRecord, ...], nodes: Collection[NodeId] | None = None) -> None:
        """Tell everybody that these cells are decided."""
        for node in self.others() if nodes is None else nodes:
            if self._context.reachable(node):
                self._context.send(node, Chosen(cells=cells))

    # --- the end of an epoch ------------------------------------------------------------------------------------------

    def stop(self, joining: tuple[NodeId, ...]) -> None:
        """Another replica set is to follow: what its tasks propose waits for it, facts go to both sets."""
        self.joining = joining
        self._stopping = self.ready

    def resume(self) -> None:
        """There will be no other replica set."""
        self.joining = ()
        self._stopping = False
        self._measure()
        self.propose_ready()

    def under_way(self) -> bool:
        """Whether a cell is being voted on, or must be."""
        return any(proposal.since < math.inf or not self._stopping for proposal in self.proposals.values())

    def propose_stop(self, cell: str, value: bytes) -> None:
        """Have the epoch ended: the last cell that is proposed in it."""
        proposal = self.proposals[cell] = Proposal(value, self.protected)
        self._propose_now(cell, proposal)

    # --- time -------------------------------------------------------------------------------------------------------

    def beat(self) -> Beat:
        """The heartbeat; and what was sent in vain is sent again."""
        again = self._context.now - self._context.config.resend_s
        for cell, proposal in self.proposals.items():
            if proposal.since < math.inf and proposal.sent_at <= again:
                self._send_accept(cell, proposal)
        return Beat(
            job=self._replica.job,
            ballot=self.ballot,
            serial=max(self.serial, 0),
            cells=self._replica.chosen,
            copies=self.copies,
        )

    def deadline(self) -> float:
        """When a proposal has waited long enough for those who are not needed."""
        if not self.proposals:
            return math.inf
        wait = self._context.config.decide_wait_s
        now = self._context.now
        return min((p.since + wait for p in self.proposals.values() if p.since + wait > now), default=math.inf)

    def tick(self) -> None:
        """Proposals that have waited long enough."""
        for cell, proposal in list(self.proposals.items()):
            self._decide(cell, proposal)
