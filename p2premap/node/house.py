"""One run of a node under one identity: its parts, put together, and the background tasks that move them.

::

    sockets --> Transport --deliver--> Driver(NodeCore) --perform--> Transport, Executor, bulletin
    mDNS, runtime directory, --join, remembered peers --hint-->  |
    worker processes --> Executor --deliver-->                   |
    clients --> Desk --submit, cancel-->                         |

A run ends in one of the ways of `p2premap.node.endings`; `p2premap.node.daemon` decides what comes next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from msgspec.structs import replace

from p2premap import __version__
from p2premap.config import NodeConfig, TransportConfig
from p2premap.control.nodes import NodeView, Status
from p2premap.election import events as election
from p2premap.election.core import ElectionCore
from p2premap.gossip import events as gossip
from p2premap.gossip.core import GossipCore
from p2premap.ids import JobId, NodeId, RequestId, short
from p2premap.node import desk_calls, leaving, scope, upkeep
from p2premap.node.account import Account
from p2premap.node.attempts import Attempts
from p2premap.node.bring import Bringer
from p2premap.node.bulk import AllowedFiles, BulkService
from p2premap.node.bulletin import Bulletin, Warnings
from p2premap.node.callbacks import Callbacks
from p2premap.node.callblobs import CallBlobs
from p2premap.node.core import NodeCore
from p2premap.node.desk import Desk
from p2premap.node.driver import Driver
from p2premap.node.endings import Ending
from p2premap.node.events import (
    JobAccepted,
    JobMoved,
    JobRefused,
    KeepBlobs,
    NodeEffect,
    NodeEvent,
    ReadPlan,
    ShareFiles,
    ShedBlobs,
    Tick,
)
from p2premap.node.gangs import Gangs
from p2premap.node.handlers import Handlers
from p2premap.node.identity import PEERS, Identity
from p2premap.node.invite import Inviter
from p2premap.node.keys import Keys
from p2premap.node.kinds import Unfit
from p2premap.node.ledger import Ledger
from p2premap.node.orders import Orders
from p2premap.node.outlines import aged
from p2premap.node.parts import Parts
from p2premap.node.paths import Paths
from p2premap.node.quota import Quota
from p2premap.node.removal import Remover
from p2premap.node.search import Search
from p2premap.node.secret import ClusterSecret
from p2premap.node.transport import TrioTransport
from p2premap.node.webdoor import WebDoor
from p2premap.tasks import events as tasks
from p2premap.tasks.job import JobView

log = logging.getLogger(__name__)


class House:
    """One run of a node.

    Args:
        config: what the user asked for.
        user: the user's directories.
        paths: the same with the state on local disk.
        secret: the cluster's.
        identity: claimed; released by the caller.
        started: told once the node serves clients.
        warnings: sentences from before this run.
        parts: what it is built from; others in the simulator.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        user: Paths,
        paths: Paths,
        secret: ClusterSecret,
        identity: Identity,
        started: Callable[[Status], None],
        warnings: Sequence[str] = (),
        parts: Parts = Parts(),  # noqa: B008  (a tuple of functions)
    ) -> None:
        self._parts, self.wall_s = parts, parts.wall_s
        self.config, self.user, self.paths, self.identity = config, user, paths, identity
        self.keys = Keys(identity=identity, secret=secret, config=user.config, wall_s=self.wall_s)
        self.name = config.name or identity.name
        self.bulletin = Bulletin()
        self.warnings = Warnings()
        for text in warnings:
            self.warnings.add(text)
        self._started = started
        self._farewell = leaving.Farewell(self)
        self.account = Account(self)
        self.web = WebDoor(self)
        self.attempts = Attempts(trio.current_time)
        self.callbacks = Callbacks(self.deliver)
        self.remover = Remover(self)
        self.unfit = Unfit(config.refused_actions)
        self.quota = Quota(self, config.keep_bytes_max)
        self.evicted: set[NodeId] = set()
        """Members that were evicted during this run: they are known to be dead, and are not awaited."""
        self._build()

    def _build(self) -> None:
        """Make the parts; nothing runs yet."""
        self._build_memory()
        self._build_network()
        self._build_work()
        self.keys.on_change(self._rekey)

    def _build_memory(self) -> None:
        """What is kept on disk, and what hands it out."""
        state = self.identity.directory
        self._records = self._parts.ledger(state / "ledger.db", self.identity.boot)
        self.warnings.add(self._records.warning)
        self.ledger = Ledger(store=self._records, deliver=self.deliver, damaged=self._on_damage)
        self.store = self._parts.store(state / PEERS)
        self.warnings.add(self.store.warning)
        self.blobs = self._parts.blobs(state / "blobs")
        self.files = AllowedFiles()
        self.bulk = BulkService(blobs=self.blobs, files=self.files)

    def _build_network(self) -> None:
        """What speaks to clients and members, and finds these."""
        self.inviter = Inviter(
            secret=self.keys.secret,
            credentials=self.identity.credentials,
            addresses=lambda: self.transport.addresses,
            randomness=self._parts.randomness,
        )
        self.desk = Desk(self, Handlers())
        self.gangs = Gangs(
            me=self.identity.node,
            secrets=lambda: self.keys.secrets,
            directory=lambda: self.paths.sockets(self.keys.secret.place),
            addresses_of=lambda node: self.search.addresses_of(node),
            is_neighbour=lambda node: self._neighbour_blobs(node) is not None,
        )
        self.transport: TrioTransport = self._parts.transport(
            identity=self.identity,
            keys=self.keys,
            config=self.transport_config(),
            deliver=self.deliver,
            addresses_of=lambda node: self.search.addresses_of(node),
            serve_control=self.desk.serve,
            serve_bulk=self.bulk.serve_bulk,
            serve_gang=self.gangs.serve,
            hello_name=self.name,
            version=__version__,
            inviter=self.inviter,
            foreign=lambda seen: self.search.met_foreign(seen),
            clashed=self._on_clash,
            randomness=self._parts.randomness,
        )
        self.search: Search = self._parts.search(
            me=self.identity.node,
            name=self.name,
            keys=self.keys,
            user=self.user,
            paths=self.paths,
            config=self.config,
            transport=self.transport,
            store=self.store,
            post=self.deliver,
            warnings=self.warnings,
        )

    def _build_work(self) -> None:
        """What jobs are led and worked for with."""
        state = self.identity.directory
        self.orders = Orders(self.deliver, trouble=lambda: self.ledger.trouble, wall_s=self.wall_s)
        self.stager = self._parts.stager(
            me=self.identity.node,
            blobs=self.blobs,
            open_bulk=self.transport.open_bulk,
            neighbour_blobs=self._neighbour_blobs,
            answers=self._answers,
        )
        self.environments = self._parts.environments(
            state=state,
            blobs=self.blobs,
            stager=self.stager,
            members=lambda: [view.node for view in self.others()],
            deliver=self.deliver,
        )
        self.executor = self._parts.executor(
            state=state,
            blobs=self.blobs,
            stager=self.stager,
            deliver=self._on_slot,
            interpreter=self.environments.interpreter,
            table=self.gangs.table,
        )
        self.call_blobs = CallBlobs()
        self.calls = desk_calls.CallLines(self.deliver, self.slots, self.led_jobs)
        self.kinds = self._parts.kinds()
        self.bringer = Bringer(
            me=self.identity.node,
            blobs=self.blobs,
            stager=self.stager,
            directors=self.kinds,
            share=self.files.allow_files,
            deliver=self.deliver,
        )

    def _rekey(self, members: Sequence[NodeId] | None) -> None:
        """The cluster has another secret; the transport has heard of it before."""
        if members:
            self.evicted.update(view.node for view in self.nodes() if view.node not in members)
        self.inviter.rekey(self.keys.secret, self.keys.face.credentials)
        self.search.rekey()

    def transport_config(self) -> TransportConfig:
        """With the port that the user asked for, if any."""
        transport = self.config.transport
        return replace(transport, port_first=self.config.port, ports_tried=1) if self.config.port else transport

    # --- the run ------------------------------------------------------------------------------------------------------

    async def run(self) -> Ending:
        """Run until stopped.

        Raises:
            ConfigError: the node cannot start: its port is taken, its directory not writable, ...
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.transport.run)
                if self.keys.secret.open_name or scope.is_open(self.user):
                    self.transport.open_to_network()
                self._make_core()
                await nursery.start(self.ledger.run)
                await nursery.start(self.bringer.run)
                await self.bringer.resume(self._stored.jobs)
                await nursery.start(self.environments.run)
                await nursery.start(self.executor.run)
                nursery.start_soon(self.driver.run)
                directory = self.paths.sockets(self.keys.secret.place)
                await self._parts.door(directory, self.identity.node, self.desk.serve, nursery)
                self._started(self.account.status(RequestId(0)))
                nursery.start_soon(self.calls.run)
                nursery.start_soon(self.search.run)
                nursery.start_soon(upkeep.keep_load, self, self._parts.load())
                nursery.start_soon(upkeep.keep_tidy, self)
                nursery.start_soon(self.quota.run)
                nursery.start_soon(self.web.run)
                nursery.start_soon(self.callbacks.run)
                nursery.start_soon(self.remover.run)
                nursery.start_soon(upkeep.look_for_software, self, self._parts.software)
                await self._farewell.due.wait()
                await self._farewell.say()
                nursery.cancel_scope.cancel()
        finally:
            self.search.remember()
            self.store.close()
            self._records.close()
        return self._farewell.ending

    def _make_core(self) -> None:
        now = trio.current_time()
        self._stored = self._records.load()
        self.gossip = GossipCore(
            me=self.identity.node,
            boot=self.identity.boot,
            name=self.name,
            addresses=self.transport.addresses,
            config=self.config.gossip,
            rng=self._parts.random(),
            now=now,
        )
        self.core = NodeCore(
            me=self.identity.node,
            name=self.name,
            gossip=self.gossip,
            capabilities=replace(
                self._parts.capabilities(
                    blob_directory=Path(self.blobs.directory), slots=self.config.slots, tags=self.config.tags
                ),
                refused_actions=self.config.refused_actions,
            ),
            directors=self.kinds,
            elections=ElectionCore(
                me=self.identity.node,
                boot=self.identity.boot,
                former=self.identity.former,
                name=self.name,
                config=self.config.election,
                rng=self._parts.random(),
                now=now,
                stored=self._stored,
            ),
            config=self.config.tasks,
            now=now,
            faulted=self._on_fault,
            unfit=self.unfit,
        )
        self.driver: Driver[NodeEvent, NodeEffect] = self._parts.driver(
            self.core,
            self._perform,
            tick=Tick(),
            woke=lambda lost_s: gossip.Woke(lost_s=lost_s),
            may_drop=lambda event: isinstance(event, gossip.Received) and event.address is not None,
        )

    def end(self, ending: Ending) -> None:
        """End this run in good order."""
        self._farewell.end(ending)

    # --- events in, effects out ---------------------------------------------------------------------------------------

    def deliver(self, event: NodeEvent) -> None:
        """Something happened: the core will hear of it."""
        self.driver.post(event)

    def _on_slot(self, event: tasks.SlotReported | tasks.AttemptWaits | tasks.AttemptGoesOn) -> None:
        if isinstance(event, tasks.SlotReported):
            self.call_blobs.hear(event)
            self.attempts.hear(event)
        self.deliver(event)

    def hint(self, hint: gossip.Hinted) -> None:
        """Somebody may be there."""
        self.deliver(hint)

    def _perform(self, effect: NodeEffect) -> None:
        match effect:
            case gossip.SendDatagram(peer=peer, address=address, message=message):
                self.transport.send_datagram(peer, address, message)
            case gossip.SendLink(peer=peer, message=message):
                self.transport.send_link(peer, message)
            case gossip.Dial(dial=dial, address=address, keep=keep, timeout_s=timeout_s):
                self.transport.dial(dial, address, keep=keep, timeout_s=timeout_s)
            case gossip.Hangup(peer=peer):
                self.transport.hangup(peer)
            case tasks.RunBatch() | tasks.StopSlot() | tasks.EndJob():
                self._perform_on_slots(effect)
            case tasks.MakeEnvironment():
                self.environments.perform(effect)
            case gossip.MemberChanged(node=node, state=state):
                self.search.on_member(effect)
                if state is not gossip.MemberState.ALIVE:
                    self.stager.lose(node)
            case gossip.IdentityClash(reason=reason):
                self._on_clash(reason)
            case gossip.Left():
                self._farewell.left.set()
            case gossip.FactChanged():
                pass
            case _:
                self._perform_for_jobs(effect)

    def _perform_on_slots(self, effect: tasks.RunBatch | tasks.StopSlot | tasks.EndJob) -> None:
        if isinstance(effect, tasks.RunBatch):
            self.call_blobs.hear(effect)
            self.attempts.hear(effect)
        self.executor.perform(effect)

    def _perform_for_jobs(self, effect: NodeEffect) -> None:
        match effect:
            case election.Persist():
                self.ledger.persist(effect)
            case election.LoadBatches():
                self.ledger.load_batches(effect)
            case election.Bring() | ReadPlan() | KeepBlobs():
                self.bringer.perform(effect)
            case ShedBlobs(blobs=blobs):
                self.bringer.remove(blobs)
            case tasks.JobChanged(job=job, view=view):
                self._on_job(job, view)
            case JobMoved(job=job):
                self.calls.hear(effect)
                self.bulletin.move(job)
                self._farewell.look_whether_idle()
            case ShareFiles(job=job, files=files):
                self.files.allow_files(job, files)
            case JobAccepted() | JobRefused():
                self.orders.answered(effect)
            case tasks.TasksEnded() | tasks.Extended():
                self.calls.hear(effect)
            case tasks.CallBack():
                self.callbacks.perform(effect)
            case tasks.RemoveJob(job=job):
                self.remover.put(job)

    def _on_job(self, job: JobId, view: JobView) -> None:
        self.bulletin.post(job, view)
        if view.phase.over:
            self._farewell.look_whether_idle()
            self.calls.over(job)
            self.bringer.forget(job)
            self.bringer.remove(self.call_blobs.forget(job))
            self.files.forget_job(job)
            self.bulletin.keep(JobId(v.job) for v in self.jobs())

    def _on_fault(self, job: JobId, error: Exception) -> None:
        """A fault of ours in one job costs that job its leader here, and no other job anything."""
        log.error("a fault of p2premap in job %s", short(job), exc_info=error)
        self.warnings.add(
            f"A fault of p2premap ended this node's part in job {short(job)}; please report it: {error!r}"
        )

    def _on_damage(self, text: str) -> None:
        log.warning("opening the ledger anew: %s", text)
        self.warnings.add(text)
        self.end(Ending.REOPEN)

    def _on_clash(self, reason: str) -> None:
        log.warning("taking a new identity: %s", reason)
        self.warnings.add(f"This node took a new identity: {reason}")
        self.end(Ending.NEW_IDENTITY)

    def _answers(self, node: NodeId) -> bool:
        return self.core.is_alive(node)

    def _neighbour_blobs(self, node: NodeId) -> str | None:
        mine, theirs = self.core.capabilities(self.identity.node), self.core.capabilities(node)
        if mine is None or theirs is None or mine.machine != theirs.machine:
            return None
        return theirs.blob_directory or None

    # --- what the desk asks -------------------------------------------------------------------------------------------

    def jobs(self) -> list[JobView]:
        """The jobs that this node leads or led."""
        return [aged(view, self.wall_s()) for view in self.core.job_views(trio.current_time())]

    def led_jobs(self) -> list[JobView]:
        """Those that it leads and that are not over."""
        return [view for view in self.jobs() if self.core.jobs.leads(JobId(view.job)) and not view.phase.over]

    def slots(self) -> int:
        """Worker processes of all living members."""
        return sum(view.slots for view in self.nodes() if view.state == "alive")

    def nodes(self) -> tuple[NodeView, ...]:
        """The members: this node first, then by name."""
        return tuple(self.core.node_views(trio.current_time()))

    def others(self) -> list[NodeView]:
        """The other members that may answer."""
        return [view for view in self.nodes() if not view.me and view.state in ("alive", "stalled", "suspect")]

    def reach(self) -> str:
        """How far this node listens: "loopback" or "network"."""
        return "network" if self.transport.network else "loopback"
