"""A world whose machines run houses: the whole daemon but for sockets, processes and the real disk.

`simulate` makes the world and runs a story in it; the story is an async function that submits jobs, breaks things and
looks at what came of them.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Final, TypeVar

import trio

from p2premap.config import NodeConfig
from p2premap.gossip import events as gossip
from p2premap.ids import JobId, NodeId
from p2premap.sim.checkers import ENDS
from p2premap.sim.daemon import determinism
from p2premap.sim.daemon.clock import TrioClock
from p2premap.sim.daemon.diary import Diary
from p2premap.sim.daemon.host import HouseHost
from p2premap.sim.daemon.meetings import Meetings
from p2premap.sim.daemon.shell import (
    BlobDisk,
)
from p2premap.sim.daemon.slots import Pace, Runtimes
from p2premap.sim.disks import Fault, LedgerDisk
from p2premap.sim.hosts import Host, Life
from p2premap.sim.jobs import Shown
from p2premap.sim.ledgers import Ledgers, SeatAudit
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.observers import InvariantBroken
from p2premap.sim.world import World
from p2premap.wire import Message

T = TypeVar("T")

HINTS: Final = 3
"""Others that a node hears of at its start, as by mDNS; and as many hear of it."""


class DaemonWorld:
    """Nodes 0 to n-1, each a house, none started yet.

    Args:
        nodes: how many.
        seed: of everything.
        directory: for their blobs; empty.
        nursery: lives as long as the world.
        slots: of each.
        network: how good the network is.
        pace: how well attempts run.
        config: of each node; its name and slots are set here.
        replay: the command that repeats this run.
    """

    kinds: tuple[type, ...] = ()

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        directory: Path,
        nursery: trio.Nursery,
        slots: int = 2,
        network: NetworkConfig | None = None,
        pace: Pace | None = None,
        config: NodeConfig | None = None,
        replay: str = "",
    ) -> None:
        clock = TrioClock()
        self.directory = directory
        self.pace = pace or Pace()
        self.runtimes = Runtimes()
        self.meetings = Meetings()
        self.counts: Counter[str] = Counter()
        self.runs: Counter[tuple[JobId, int, int]] = Counter()
        self.slow: set[int] = set()
        self.tags: dict[int, tuple[str, ...]] = {}
        """What the owner of a machine tagged it with; to be set before it starts."""
        self.diary: Diary | None = None
        """Is told of attempts, where somebody keeps one."""
        self._nursery = nursery
        self._slots = slots
        self._config = config or NodeConfig()
        self._disks: dict[int, BlobDisk] = {}
        self._ledgers: dict[NodeId, LedgerDisk] = {}
        self.crashing: Counter[int] = Counter()
        """Attempts that will crash their worker process, by machine."""
        self.world = World(seed=seed, hosts=self._make, network=network, clock=clock, replay=replay)
        self.random: Random = self.world.random("story")
        self.shown = Shown(self.world)
        self.ledgers = Ledgers(self.world, self._unsent)
        self.world.observe(self)
        for _ in range(nodes):
            self.world.add()
        nursery.start_soon(clock.run)

    def config_of(self, seat: Seat) -> NodeConfig:
        """What the owner of this machine asked for."""
        config = self._config
        return NodeConfig(
            name=seat.name,
            slots=self._slots,
            tags=self.tags.get(seat.index, ()),
            gossip=config.gossip,
            tasks=config.tasks,
            election=config.election,
        )

    def disk_of(self, seat: Seat) -> BlobDisk:
        """A machine's disk."""
        if seat.index not in self._disks:
            self._disks[seat.index] = BlobDisk(self.world.random(seat.index, "disk"))
        return self._disks[seat.index]

    def ledger_of(self, seat: Seat) -> LedgerDisk:
        """The disk for the ledger of the identity that this machine has now."""
        if seat.node not in self._ledgers:
            random = self.world.random(seat.node.hex(), "ledger")
            self._ledgers[seat.node] = LedgerDisk(random, SeatAudit(self.ledgers, seat))
        return self._ledgers[seat.node]

    def _unsent(self, seat: Seat) -> Iterable[Message]:
        host = self.host_of(seat)
        return host.house.core.outbox.waiting() if host.serves else ()

    def host_of(self, seat: Seat) -> HouseHost:
        """The process on a machine that runs."""
        assert isinstance(seat.host, HouseHost)
        return seat.host

    def _make(self, life: Life) -> Host:
        host = HouseHost(self, self.world.owners[life.node], life)
        self._nursery.start_soon(host.live)
        return host

    # --- Observer -------------------------------------------------------------------------------------------------

    def effect(self, seat: Seat, effect: object) -> None:
        """Not of interest."""

    def told(self, seat: Seat, event: object) -> None:
        """Not of interest."""

    def fault(self, seat: Seat, word: str) -> None:
        self.counts[word] += 1
        if word in ENDS:
            self.host_of(seat).ended(word)
        elif word in ("pause", "resume"):
            self.host_of(seat).stopped(word == "pause")
        elif word == "start":
            others = [other for other in self.world.live() if other is not seat]
            for other in self.random.sample(others, min(HINTS, len(others))):
                later_s = self.random.uniform(0.005, 0.05)
                for one, two in ((seat, other), (other, seat)):
                    self.world.clock.after(later_s, self.world.hint, one, gossip.Hinted(address=two.address, node=None))

    # --- p2premap.sim.strikes.Target ------------------------------------------------------------------------------

    def start(self, seat: Seat, disk: Disk) -> None:
        """Start a node."""
        self.world.start(seat, disk)

    def set_disk(self, seat: Seat, fault: Fault) -> None:
        """From now on this is wrong with a machine's disk."""
        self.ledger_of(seat).fault = fault

    def set_slow(self, seat: Seat, slow: bool) -> None:
        """Attempts at this machine take long, or do not any more."""
        (self.slow.add if slow else self.slow.discard)(seat.index)

    def crash_workers(self, seat: Seat, count: int) -> None:
        """The next attempts there end with their worker process."""
        self.crashing[seat.index] += count

    # --- stories --------------------------------------------------------------------------------------------------

    async def start_all(self, limit_s: float = 30.0) -> None:
        """Start every node; return when all know all.

        Raises:
            InvariantBroken: `forms`: not within the limit.
        """
        for seat in self.world.seats:
            self.world.start(seat)
            await trio.sleep(0.01)
        await self.until(self._all_know_all, limit_s, "forms", "the nodes do not find each other")

    async def until(self, done: Callable[[], bool], limit_s: float, checker: str, text: str) -> None:
        """Let time pass until `done`.

        Raises:
            InvariantBroken: by the checker's name: not within the limit.
        """
        until = trio.current_time() + limit_s
        while not done():
            if trio.current_time() >= until:
                raise self.world.broken(checker, text)
            await trio.sleep(0.05)

    def _all_know_all(self) -> bool:
        live = self.world.live()
        for seat in live:
            host = self.host_of(seat)
            if not host.serves:
                return False
            views = host.house.core.node_views(trio.current_time())
            if sum(view.slots > 0 and view.state == "alive" for view in views) < len(live):
                return False
        return True


Story = Callable[[DaemonWorld], Awaitable[T]]


def simulate(
    story: Story[T],
    *,
    nodes: int,
    seed: int,
    slots: int = 2,
    network: NetworkConfig | None = None,
    pace: Pace | None = None,
    config: NodeConfig | None = None,
    replay: str = "",
) -> T:
    """Run a story among so many nodes, in virtual time.

    Args:
        story: given the world, no node of which runs yet.

    Raises:
        InvariantBroken: something that must hold did not.
    """

    async def main(directory: str) -> T:
        async with trio.open_nursery() as nursery:
            daemons = DaemonWorld(
                nodes,
                seed=seed,
                directory=Path(directory),
                nursery=nursery,
                slots=slots,
                network=network,
                pace=pace,
                config=config,
                replay=replay,
            )
            told = await story(daemons)
            for seat in daemons.world.seats:
                daemons.world.crash(seat)
            nursery.cancel_scope.cancel()
        return told

    with tempfile.TemporaryDirectory(prefix="p2premap-sim-") as directory:
        try:
            return determinism.run(seed, main, directory)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None


def _first(error: BaseException) -> BaseException:
    """What went wrong, out of the groups that nurseries wrap around it; a broken invariant before all else."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [_first(inner) for inner in error.exceptions]
    return next((inner for inner in found if isinstance(inner, InvariantBroken)), found[0])
