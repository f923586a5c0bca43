"""The exchange of a gang of two processes: nothing at all, and frames of 8 MB, by Unix socket and sealed over TCP.

Each has the worker's half (`p2premap.worker.mesh`) in a process of its own; between "machines" the connection goes
through the daemon's half (`p2premap.node.gangs`), on loopback.
"""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import trio

from bench.report import Emitter
from p2premap.ids import Address, NodeId
from p2premap.node.gangs import Gangs
from p2premap.node.secret import ClusterSecret
from p2premap.tasks.meeting import Meeting
from p2premap.worker.mesh import Mesh

QUICK: Final = {"repeat": 1, "empty": 50, "large": 2}
NODES = NodeId(b"1" * 16), NodeId(b"2" * 16)
SECRET = ClusterSecret(b"s" * 32)
MEETING = b"m" * 16
EMPTY = 2_000
EMPTY_MS = 0.5
LARGE = 20
LARGE_BYTES = 8 << 20
REPEATS = 5


def seat(
    number: int, directory: str, address: Address | None, results: Connection, times: tuple[int, int, int]
) -> None:
    """One process: tells the seconds of an empty exchange, and the bytes a second of large ones, several times.

    Args:
        times: how often in all, and each time so many empty ones and large ones.
    """
    mesh = Mesh(directory)
    gang = mesh.meet(gangs_of(number, Path(directory), address).table(meeting(number)))
    body = bytes(LARGE_BYTES)
    repeat, empty, large = times
    for _ in range(repeat):
        empty_s = timed(lambda: gang.exchange([(), ()]), empty)
        large_s = timed(lambda: gang.exchange([(body,), (body,)]), large)
        results.send((empty_s, LARGE_BYTES / large_s))
    mesh.close()


def timed(call: object, times: int) -> float:
    """Seconds of one call."""
    assert callable(call)
    call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def meeting(number: int) -> Meeting:
    """The two of them."""
    return Meeting(id=MEETING, seats=tuple((node, (place,)) for place, node in enumerate(NODES)), seat=number)


def gangs_of(number: int, directory: Path, address: Address | None) -> Gangs:
    """A daemon's half; with an address the other node is on another machine, and is there."""
    return Gangs(
        me=NODES[number],
        secrets=lambda: (SECRET,),
        directory=lambda: directory,
        addresses_of=lambda node: () if address is None else (address,),
        is_neighbour=lambda node: address is None,
    )


@contextmanager
def passed_on(directory: Path) -> Iterator[Address]:
    """The second node's port, whose connections go to its process."""
    listener = socket.create_server(("127.0.0.1", 0))
    scope, started = trio.CancelScope(), threading.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve_one(stream: trio.SocketStream) -> None:
        with trio.move_on_after(5.0):
            await gangs_of(1, directory, None).serve(stream)
        await trio.aclose_forcefully(stream)

    async def serve() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        started.set()
        with scope:
            await trio.serve_listeners(serve_one, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])

    listener.setblocking(False)
    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    started.wait()
    try:
        yield Address("127.0.0.1", listener.getsockname()[1])
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        thread.join()


def measure(directory: str, address: Address | None, times: tuple[int, int, int]) -> Sequence[tuple[float, float]]:
    """What two processes tell, each time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    processes = [
        context.Process(target=seat, args=(number, directory, address, theirs, times), daemon=True)
        for number in range(2)
    ]
    try:
        for process in processes:
            process.start()
        told = [ours.recv() for _ in range(2 * times[0])]
    except BaseException:
        for process in processes:
            process.kill()
        raise
    for process in processes:
        process.join()
    return told


def run(emit: Emitter, *, repeat: int = REPEATS, empty: int = EMPTY, large: int = LARGE) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as directory, passed_on(Path(directory)) as address:
        for name, where in (("Unix", None), ("TCP, sealed", address)):
            told = measure(directory, where, (repeat, empty, large))
            emit(f"{name}: an empty exchange", [1e3 * empty_s for empty_s, _ in told], "ms", target=EMPTY_MS)
            emit(f"{name}: 8 MB each way", [rate / 1e6 for _, rate in told], "MB/s each way")
