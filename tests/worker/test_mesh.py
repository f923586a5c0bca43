"""Processes of a gang find each other, prove that they belong there, and exchange frames. (Here each is a thread.)"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from p2premap.ids import Address, NodeId
from p2premap.node.gangs import Gangs
from p2premap.node.introduction import introduce, meeting_key
from p2premap.node.secret import ClusterSecret
from p2premap.tasks.meeting import Meeting
from p2premap.worker import mesh as meshes
from p2premap.worker.gang import PeerLost
from p2premap.worker.mesh import Mesh, MeshGang

SECRET = ClusterSecret(b"s" * 32)
ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)


class Machine:
    """A node without a daemon around it: doors in a directory, and an address that passes on to them.

    Args:
        node: its id.
        directory: of its doors.
        where: the addresses of all nodes.
        neighbours: nodes on the same machine.
    """

    def __init__(self, node: NodeId, directory: Path, where: dict[NodeId, Address], *neighbours: NodeId) -> None:
        directory.mkdir(exist_ok=True)
        self.secret = SECRET
        self.passed = 0
        self.gangs = Gangs(
            me=node,
            secrets=lambda: (self.secret,),
            directory=lambda: directory,
            addresses_of=lambda other: (where[other],) if other in where else (),
            is_neighbour=lambda other: other in neighbours,
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = where[node] = Address("127.0.0.1", self._listener.getsockname()[1])
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._listener.setblocking(False)
        self._ready.set()
        with self._scope:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
            await trio.serve_listeners(self._one, [listener])

    async def _one(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(60.0):
            if await self.gangs.serve(stream):
                self.passed += 1
        await trio.aclose_forcefully(stream)

    def close(self) -> None:
        """Serve no more."""
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()


class Meshes:
    """The processes of a gang, and the machines that they are on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.where: dict[NodeId, Address] = {}
        self.machines: dict[NodeId, Machine] = {}
        self.meshes: dict[int, Mesh] = {}

    def machine(self, node: NodeId, *neighbours: NodeId, at: str = "") -> Machine:
        made = Machine(node, self.directory / (at or node.decode()[:1]), self.where, *neighbours)
        self.machines[node] = made
        return made

    def meet(self, name: bytes, *seats: NodeId, late_s: float = 0.0) -> list[MeshGang]:
        """All of them meet; the first one late."""
        places = tuple((node, (seat,)) for seat, node in enumerate(seats))
        # a daemon makes them in one thread: the first one clears away doors of a former life, not of this meeting
        tables = [
            self.machines[node].gangs.table(Meeting(id=name, seats=places, seat=seat))
            for seat, node in enumerate(seats)
        ]

        def one(seat: int) -> MeshGang:
            if not seat:
                time.sleep(late_s)
            return self.meshes.setdefault(seat, Mesh(str(self.directory))).meet(tables[seat])

        return together([partial(one, seat) for seat in range(len(seats))])

    def close(self) -> None:
        for mesh in self.meshes.values():
            mesh.close()
        for machine in self.machines.values():
            machine.close()


def together(calls: list[Callable[[], object]]) -> list:
    """What all of these return, made at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(100) for future in [pool.submit(call) for call in calls]]


@pytest.fixture
def gang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meshes]:
    import tempfile

    monkeypatch.setattr(meshes, "MEET_S", 60.0)
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as directory:
        made = Meshes(Path(directory))
        yield made
        made.close()


def try_out(gangs: list[MeshGang], seed: int = 1, exchanges: int = 5) -> None:
    """Frames of all sizes, between all."""
    random = Random(seed)
    count = len(gangs)
    for _ in range(exchanges):
        frames = [[random.randbytes(random.choice((0, 8, 3000, 200_000))) for _ in range(count)] for _ in range(count)]
        words = [[[frame] for frame in said] for said in frames]
        came = together([partial(gangs[n].exchange, words[n]) for n in range(count)])
        for to in range(count):
            assert [bytes(c) for c in came[to]] == [b"" if of == to else frames[of][to] for of in range(count)]


def test_one_process_has_nobody_to_talk_to(gang: Meshes) -> None:
    gang.machine(ONE)
    (alone,) = gang.meet(b"m" * 16, ONE)
    assert (alone.seat, alone.seats, alone.meeting) == (0, ((0,),), b"m" * 16)
    assert alone.exchange([[b"to myself"]]) == [b""]


def test_on_one_machine_they_talk_through_doors(gang: Meshes) -> None:
    gang.machine(ONE)
    gangs = gang.meet(b"m" * 16, ONE, ONE, ONE)
    try_out(gangs)
    assert gang.machines[ONE].passed == 0
    assert list((gang.directory / "1").iterdir()) == [], "doors are closed behind them"


def test_two_machines_talk_by_tcp_that_the_daemons_pass_on(gang: Meshes) -> None:
    gang.machine(ONE)
    gang.machine(TWO)
    gangs = gang.meet(b"m" * 16, ONE, TWO, ONE, TWO, late_s=0.3)
    try_out(gangs)
    assert gang.machines[ONE].passed + gang.machines[TWO].passed >= 4
    line = gang.meshes[0]._lines[1]
    assert line._seal is not None
    assert gang.meshes[0]._lines[2]._seal is None


def test_two_nodes_of_one_machine_need_no_network(gang: Meshes) -> None:
    gang.machine(ONE, TWO, at="run")
    gang.machine(TWO, ONE, at="run")
    gang.where.clear()  # who is late is looked for there, too
    try_out(gang.meet(b"m" * 16, ONE, TWO))
    assert gang.machines[ONE].passed + gang.machines[TWO].passed == 0


def test_neighbours_without_a_common_directory_use_the_network(gang: Meshes) -> None:
    gang.machine(ONE, TWO)
    gang.machine(TWO, ONE)
    try_out(gang.meet(b"m" * 16, ONE, TWO))


def test_who_cannot_be_dialled_dials(gang: Meshes) -> None:
    gang.machine(ONE)
    gang.machine(TWO)
    gang.where[TWO] = Address("127.0.0.1", 1)  # nobody listens there
    try_out(gang.meet(b"m" * 16, ONE, TWO))
    gang.where[TWO], gang.where[ONE] = gang.machines[TWO].address, Address("127.0.0.1", 1)
    try_out(gang.meet(b"n" * 16, TWO, ONE))


def test_the_next_meeting_of_the_same_seats_uses_the_lines_that_are_there(gang: Meshes) -> None:
    gang.machine(ONE)
    gang.machine(TWO)
    first = gang.meet(b"m" * 16, ONE, TWO)
    try_out(first)
    lines = dict(gang.meshes[0]._lines)
    second = gang.meet(b"n" * 16, ONE, TWO)
    assert second[0].meeting == b"n" * 16
    assert gang.meshes[0]._lines == lines
    try_out(second)


def test_another_roster_makes_new_lines(gang: Meshes) -> None:
    gang.machine(ONE)
    gang.meet(b"m" * 16, ONE, ONE)
    lines = dict(gang.meshes[0]._lines)
    gangs = gang.meet(b"n" * 16, ONE, ONE, ONE)
    assert gang.meshes[0]._lines[1] is not lines[1]
    try_out(gangs)


def test_a_process_that_was_replaced_is_met_anew(gang: Meshes) -> None:
    gang.machine(ONE)
    gang.machine(TWO)
    gang.meet(b"m" * 16, ONE, TWO, TWO)
    gang.meshes.pop(1).close()
    try_out(gang.meet(b"n" * 16, ONE, TWO, TWO))


def test_who_leaves_is_lost_to_all_others(gang: Meshes) -> None:
    gang.machine(ONE)
    gangs = gang.meet(b"m" * 16, ONE, ONE, ONE)
    gang.meshes[1].close()
    for seat in (0, 2):
        with pytest.raises(PeerLost) as lost:
            gangs[seat].exchange([[b""]] * 3)
        assert lost.value.seat in {0, 1, 2} - {seat}
        gang.meshes[seat].close()


def test_who_never_comes_is_lost(gang: Meshes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "MEET_S", 0.3)
    machine = gang.machine(ONE)
    table = machine.gangs.table(Meeting(id=b"m" * 16, seats=((ONE, (0,)), (ONE, (1,))), seat=0))
    with pytest.raises(PeerLost, match="seat 1 of the gang is gone: it cannot be reached"):
        Mesh(str(gang.directory)).meet(table)
    assert list((gang.directory / "1").iterdir()) == []


def test_who_does_not_know_the_secret_gets_nowhere(gang: Meshes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "MEET_S", 0.5)
    gang.machine(ONE)
    gang.machine(TWO).secret = ClusterSecret(b"t" * 32)
    with pytest.raises(PeerLost):
        gang.meet(b"m" * 16, ONE, TWO)
    assert gang.machines[ONE].passed + gang.machines[TWO].passed == 0


def test_a_recorded_introduction_is_of_no_use(gang: Meshes) -> None:
    """Somebody who has heard one on the wire says it again, and cannot go on."""
    machine = gang.machine(ONE)
    gang.machine(TWO)
    meeting = b"m" * 16
    heard = introduce(meeting_key(SECRET.value, meeting), meeting, 1, 0, os.urandom(32))
    places = ((ONE, (0,)), (TWO, (1,)))
    tables = [
        gang.machines[node].gangs.table(Meeting(id=meeting, seats=places, seat=n)) for n, (node, _) in enumerate(places)
    ]

    def early() -> MeshGang:
        gang.meshes[0] = Mesh(str(gang.directory))
        return gang.meshes[0].meet(tables[0])

    def late() -> MeshGang:
        with socket.create_connection((machine.address.host, machine.address.port)) as stranger:
            stranger.sendall(heard)
            assert len(stranger.recv(64)) > 0, "it is answered"
            stranger.sendall(os.urandom(300))
            gang.meshes[1] = Mesh(str(gang.directory))
            return gang.meshes[1].meet(tables[1])

    try_out(together([early, late]))


def test_noise_at_the_door_keeps_nobody_out(gang: Meshes) -> None:
    machine = gang.machine(ONE)
    meeting, places = b"m" * 16, ((ONE, (0,)), (ONE, (1,)))
    tables = [machine.gangs.table(Meeting(id=meeting, seats=places, seat=n)) for n in (0, 1)]

    def noisy() -> MeshGang:
        gang.meshes[0] = Mesh(str(gang.directory))
        return gang.meshes[0].meet(tables[0])

    def late() -> MeshGang:
        for noise in (b"", b"x", b"\x00" * 400):
            while True:
                with socket.socket(socket.AF_UNIX) as stranger:
                    try:
                        stranger.connect(tables[0].path)
                    except OSError:
                        continue
                    stranger.sendall(noise)
                    break
        gang.meshes[1] = Mesh(str(gang.directory))
        return gang.meshes[1].meet(tables[1])

    try_out(together([noisy, late]))
