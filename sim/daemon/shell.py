"""What a house is built from in a virtual world, in place of sockets, mDNS, SQLite and the operating system."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from p2premap.election.records import Stored, StoredBatch, StoredRecord
from p2premap.errors import PeerUnreachable
from p2premap.gossip import events as gossip
from p2premap.gossip.events import MemberState
from p2premap.ids import Address, Ballot, Boot, Digest, JobId, NodeId, starts_of
from p2premap.node.blobs import BlobStore, StoreUnwritable, Writer
from p2premap.node.bulk import BULK
from p2premap.node.driver import Driver
from p2premap.node.events import NodeEffect, NodeEvent
from p2premap.node.jobs import MakeDirector
from p2premap.node.kinds import Kinds
from p2premap.node.ledger_store import LedgerUnwritable
from p2premap.node.load import MachineLoad
from p2premap.node.staging import Stager
from p2premap.node.streams import StreamFrames
from p2premap.ports import FrameStream, StreamHandler
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.sim.daemon.pipes import Pipe, pair
from p2premap.sim.disks import FULL, Fault
from p2premap.sim.machines import Power
from p2premap.sim.workloads import KIND, ShapeDirector
from p2premap.sim.world import World
from p2premap.tasks.job import BlobRef, Source
from p2premap.tasks.mapreduce import KIND as MAPREDUCE
from p2premap.tasks.mapreduce import MapReduce
from p2premap.vertex.director import VertexDirector
from p2premap.vertex.plan import KIND as VERTEX
from p2premap.wire import FrameDecoder, Message, Registry
from p2premap.worker.runtime import Segment

if TYPE_CHECKING:
    from p2premap.sim.daemon.host import HouseHost

DIAL_S: Final = 3.0
LOOK_AGAIN_S: Final = 0.1


class VirtualTransport:
    """A `p2premap.ports.Transport` over a world.

    Args:
        host: whose.
        arguments: those of `p2premap.node.transport.TrioTransport` that matter here.
    """

    def __init__(
        self,
        host: HouseHost,
        *,
        deliver: Callable[[NodeEvent], None],
        serve_control: StreamHandler,
        serve_bulk: StreamHandler,
        **_: object,
    ) -> None:
        self.network = True
        self.port = host.seat.address.port
        self._host = host
        self._world: World = host.world
        self._serve = {"control": serve_control, "bulk": serve_bulk}
        self._nursery: trio.Nursery | None = None
        host.deliver = deliver

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve streams until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where this machine is."""
        return (self._host.seat.address,)

    @property
    def local_addresses(self) -> tuple[Address, ...]:
        """The same."""
        return self.addresses

    def open_to_network(self) -> None:
        """It always is."""

    def send_datagram(self, peer: NodeId, address: Address, message: Message) -> None:
        """See `p2premap.ports.Transport`."""
        self._host.act(gossip.SendDatagram(peer=peer, address=address, message=message))

    def send_link(self, peer: NodeId, message: Message, payload: bytes = b"") -> bool:
        """See `p2premap.ports.Transport`."""
        self._host.act(gossip.SendLink(peer=peer, message=message))
        return True

    def dial(self, dial: int, address: Address, *, keep: bool, timeout_s: float) -> None:
        """See `p2premap.ports.Transport`."""
        self._host.act(gossip.Dial(dial=dial, address=address, keep=keep, timeout_s=timeout_s))

    def hangup(self, peer: NodeId) -> None:
        """See `p2premap.ports.Transport`."""
        self._host.act(gossip.Hangup(peer=peer))

    async def open_control(self, peer: NodeId) -> FrameStream:
        """See `p2premap.ports.Transport`."""
        return await self._open(peer, "control", FROM_CLIENT, FROM_DAEMON)

    async def open_bulk(self, peer: NodeId) -> FrameStream:
        """See `p2premap.ports.Transport`."""
        return await self._open(peer, "bulk", BULK, BULK)

    def heard(self, peer: NodeId) -> bool:
        """Whether a datagram of it has come: here, whether it could."""
        return True

    def statistics(self) -> Mapping[str, int]:
        """A snapshot."""
        return {"port": self.port}

    async def _open(self, peer: NodeId, service: str, sends: Registry, hears: Registry) -> FrameStream:
        with trio.move_on_after(DIAL_S):
            while (host := self._reach(peer)) is None:  # noqa: ASYNC110  (as TCP tries again)
                await trio.sleep(LOOK_AGAIN_S)
            near, far = pair(self._world, self._host.seat, host.seat)
            self._host.hold(near)
            host.serve(far, service, self._host.node)
            await trio.sleep(3 * self._world.network.delay_s(self._host.seat, host.seat))
            return StreamFrames(near, peer=peer, sends=sends, decoder=FrameDecoder(hears))
        raise PeerUnreachable(f"Node {peer.hex()[:8]} does not answer.")

    def _reach(self, peer: NodeId) -> HouseHost | None:
        """The peer's process, where packets go both ways and somebody answers.

        Raises:
            PeerUnreachable: its machine says that no such process runs.
        """
        from p2premap.sim.daemon.host import HouseHost

        seat, me = self._world.owners.get(peer), self._host.seat
        network = self._world.network
        if seat is None or not network.reaches(me, seat) or not network.reaches(seat, me) or network.lost():
            return None
        if seat.power is Power.STOPPED or seat.node != peer:
            raise PeerUnreachable(f"Node {peer.hex()[:8]} refuses.")
        host = seat.host
        return host if isinstance(host, HouseHost) and host.serves and not seat.frozen else None

    def accept(self, stream: Pipe, service: str, peer: NodeId) -> None:
        """Another member has opened a stream to this node."""
        hears, says = (FROM_CLIENT, FROM_DAEMON) if service == "control" else (BULK, BULK)
        frames = StreamFrames(stream, peer=peer, sends=says, decoder=FrameDecoder(hears))
        assert self._nursery is not None
        self._nursery.start_soon(self._host.guard, self._serve[service], frames)


class VirtualSearch:
    """A `p2premap.node.search.Search` that hears of others from the world."""

    def __init__(self, host: HouseHost, *, me: NodeId, **_: object) -> None:
        self._me = me
        self._where: dict[NodeId, tuple[Address, ...]] = {}
        self.discovery = self

    async def run(self) -> None:
        """The world gives hints by itself."""

    def on_member(self, member: gossip.MemberChanged) -> None:
        """Somebody came, moved or went."""
        if member.state not in (MemberState.DEAD, MemberState.LEFT):
            self._where[member.node] = member.addresses

    def addresses_of(self, node: NodeId) -> tuple[Address, ...]:
        """Where a member may be dialled."""
        return self._where.get(node, ())

    def remember(self) -> None:
        """Nothing is written down."""

    def met_foreign(self, seen: object) -> None:
        """There are no others."""

    def foreign(self) -> tuple[()]:
        """None."""
        return ()

    def warnings(self) -> tuple[()]:
        """None."""
        return ()

    def statistics(self) -> Mapping[str, int]:
        """Nothing is counted."""
        return {}


class VirtualLedgerStore:
    """A `p2premap.node.ledger_store.LedgerStore` on a disk that may be full, and may forget.

    Args:
        host: whose.
        path, boot: as there.
    """

    warning = ""

    def __init__(self, host: HouseHost, path: Path, boot: Boot) -> None:
        self._host = host
        self._disk = host.ledger
        self._found = self._disk.boot(starts_of(boot), old=host.old)

    def load(self) -> Stored:
        """See there."""
        return self._found.stored()

    def batches(self, job: JobId, beyond: Mapping[Ballot, int]) -> tuple[StoredBatch, ...]:
        """See there."""
        return self._disk.batches(job, beyond)

    def write(self, records: Iterable[StoredRecord], *, sync: bool) -> None:
        """See there."""
        if self._host.fenced or self._disk.fault is Fault.FULL:
            raise LedgerUnwritable(FULL)
        self._disk.commit(tuple(records), sync=sync)

    def close(self) -> None:
        """Nothing to do."""


class VirtualStore:
    """A `p2premap.node.store.Store` that remembers nobody."""

    warning = ""

    def __init__(self, path: Path) -> None:
        pass

    def close(self) -> None:
        """Nothing to do."""


class VirtualLoad:
    """A `p2premap.node.load.LoadSampler` of a machine at rest."""

    def look(self) -> MachineLoad:
        """The load now."""
        return MachineLoad(0.1, 8 << 30, on_battery=False)


class VirtualKinds(Kinds):
    """The built-in kinds of jobs, and the simulator's own."""

    _own: Final[Mapping[str, MakeDirector]] = {
        KIND: ShapeDirector,
        MAPREDUCE: MapReduce,
        VERTEX: VertexDirector,
    }

    def __getitem__(self, kind: str) -> MakeDirector:
        return self._own[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


class VirtualDriver(Driver[NodeEvent, NodeEffect]):
    """The real driver, of a process that a world may stop, and whose every effect it sees."""

    def __init__(
        self,
        host: HouseHost,
        core: object,
        perform: Callable[[NodeEffect], None],
        *,
        tick: NodeEvent,
        woke: Callable[[float], NodeEvent],
        may_drop: Callable[[NodeEvent], bool],
    ) -> None:
        super().__init__(host.watched(core), host.watching(perform), tick=tick, woke=woke, may_drop=may_drop)
        self._host = host

    @property
    def at_work(self) -> bool:
        return self._host.runs

    async def _wait(self) -> None:
        await super()._wait()
        await self._host.awake()


class VirtualStager(Stager):
    """The real stager, on a machine that has the input files of the jobs that were handed in there, and no others."""

    def __init__(
        self,
        host: HouseHost,
        *,
        me: NodeId,
        blobs: BlobStore,
        open_bulk: Callable[[NodeId], Awaitable[FrameStream]],
        neighbour_blobs: Callable[[NodeId], str | None],
        answers: Callable[[NodeId], bool],
    ) -> None:
        super().__init__(me=me, blobs=blobs, open_bulk=open_bulk, neighbour_blobs=neighbour_blobs, answers=answers)
        self._host = host

    def _locate(self, source: Source, neighbours: Mapping[NodeId, str | None], *, doubtful: bool) -> Segment | None:
        if source.path and source.blob is None and source.path not in self._host.house.files:
            return self._locate_checked(source) if doubtful else self._fetched_copy(source)
        return super()._locate(source, neighbours, doubtful=doubtful)

    def _keep_local(self, source: Source, neighbours: Iterable[str], *, durable: bool) -> bool:
        if source.path and source.blob is None and source.path not in self._host.house.files:
            source = msgspec.structs.replace(source, path="")
        return super()._keep_local(source, neighbours, durable=durable)


class VirtualBlobs(BlobStore):
    """A real store in a directory of its own, which a world can fill, fence, and take the power from.

    Args:
        host: whose.
    """

    def __init__(self, host: HouseHost, directory: Path) -> None:
        super().__init__(directory)
        self._host = host

    def writer(self, *, durable: bool = False) -> Writer:
        if self._host.fenced:
            raise StoreUnwritable("This process is gone.")
        if self._host.ledger.fault is Fault.FULL:
            raise StoreUnwritable(f"Cannot write to {self._host.seat.name}: the disk is full.")
        return _Noted(self, self._host.disk, self._host.life, durable=durable)


class _Noted(Writer):
    """A writer whose blob the power may take as long as it is not synced."""

    def __init__(self, store: BlobStore, disk: BlobDisk, life: int, *, durable: bool) -> None:
        name = f"{life}-{next(store._numbers)}"
        super().__init__(store.directory, f"{store.directory}/tmp/{name}", durable=False)  # noqa: S108  (its own)
        self._disk = disk
        self._noted = not durable

    def finish(self, expected: Digest | None = None) -> BlobRef:
        ref = super().finish(expected)
        if self._noted:
            self._disk.unsynced.append(f"{self._directory}/{ref.digest.hex()[:2]}/{ref.digest.hex()}")
        return ref


class BlobDisk:
    """The part of a machine's disk that holds blobs, over all lives of its node.

    Args:
        random: decides what a loss of power takes.
    """

    def __init__(self, random: Random) -> None:
        self.unsynced: list[str] = []
        self.torn = 0
        """Blobs that a loss of power has cut short or taken."""
        self._random = random

    def crash(self, *, power: bool) -> None:
        """The process is gone; with the power, what was not synced may be gone, or be there in part."""
        if power:
            for path in self._some(self.unsynced):
                self._tear(Path(path))
        self.unsynced.clear()

    def _some(self, paths: Sequence[str]) -> Iterable[str]:
        return [path for path in paths if self._random.random() < 0.5]

    def _tear(self, path: Path) -> None:
        if not path.exists():
            return
        self.torn += 1
        if self._random.random() < 0.5:
            path.unlink()
        else:
            data = path.read_bytes()
            path.write_bytes(data[: self._random.randint(0, len(data))])
