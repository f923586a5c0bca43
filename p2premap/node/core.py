"""NodeCore: the rooms of one node put together. Still pure: events in, effects out, no clock of its own.

::

        FrameReceived, SubmitJob, SlotReported, ...                    SendLink, RunBatch, JobChanged, ...
                 |                                                               ^
                 v                                                               |
    +--------------------------------------- NodeCore ------------------------------------------+
    |  GossipCore --MemberChanged, FactChanged--> WorkerSeen / Doubtful / Lost --> Coordinators   |
    |      ^                                      LeaderLost ------------------> WorkerCore       |
    |      +-- WantLink (something waits in the outbox)                                           |
    |  Jobs (ElectionCore, Coordinators) --> [ this node's WorkerCore | a link | the outbox ]     |
    |  WorkerCore                        --> [ this node's Jobs       | a link | the outbox ]     |
    +---------------------------------------------------------------------------------------------+

The rooms never call each other: what one says is translated here into what another hears. Messages between this
node's own cores take no network and arrive within the same step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from p2premap.config import TasksConfig
from p2premap.control.nodes import NodeView
from p2premap.election import events as election
from p2premap.election.ballot import Fence
from p2premap.election.core import ElectionCore
from p2premap.election.messages import MESSAGES as LEDGER
from p2premap.errors import RemoteProtocolError
from p2premap.gossip import events as gossip
from p2premap.gossip.events import GossipEffect, GossipEvent, MemberState, MemberView
from p2premap.gossip.facts import LEVELS, load_levels
from p2premap.ids import Boot, JobId, NodeId, short, starts_of
from p2premap.node import software
from p2premap.node.capabilities import FACT, Capabilities
from p2premap.node.events import (
    BlobsKept,
    CalledBack,
    CancelJob,
    ExtendJob,
    KeepBlobs,
    NodeEffect,
    NodeEvent,
    PlanRead,
    RefuseActions,
    RetellEnds,
    ShedBlobs,
    SoftwareKnown,
    SubmitJob,
    Tick,
)
from p2premap.node.jobs import Jobs, MakeDirector
from p2premap.node.outbox import Outbox
from p2premap.node.software import Software
from p2premap.ports import FrameReceived
from p2premap.tasks import events as tasks
from p2premap.tasks import messages
from p2premap.tasks.job import JobView, Leader
from p2premap.tasks.placement import Facts
from p2premap.tasks.worker import WorkerCore
from p2premap.wire import Message

ORDERS = (messages.Assign, messages.StopAttempts, messages.ForgetJob, messages.Recount, messages.Reserve)
REPORTS = (messages.Busy, messages.AttemptsEnded, messages.Holding, messages.Kept, messages.Reserved)

SEATS_MAX = 100_000
"""Members that are remembered, dead ones included; gossip has a limit of its own for living ones."""


class Gossip(Protocol):
    """The part of `p2premap.gossip.core.GossipCore` that is used here."""

    def deadline(self) -> float:
        """When it wants a tick."""

    def step(self, now: float, event: GossipEvent) -> Sequence[GossipEffect]:
        """Take one event; say what is to be done."""

    def members(self) -> Sequence[MemberView]:
        """Everybody it knows, this node included or not."""


class Seat:
    """A member as the task rooms need it."""

    __slots__ = ("boot", "capabilities", "name", "since", "software", "state")

    def __init__(self, name: str, boot: Boot, state: MemberState, since: float) -> None:
        self.since = since
        self.name = name
        self.boot = boot
        self.state = state
        self.capabilities: Capabilities | None = None
        self.software: Software | None = None


class NodeCore:
    """One node.

    Args:
        me: this node.
        name: for people.
        gossip: the membership core of this node.
        capabilities: what this node offers.
        directors: kinds of jobs by name (entry point group ``p2premap.modules``).
        elections: the core of the ledgers of which this node keeps a replica.
        config: intervals and limits of the task rooms.
        now: the clock's present value.
        faulted: see `p2premap.node.jobs.Jobs`.
        unfit: see `p2premap.tasks.worker.WorkerCore`.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        name: str,
        gossip: Gossip,
        capabilities: Capabilities,
        directors: Mapping[str, MakeDirector],
        elections: ElectionCore,
        config: TasksConfig,
        now: float,
        faulted: Callable[[JobId, Exception], None] | None = None,
        unfit: Callable[[str, str], str] = lambda runtime, function: "",
    ) -> None:
        self.me = me
        self.name = name
        self.gossip = gossip
        self.worker = WorkerCore(
            me=me,
            slots=capabilities.slots,
            config=config,
            fence=Fence(config.jobs_fenced_max),
            now=now,
            unfit=unfit,
        )
        self._config = config
        self._capabilities = capabilities
        self._software: Software | None = None
        self._seats: dict[NodeId, Seat] = {}
        self._links: dict[NodeId, Boot] = {}
        self.outbox = Outbox(config.outbox_messages_max)
        self.jobs = Jobs(
            me=me,
            leader=Leader(me, name, capabilities.pid),
            core=elections,
            directors=directors,
            config=config,
            send=self._send,
            emit=self._emit,
            workers=self._workers,
            candidates=self._candidates,
            forked=self._to_worker_core,
            names=lambda: {short(me): name, **{short(node): seat.name for node, seat in self._seats.items()}},
            faulted=faulted,
        )
        self._inbox: deque[Message] = deque()
        self._effects: list[NodeEffect] = []
        self._published = False
        self._born = now
        self.refused_messages = 0
        """Messages of members that made no sense and changed nothing."""

    # --- the core's face ------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """The next instant at which it wants a `Tick`."""
        if not self._published:
            return self._born
        due = self.gossip.deadline()
        for other in (self.worker.deadline(), self.outbox.deadline(), self.jobs.deadline()):
            if other < due:
                due = other
        return due

    def step(self, now: float, event: NodeEvent) -> list[NodeEffect]:
        """Take one event; say what is to be done."""
        if not self._published:
            self._published = True
            self._to_gossip(now, gossip.SetFact(key=FACT, value=self._capabilities.encode()))
            self.jobs.tick(now)  # what a replica finds on its disk may ask for something before anything happens
        self._take(now, event)
        while self._inbox:
            self._route(now, self.me, self._inbox.popleft())
        for peer in self.outbox.wanted(now):
            self._to_gossip(now, gossip.WantLink(peer=peer))
        effects, self._effects = self._effects, []
        return effects

    def job_views(self, now: float, prefix: bytes = b"") -> list[JobView]:
        """The jobs that this node leads, replicates or saw end, and whose id begins so."""
        return self.jobs.views(now, prefix)

    def is_alive(self, node: NodeId) -> bool:
        """Whether gossip has no doubt about this node."""
        seat = self._seats.get(node)
        return node == self.me or (seat is not None and seat.state is MemberState.ALIVE)

    def capabilities(self, node: NodeId) -> Capabilities | None:
        """What a member published."""
        if node == self.me:
            return self._capabilities
        seat = self._seats.get(node)
        return seat.capabilities if seat is not None else None

    def node_views(self, now: float) -> list[NodeView]:
        """The members: this node first, then by name."""
        views = [self._node_view(now, member) for member in self.gossip.members()]
        return sorted(views, key=lambda view: (not view.me, view.name, view.node))

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        self.worker.check_invariants()
        self.jobs.check_invariants()
        assert not self._inbox, "a message to this node itself was left behind"

    # --- events ---------------------------------------------------------------------------------------------------

    def _take(self, now: float, event: NodeEvent) -> None:
        match event:
            case Tick():
                self._tick(now)
            case FrameReceived(peer=peer, frame=frame):
                self._route(now, peer, frame.message)
            case gossip.Received():
                self._to_gossip(now, event)
            case BlobsKept(node=node, kept=kept):
                self._send(now, node, kept)
            case tasks.SlotReported() | tasks.AttemptWaits() | tasks.AttemptGoesOn() | tasks.EnvironmentTold():
                self._to_worker_core(now, event)
            case tasks.SetSlots() | tasks.SetLimits() | tasks.MachineNow() | tasks.StopTaking():
                self._offer(now, event)
            case RefuseActions() | SoftwareKnown():
                self._know(now, event)
            case gossip.LinkUp(peer=peer, boot=boot):
                self._to_gossip(now, event)
                self._link_up(now, peer, boot)
            case gossip.LinkDown(peer=peer, boot=boot):
                self._to_gossip(now, event)
                self._link_down(now, peer, boot)
            case gossip.Woke(lost_s=lost_s):
                self._to_gossip(now, event)
                self.jobs.elect(now, election.Woke(lost_s=lost_s))
                self.jobs.tell_all(now, tasks.Woke(lost_s=lost_s))
            case (
                SubmitJob()
                | CancelJob()
                | CalledBack()
                | ExtendJob()
                | RetellEnds()
                | PlanRead()
                | election.Persisted()
                | election.PersistFailed()
                | election.BatchesLoaded()
                | election.Brought()
                | election.HandOver()
                | election.AcceptFork()
                | election.Forget()
            ):
                self.jobs.take(now, event)
            case _:
                self._to_gossip(now, event)

    def _tick(self, now: float) -> None:
        if self.gossip.deadline() <= now:
            self._to_gossip(now, gossip.Tick())
        if self.worker.deadline() <= now:
            self._to_worker_core(now, tasks.Tick())
        self.jobs.tick(now)

    def _offer(self, now: float, event: tasks.WorkerEvent) -> None:
        """What this node offers may have changed: tell everybody."""
        self._to_worker_core(now, event)
        offered = msgspec.structs.replace(
            self._capabilities, slots=self.worker.slots, held_back=self.worker.held_back[:255]
        )
        self._publish(now, offered)

    def _know(self, now: float, event: RefuseActions | SoftwareKnown) -> None:
        if isinstance(event, RefuseActions):
            self._publish(now, msgspec.structs.replace(self._capabilities, refused_actions=event.actions))
        else:
            self._know_software(now, event.software)

    def _publish(self, now: float, offered: Capabilities) -> None:
        if offered != self._capabilities:
            self._capabilities = offered
            self._to_gossip(now, gossip.SetFact(key=FACT, value=offered.encode()))
            self.jobs.tell_all(now, self._myself())

    def _emit(self, effect: NodeEffect) -> None:
        self._effects.append(effect)

    # --- gossip ---------------------------------------------------------------------------------------------------

    def _to_gossip(self, now: float, event: GossipEvent) -> None:
        for effect in self.gossip.step(now, event):
            match effect:
                case gossip.SendDatagram() | gossip.SendLink():
                    self._effects.append(effect)
                case gossip.MemberChanged():
                    self._effects.append(effect)
                    if effect.node != self.me:
                        self._on_member(now, effect)
                case gossip.FactChanged():
                    self._effects.append(effect)
                    if effect.key == FACT and effect.node != self.me:
                        self._on_capabilities(now, effect.node, effect.value)
                    elif effect.key == software.FACT and effect.node != self.me:
                        self._on_software(now, effect.node, effect.value)
                case gossip.LoadChanged():
                    pass  # read from `members` where it is shown
                case _:
                    self._effects.append(effect)

    def _on_member(self, now: float, change: gossip.MemberChanged) -> None:
        node = change.node
        seat = self._seats.get(node)
        if seat is None:
            self._forget_dead_seat()
            seat = self._seats[node] = Seat(change.name, change.boot, change.state, now)
        elif seat.boot != change.boot:
            self._gone(now, node)  # another life of it: what ran in the former is lost
            seat.capabilities = seat.software = None
        if (seat.boot, seat.state) != (change.boot, change.state):
            seat.since = now
        seat.name, seat.boot, seat.state = change.name, change.boot, change.state
        match change.state:
            case MemberState.ALIVE:
                self.jobs.elect(now, election.PeerSeen(node=node, boot=change.boot))
                self._seen(now, node, seat)
            case MemberState.STALLED | MemberState.SUSPECT:
                self.jobs.elect(now, election.PeerDoubtful(node=node))
                self.jobs.tell_all(now, tasks.WorkerDoubtful(node=node))
            case MemberState.DEAD | MemberState.LEFT:
                self._gone(now, node)
                certain = change.gone or change.state is MemberState.LEFT
                self.jobs.elect(now, election.PeerGone(node=node, certain=certain))

    def _forget_dead_seat(self) -> None:
        """Beyond `SEATS_MAX` the member that has been gone for longest is forgotten here."""
        if len(self._seats) >= SEATS_MAX:
            gone = {n: s.since for n, s in self._seats.items() if s.state in (MemberState.DEAD, MemberState.LEFT)}
            if gone:
                del self._seats[min(gone, key=lambda n: gone[n])]

    def _gone(self, now: float, node: NodeId) -> None:
        self.outbox.forget(node)
        self._to_worker_core(now, tasks.LeaderLost(node=node))
        self.jobs.tell_all(now, tasks.WorkerLost(node=node))

    def _on_capabilities(self, now: float, node: NodeId, value: bytes) -> None:
        seat = self._seats.get(node)
        if seat is None:
            return
        if not value:
            seat.capabilities = None  # of a life that is over
            return
        try:
            seat.capabilities = Capabilities.decode(value)
        except RemoteProtocolError:
            self.refused_messages += 1
            return
        if seat.state is MemberState.ALIVE:
            self._seen(now, node, seat)

    def _on_software(self, now: float, node: NodeId, value: bytes) -> None:
        seat = self._seats.get(node)
        if seat is None:
            return
        try:
            seat.software = Software.decode(value) if value else None
        except RemoteProtocolError:
            self.refused_messages += 1
            return
        if seat.state is MemberState.ALIVE:
            self._seen(now, node, seat)

    def _know_software(self, now: float, found: Software) -> None:
        self._software = found
        if found != Software() and (value := found.encode()):
            self._to_gossip(now, gossip.SetFact(key=software.FACT, value=value))
        self.jobs.tell_all(now, self._myself())

    def _seen(self, now: float, node: NodeId, seat: Seat) -> None:
        if (event := _worker_seen(node, seat)) is not None:
            self.jobs.tell_all(now, event)

    def _workers(self) -> list[tasks.WorkerSeen]:
        """Who can work, for a leader that begins: this node first. Who is in doubt is not lost, with what it holds."""
        seats = [(node, seat) for node, seat in sorted(self._seats.items()) if seat.state < MemberState.DEAD]
        others = (_worker_seen(node, seat) for node, seat in seats)
        return [self._myself(), *(seen for seen in others if seen is not None)]

    def _candidates(self) -> list[NodeId]:
        """Who could keep a replica of a new job: those on other machines first, in an order of each node's own."""
        mine, me = self._capabilities.machine, int.from_bytes(self.me)
        alive = {
            node: seat.capabilities
            for node, seat in self._seats.items()
            if seat.state is MemberState.ALIVE and seat.capabilities is not None
        }
        return sorted(alive, key=lambda node: (alive[node].machine == mine, int.from_bytes(node) ^ me))

    def _myself(self) -> tasks.WorkerSeen:
        return tasks.WorkerSeen(
            node=self.me,
            name=self.name,
            slots=self._capabilities.slots,
            machine=self._capabilities.machine,
            facts=_facts(self._capabilities, self._software),
        )

    # --- links and messages ---------------------------------------------------------------------------------------

    def _link_up(self, now: float, peer: NodeId, boot: Boot) -> None:
        if peer in self._links:
            self._unlinked(now, peer)  # it replaces one that may have lost something
        self._links[peer] = boot
        for message in self.outbox.take(peer):
            self._effects.append(gossip.SendLink(peer=peer, message=message))

    def _link_down(self, now: float, peer: NodeId, boot: Boot) -> None:
        if self._links.get(peer) != boot:
            return  # the end of a link to an earlier life of the peer
        del self._links[peer]
        self._unlinked(now, peer)

    def _unlinked(self, now: float, peer: NodeId) -> None:
        """What was under way between it and this node may be lost."""
        self.jobs.elect(now, election.PeerUnlinked(node=peer))
        self.jobs.tell_all(now, tasks.WorkerUnlinked(node=peer))

    def _send(self, now: float, peer: NodeId, message: Message) -> None:
        if peer == self.me:
            self._inbox.append(message)
        elif peer in self._links:
            self._effects.append(gossip.SendLink(peer=peer, message=message))
        else:
            self.outbox.put(now, peer, message)

    def _route(self, now: float, sender: NodeId, message: Message) -> None:
        """Hand a message of the task rooms to the core that it is for."""
        if isinstance(message, ORDERS):
            self._to_worker_core(now, tasks.FromLeader(node=sender, message=message))
        elif isinstance(message, REPORTS):
            self.jobs.report(now, sender, message.job, message.ballot, message)
        elif isinstance(message, messages.Keep):
            self._effects.append(KeepBlobs(node=sender, order=message))
        elif isinstance(message, messages.Shed):
            self._effects.append(ShedBlobs(blobs=message.blobs))
        elif isinstance(message, LEDGER):
            self.jobs.elect(now, election.FromReplica(node=sender, message=message))
        else:
            self.refused_messages += 1

    def _to_worker_core(self, now: float, event: tasks.WorkerEvent) -> None:
        for effect in self.worker.step(now, event):
            match effect:
                case tasks.ToLeader(node=node, message=message):
                    self._send(now, node, message)
                case _:
                    self._effects.append(effect)

    # --- views ----------------------------------------------------------------------------------------------------

    def _node_view(self, now: float, member: MemberView) -> NodeView:
        me = member.node == self.me
        seat = self._seats.get(member.node)
        abilities = self.capabilities(member.node) or Capabilities(machine=b"", slots=0)
        load = load_levels(member.load)
        return NodeView(
            node=member.node,
            name=member.name,
            state=member.state.name.lower(),
            pid=abilities.pid,
            boot=starts_of(member.boot),
            addresses=tuple(str(address) for address in member.addresses),
            version=abilities.version,
            system=abilities.system,
            python=abilities.python,
            cpus=abilities.cpus,
            slots=abilities.slots,
            busy=self.worker.busy if me else round(load.busy_slots / (LEVELS - 1) * abilities.slots),
            load=load.cpu / (LEVELS - 1),
            memory_bytes=abilities.memory_bytes,
            memory_free_bytes=round((1 - load.memory / (LEVELS - 1)) * abilities.memory_bytes),
            tags=abilities.tags,
            me=me,
            since_s=now - (seat.since if seat is not None else self._born),
            held_back=abilities.held_back,
            host=abilities.host,
            refused_actions=abilities.refused_actions,
            on_battery=load.battery_used > 0,
        )


def _worker_seen(node: NodeId, seat: Seat) -> tasks.WorkerSeen | None:
    abilities = seat.capabilities
    if abilities is None:
        return None
    return tasks.WorkerSeen(
        node=node,
        name=seat.name,
        slots=abilities.slots,
        machine=abilities.machine or node,
        doubtful=seat.state is not MemberState.ALIVE,
        facts=_facts(abilities, seat.software),
    )


def _facts(abilities: Capabilities, found: Software | None) -> Facts:
    return Facts(
        cpus=abilities.cpus,
        memory_bytes=abilities.memory_bytes,
        gpus=abilities.gpus,
        tags=abilities.tags,
        python=abilities.python,
        packages=found.packages if found is not None else None,
        programs=found.programs if found is not None else None,
    )


__all__ = ["Gossip", "NodeCore", "NodeEffect", "NodeEvent"]
