"""One life of one node in a virtual world: a house, its parts exchanged, cut off from everything when it dies."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio

from p2premap.errors import P2PRemapError
from p2premap.gossip import events as gossip
from p2premap.gossip.messages import MESSAGES as GOSSIP_MESSAGES
from p2premap.ids import JobId, NodeId
from p2premap.node.capabilities import Capabilities
from p2premap.node.certificates import KEY_BYTES, issue
from p2premap.node.endings import Ending
from p2premap.node.events import NodeEffect, NodeEvent
from p2premap.node.house import House
from p2premap.node.identity import Identity
from p2premap.node.parts import Parts
from p2premap.node.paths import Paths
from p2premap.node.secret import SECRET_BYTES, ClusterSecret
from p2premap.node.software import Software
from p2premap.node.streams import StreamFrames
from p2premap.ports import FrameReceived, FrameStream, StreamHandler
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.sim.daemon.pipes import Pipe, pair
from p2premap.sim.daemon.shell import (
    VirtualBlobs,
    VirtualDriver,
    VirtualKinds,
    VirtualLedgerStore,
    VirtualLoad,
    VirtualSearch,
    VirtualStager,
    VirtualStore,
    VirtualTransport,
)
from p2premap.sim.daemon.slots import VirtualExecutor
from p2premap.sim.hosts import Life
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.observers import InvariantBroken
from p2premap.tasks.job import StageId
from p2premap.wire import Frame, FrameDecoder, Message

if TYPE_CHECKING:
    from p2premap.sim.daemon.houses import DaemonWorld

SAME_INSTANT_MAX: Final = 50_000
"""So many steps of one node at one instant are no work but a loop."""

_SECRET: Final = ClusterSecret(bytes(SECRET_BYTES))
_NETWORK: Final = (gossip.SendDatagram, gossip.SendLink, gossip.Dial, gossip.Hangup)


@functools.cache
def _credentials() -> object:
    """Nobody looks at them here, and making them costs more than simulating a second."""
    return issue(_SECRET, bytes(KEY_BYTES))


class HouseHost:
    """One life of one node.

    Args:
        daemons: the world.
        seat: the machine.
        life: what it is to run.
    """

    def __init__(self, daemons: DaemonWorld, seat: Seat, life: Life) -> None:
        self.world = daemons.world
        self.seat = seat
        self.node = life.node
        self.life = seat.life
        self.random = life.random
        self.pace = daemons.pace
        self.old = life.old
        self.disk = daemons.disk_of(seat)
        self.ledger = daemons.ledger_of(seat)
        self.fenced = False
        self.serves = False
        self.deliver: Callable[[NodeEvent], None]
        self.scope = trio.CancelScope()
        self._daemons = daemons
        self._early: list[NodeEvent] = []
        self._pipes: list[Pipe] = []
        self._running = trio.Event()
        self._running.set()
        self._door: tuple[StreamHandler, trio.Nursery] | None = None
        self.house = self._build(life)

    def _build(self, life: Life) -> House:
        seat, root = self.seat, self._daemons.directory / f"{self.seat.index}"
        numbers = itertools.count()
        parts = Parts(
            wall_s=lambda: 0.0,
            randomness=lambda size: life.random(f"secrets {next(numbers)}").randbytes(size),
            random=lambda: life.random(f"protocols {next(numbers)}"),
            capabilities=self._capabilities,
            **self._makers(),  # type: ignore[arg-type]  # they stand for classes without being of them
        )
        paths = Paths(root / "config", root / "state", root / "run")
        return House(
            config=self._daemons.config_of(seat),
            user=paths,
            paths=paths,
            secret=_SECRET,
            identity=Identity(
                node=life.node,
                boot=life.boot,
                former=life.former,
                directory=root / f"{seat.identities}",
                credentials=_credentials(),  # type: ignore[arg-type]
                lock=-1,
            ),
            started=self._on_started,
            parts=parts,
        )

    def _makers(self) -> dict[str, object]:
        """Of the parts that are others here."""
        return {
            "store": VirtualStore,
            "ledger": functools.partial(VirtualLedgerStore, self),
            "blobs": functools.partial(VirtualBlobs, self),
            "transport": functools.partial(VirtualTransport, self),
            "stager": functools.partial(VirtualStager, self),
            "executor": functools.partial(VirtualExecutor, self, self._daemons.runtimes, self._daemons.meetings),
            "search": functools.partial(VirtualSearch, self),
            "software": Software,
            "load": VirtualLoad,
            "driver": functools.partial(VirtualDriver, self),
            "kinds": VirtualKinds,
            "door": self._open_door,
        }

    def _capabilities(self, *, slots: int, tags: tuple[str, ...], **_: object) -> Capabilities:
        pid = self.seat.index + 1
        return Capabilities(machine=self.node, slots=slots, cpus=slots, memory_bytes=16 << 30, pid=pid, tags=tags)

    # --- its life -------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Run until the end of this life."""
        with self.scope:
            try:
                ending = await self.house.run()
            except Exception as error:
                if not self.fenced:
                    raise self._broken(error) from error
                return
            if ending is Ending.NEW_IDENTITY and not self.fenced:
                self.world.crash(self.seat)
                self.world.start(self.seat, Disk.LOST)

    def _broken(self, error: BaseException) -> InvariantBroken:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, InvariantBroken):
            return error
        return self.world.broken("daemon", f"{self.seat} ended: {error!r}", self.seat)

    def _on_started(self, _: object) -> None:
        self.serves = True
        for event in self._early:
            self.deliver(event)

    def ended(self, word: str) -> None:
        """The process is gone: nothing that it still does reaches anybody."""
        self.fenced = True
        self.serves = False
        for pipe in self._pipes:
            pipe.process_ended(kernel_speaks=word != "off")
        self.disk.crash(power=word == "off")
        self.ledger.crash(power=word == "off")
        self._running.set()
        self.scope.cancel()

    def stopped(self, stopped: bool) -> None:
        """The process stands still, or runs again."""
        if stopped:
            self._running = trio.Event()
        else:
            self._running.set()

    @property
    def runs(self) -> bool:
        """Whether the process does not stand still."""
        return self._running.is_set()

    async def awake(self) -> None:
        """Wait until the process runs."""
        while not self._running.is_set():
            await self._running.wait()

    # --- p2premap.sim.hosts.Host ----------------------------------------------------------------------------------

    def step(self, now: float, event: object) -> Sequence[object]:
        """The house's own driver takes the step."""
        if self.serves:
            self.deliver(cast(NodeEvent, event))
        else:
            self._early.append(cast(NodeEvent, event))
        return ()

    def deadline(self) -> float:
        """The driver asks trio."""
        return float("inf")

    def perform(self, effect: object) -> None:
        """The house has."""

    def frame(self, sender: NodeId, message: Message) -> object:
        if isinstance(message, GOSSIP_MESSAGES):
            return gossip.Received(sender=sender, address=None, message=message)
        return FrameReceived(peer=sender, frame=Frame(message, b""))

    def check_invariants(self) -> None:
        """`watched` does, after each step."""

    # --- what its parts ask ---------------------------------------------------------------------------------------

    def act(self, effect: object) -> None:
        """Show an effect to the world, which carries it out if it concerns the network."""
        if self.fenced:
            return
        if self.seat.effects_left is not None:
            self.seat.effects_left -= 1
            if self.seat.effects_left < 0:
                self.world.crash(self.seat)
                return
        self.world.act(self.seat, effect)

    def watching(self, perform: Callable[[NodeEffect], None]) -> Callable[[NodeEffect], None]:
        """`perform`, seen by the world; nothing, once the process is gone."""

        def one(effect: NodeEffect) -> None:
            if not isinstance(effect, _NETWORK):
                self.act(effect)
            if not self.fenced:
                perform(effect)

        return one

    def watched(self, core: object) -> _Watched:
        """The core, its invariants checked after each step."""
        return _Watched(self, core)

    def count(self, what: str) -> None:
        """Something has really happened here."""
        self._daemons.counts[what] += 1

    def ran(self, job: JobId, stage: StageId, task: int, begun: float) -> None:
        """An attempt of this task has run to its end here."""
        self._daemons.runs[job, stage.number, task] += 1
        if self._daemons.diary is not None:
            self._daemons.diary.attempt(self.seat, begun, stage.number)

    def worker_crashes(self) -> bool:
        """Whether this attempt ends with its worker process."""
        if self._daemons.crashing[self.seat.index]:
            self._daemons.crashing[self.seat.index] -= 1
            return True
        return False

    @property
    def slow(self) -> bool:
        """Whether its attempts take long."""
        return self.seat.index in self._daemons.slow

    # --- streams --------------------------------------------------------------------------------------------------

    def hold(self, pipe: Pipe) -> None:
        """This process holds this end."""
        self._pipes = [held for held in self._pipes if not held.over]
        self._pipes.append(pipe)

    def serve(self, pipe: Pipe, service: str, peer: NodeId) -> None:
        """A member has opened a stream to this node."""
        self.hold(pipe)
        cast(VirtualTransport, self.house.transport).accept(pipe, service, peer)

    async def _open_door(self, directory: Path, node: NodeId, handler: StreamHandler, nursery: trio.Nursery) -> None:
        self._door = (handler, nursery)

    def visit(self) -> FrameStream | None:
        """A client of this machine connects; None where nobody serves it."""
        if self._door is None or not self.serves:
            return None
        handler, nursery = self._door
        near, far = pair(self.world, self.seat, self.seat)
        self.hold(far)
        frames = StreamFrames(far, peer=None, sends=FROM_DAEMON, decoder=FrameDecoder(FROM_CLIENT), local=True)
        nursery.start_soon(self.guard, handler, frames)
        return StreamFrames(near, peer=None, sends=FROM_CLIENT, decoder=FrameDecoder(FROM_DAEMON))

    async def guard(self, handler: StreamHandler, frames: StreamFrames) -> None:
        """Serve one stream; its trouble is its own."""
        try:
            with contextlib.suppress(P2PRemapError):
                await handler(frames)
        finally:
            await frames.aclose()


class _Watched:
    """A core whose invariants are checked after every step."""

    def __init__(self, host: HouseHost, core: object) -> None:
        self._host = host
        self._core = cast(_Core, core)
        self._at, self._same_instant = 0.0, 0
        self.deadline = self._core.deadline

    def step(self, now: float, event: NodeEvent) -> Sequence[NodeEffect]:
        self._same_instant = self._same_instant + 1 if now == self._at else 0
        self._at = now
        if self._same_instant > SAME_INSTANT_MAX:
            text = f"{self._host.seat} wants the same instant again and again: time does not pass"
            raise self._host.world.broken("time", text, self._host.seat)
        try:
            effects = self._core.step(now, event)
            self._core.check_invariants()
        except AssertionError as error:
            seat = self._host.seat
            raise self._host.world.broken("core", f"{seat} broke its own invariant: {error!r}", seat) from error
        self._host.world.steps += 1
        return effects


class _Core:
    """What is watched."""

    deadline: Callable[[], float]
    step: Callable[[float, NodeEvent], Sequence[NodeEffect]]
    check_invariants: Callable[[], None]
