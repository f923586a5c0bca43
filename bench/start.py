"""From starting three nodes to the first result of a task: what somebody waits who tries it for the first time.

The three processes are started, a client connects to the first that answers, hands in a job of one task, and has its
result. Beside it: until the three see each other; and in the same turns what others take, from starting a dispynode,
`Client()` of Dask and `ray.init()`, with their packages imported already, to the result of a call, on one machine.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from bench import beside
from bench.nodes import Cluster, alive, connect_all, cpu_s, run_job, until
from bench.report import Emitter
from p2premap.client.connection import local
from p2premap.errors import ClusterError

QUICK: Final = {"repeat": 1}
REPEATS = 10
TARGET_S = 0.7
PEERS = ("dispy", "dask", "ray")
JOB = """
def map(key, line):
    yield line, 1
"""


def run(emit: Emitter, *, repeat: int = REPEATS) -> None:
    """Start, run one task, stop; again and again."""
    first: list[float] = []
    together: list[float] = []
    used: list[float] = []
    peers = beside.interpreters(PEERS)
    theirs: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(repeat):
        for peer, python in peers.items():
            if (found := beside.measure("start", peer, python)) is not None:
                theirs[peer].append(found["wall_s"])
        with tempfile.TemporaryDirectory() as directory:
            job, text = Path(directory, "job.py"), Path(directory, "text")
            job.write_text(JOB)
            text.write_text("one line\n")
            start = time.perf_counter()
            cluster = Cluster(["a", "b", "c"], slots=1)
            try:
                cluster.begin()
                _first_result(cluster, str(job), str(text))
                first.append(time.perf_counter() - start)
                lines = connect_all(cluster, ("a", "b", "c"))
                until(lambda: all(alive(line) == 3 for line in lines))  # noqa: B023  (called at once)
                together.append(time.perf_counter() - start)
                used.append(cpu_s(cluster.pids))
                for line in lines:
                    line.close()
            finally:
                cluster.__exit__()
    emit("to the first result", first, "s", target=TARGET_S)
    emit("to three nodes that see each other", together, "s")
    emit("CPU of the nodes until then", used, "s")
    for peer, times in theirs.items():
        if times:
            emit(f"{peer}: to the first result", times, "s")


def _first_result(cluster: Cluster, job: str, text: str) -> None:
    connect = partial(local, paths=cluster.paths)

    def answers() -> bool:
        try:
            connect().close()
        except ClusterError:
            return False
        return True

    until(answers, look_s=0.01)  # looking is work too, on the cores that the nodes start on
    assert run_job(connect, job, [text], paths=cluster.paths) == [b"one line\t1\n"]
