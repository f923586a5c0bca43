"""Real nodes on this machine for benchmarks, and what they cost: CPU seconds and memory of whole process trees."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import psutil

from p2premap.client.connection import Connection, local
from p2premap.client.jobs import Connect
from p2premap.client.plan import plan_mapreduce
from p2premap.client.private import START_S, STOP_S, PrivateCluster
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.errors import ClusterError
from p2premap.node.paths import Paths
from p2premap.tasks.job import Part, Phase


class Cluster(PrivateCluster):
    """A private cluster to which nodes can be added, and from which they can be taken."""

    def begin(self) -> None:
        """Start the processes and wait for nothing."""
        self._home = tempfile.mkdtemp(prefix="p2p-", dir="/tmp")
        for name in self._names:
            self._processes.append(self._start(name))

    def add(self, name: str) -> None:
        """Start one more node; returns when it says that it is up."""
        process = self._start(name)
        self._processes.append(process)
        self._await_start(name, process, time.monotonic() + START_S)

    def remove_last(self) -> None:
        """End the node that was added last in good order."""
        process = self._processes.pop()
        process.terminate()
        process.wait(STOP_S)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


class Parts:
    """Takes a job's output and keeps it."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """One part."""
        data = self.parts[part.number] = b"".join(pieces)
        return len(data)


def run_job(connect: Connect, job_file: str, inputs: Sequence[str], *, paths: Paths) -> list[bytes]:
    """Plan, hand in, watch, and collect, as `p2premap run` does; the output parts in order.

    Raises:
        RuntimeError: the job did not end well.
    """
    with connect() as connection:
        power = strength(connection, paths)
        compression = "none" if power.one_machine else "zlib"
        submission = plan_mapreduce(job_file, inputs, slots=power.slots, compression=compression)
    parts = Parts()
    job = hand_in(connect, submission)
    view = see_through(connect, job, Collector(connect, parts), lambda _: None, lambda: None, known=True)
    if view.phase is not Phase.DONE:
        raise RuntimeError(f"the job is {view.phase.value}: {view.error}")
    return [parts.parts[number] for number in sorted(parts.parts)]


def trees(pids: Iterable[int]) -> list[psutil.Process]:
    """These processes and all their descendants that live now."""
    found: list[psutil.Process] = []
    for pid in pids:
        try:
            one = psutil.Process(pid)
            found += [one, *one.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these process trees so far, those of ended children included."""
    total = 0.0
    for process in trees(pids):
        try:
            times = process.cpu_times()
            total += times.user + times.system
            if process.pid in pids:
                total += times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of these process trees: shared pages are divided among those who share them."""
    return sum(process.memory_full_info().pss for process in trees(pids))


def until(condition: Callable[[], bool], *, limit_s: float = 60.0, look_s: float = 0.002) -> float:
    """Wait for a condition; seconds it took.

    Raises:
        TimeoutError: it did not come true in time.
    """
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > limit_s:
            raise TimeoutError("the benchmark waited in vain")
        time.sleep(look_s)
    return time.perf_counter() - start


def members(connection: Connection) -> tuple[NodeView, ...]:
    """The members as one node sees them."""
    return connection.ask(lambda n: ListNodes(request=n), Nodes).views


def alive(connection: Connection) -> int:
    """How many of them live, as one node sees it."""
    return sum(view.state == "alive" for view in members(connection))


def connect_all(cluster: PrivateCluster, names: Iterable[str]) -> list[Connection]:
    """A connection to each of these nodes, as soon as it answers."""
    return [_connect(cluster, name) for name in names]


def _connect(cluster: PrivateCluster, name: str) -> Connection:
    found: list[Connection] = []

    def answers() -> bool:
        with contextlib.suppress(ClusterError):
            found.append(local(name, paths=cluster.paths))
        return bool(found)

    until(answers)
    return found[0]
