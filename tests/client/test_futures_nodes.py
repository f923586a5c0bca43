"""Futures on real nodes: calls, exceptions, large values, workers that die, nodes that are killed, no node at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

import pytest

import p2premap
import tests.cluster
from p2premap.client.cluster import Cluster
from p2premap.client.connection import local
from p2premap.client.private import PrivateCluster
from p2premap.control.jobs import Jobs, JobUpdate, ListJobs, Watch
from p2premap.errors import CallFailed, JobError
from p2premap.tasks.job import Phase
from tests.cluster import environment, eventually, private

MODULE = "def triple(x):\n    return 3 * x\n\nclass Odd(Exception):\n    pass\n"
SCRIPT = """\
import sys
import p2premap
import helper


class Point:
    def __init__(self, x):
        self.x = x


def move(point, by):
    return Point(point.x + by)


def fail(x):
    raise helper.Odd(x)


if __name__ == "__main__":
    with p2premap.connect() as cluster:
        moved = cluster.submit(move, Point(1), by=2).result(60)
        assert isinstance(moved, Point) and moved.x == 3
        assert list(cluster.map(helper.triple, range(100))) == [3 * n for n in range(100)]
        try:
            cluster.submit(fail, 7).result(60)
        except helper.Odd as error:
            assert error.args == (7,) and "raise helper.Odd(x)" in str(error.__cause__)
        else:
            sys.exit("no exception")
        print("fine", [f.result() for f in p2premap.as_completed([cluster.submit(lambda: 5)])])
"""


def add(x: int, y: int = 1) -> int:
    return x + y


@pytest.fixture(scope="module")
def cluster(three_nodes: PrivateCluster) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PREMAP_HOME", three_nodes.home)
        with p2premap.connect() as cluster:
            yield cluster


def test_calls_on_three_nodes(cluster: Cluster, tmp_path: Path) -> None:
    fs = [cluster.submit(add, n, y=2) for n in range(1_000)]
    assert [f.result(60) for f in fs] == [n + 2 for n in range(1_000)]
    assert sum(cluster.map(add, range(20_000))) == sum(range(1, 20_001))
    together = [cluster.submit(_meet, str(tmp_path)) for _ in range(12)]
    assert min(f.result(60) for f in together) >= 2, "nodes share the work"


def _meet(directory: str) -> int:
    """Wait until this runs on another node, too."""
    Path(directory, str(os.getppid())).touch()
    while (nodes := len(os.listdir(directory))) < 2:
        time.sleep(0.01)
    return nodes


def test_large_values_travel_between_nodes(cluster: Cluster) -> None:
    data = os.urandom(300_000)
    fs = [cluster.submit(_turned, data) for _ in range(6)]
    assert all(f.result(60) == data[::-1] for f in fs)


def _turned(data: bytes) -> bytes:
    time.sleep(0.05)
    return data[::-1]


def test_a_worker_that_dies_is_that_calls_failure(cluster: Cluster) -> None:
    bad = cluster.submit(os._exit, 3)
    good = [cluster.submit(add, n) for n in range(10)]
    with pytest.raises(CallFailed, match="exited with code 3"):
        bad.result(60)
    assert [f.result(60) for f in good] == list(range(1, 11))


def test_a_running_call_is_stopped_when_it_is_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    future = cluster.submit(_write_and_wait, str(mark))
    pid = int(eventually(lambda: mark.exists() and mark.read_text()))
    assert future.cancel()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert cluster.submit(add, 1).result(60) == 2


def _write_and_wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def test_a_function_that_names_the_cluster_uses_it_where_it_runs(cluster: Cluster) -> None:
    def more(other: Cluster, n: int) -> int:
        return cluster.submit(add, n).result() + sum(other.map(add, range(n)))

    assert cluster.submit(more, cluster, 3).result(60) == 4 + 6
    with cluster.connection() as connection:
        names = [view.name for view in connection.ask(lambda n: ListJobs(request=n), Jobs).views]
    assert "calls within calls" in names


def test_a_block_that_an_exception_leaves_waits_for_no_call(
    three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    with suppress(KeyboardInterrupt), p2premap.connect() as cluster:
        fs = [cluster.submit(time.sleep, 600) for _ in range(20)]
        after = cluster.submit(add, fs[0])
        results = cluster.map(time.sleep, [600] * 20)
        eventually(lambda: cluster._line.count().under_way > 3)
        raise KeyboardInterrupt
    assert all(future.cancelled() for future in (*fs, after))
    with pytest.raises(CancelledError):
        next(results)


def test_a_script_and_its_modules(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(MODULE)
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=environment(three_nodes.home),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "fine [5]\n"), ended.stderr


def test_without_a_node_one_is_started_for_the_program(home: Path) -> None:
    said: list[str] = []
    with p2premap.connect(slots=1, told=said.append) as cluster:
        assert cluster.submit(add, 1).result(60) == 2
    assert ["private" in text for text in said] == [True]


def test_results_and_values_go_from_node_to_node(three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    with p2premap.connect() as cluster:
        table = cluster.put(list(range(100_000)))
        large = [cluster.submit(bytes, 200_000 + n) for n in range(6)]
        sizes = [cluster.submit(len, one) for one in large]
        sums = [cluster.submit(sum, table) for _ in range(6)]
        total = cluster.submit(sum, [cluster.submit(sum, sizes), cluster.submit(max, sums)])
        assert total.result(60) == sum(200_000 + n for n in range(6)) + sum(range(100_000))


def test_the_job_ends_with_the_connection(three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    with p2premap.connect(name="short") as cluster:
        assert cluster.submit(add, 1).result(60) == 2
        job = cluster.job_id
    with local(paths=three_nodes.paths) as connection:
        view = connection.ask(lambda n: Watch(request=n, job=bytes.fromhex(job), once=True), JobUpdate).view
    assert (view.phase, view.name) == (Phase.DONE, "short")
    assert tests.cluster.p2premap(three_nodes.home, "watch", job).exit_code == 0, "the command line takes it as it is"


def test_a_cancelled_job_fails_what_waits(three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2premap.client.jobs import cancel

    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    with p2premap.connect() as cluster:
        future = cluster.submit(time.sleep, 600)
        with local(paths=three_nodes.paths) as connection:
            cancel(connection, bytes.fromhex(cluster.job_id), "enough")
        with pytest.raises(JobError):
            future.result(60)


@pytest.mark.slow
def test_the_clients_own_node_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The leader, as it happens: another replica takes over, the client finds it, and no result is missing."""
    ran = tmp_path / "ran"
    ran.mkdir()
    with private(slots=2) as nodes:
        monkeypatch.setenv("P2PREMAP_HOME", nodes.home)
        with p2premap.connect() as cluster:
            assert cluster.submit(add, 1).result(60) == 2
            fs = [cluster.submit(_mark, str(ran), n) for n in range(60)]
            eventually(lambda: sum(f.done() for f in fs) >= 10)
            nodes.kill("n1")
            assert [f.result(60) for f in fs] == list(range(60))
            assert cluster.submit(add, 1).result(60) == 2
    counts = [len(list(ran.glob(f"{n}.*"))) for n in range(60)]
    assert min(counts) == 1
    # what ran on the node that was killed, and what its slots held, may have run again
    assert sum(count > 1 for count in counts) <= 12


def _mark(directory: str, n: int) -> int:
    time.sleep(0.05)
    Path(directory, f"{n}.{os.getpid()}.{time.monotonic_ns()}").touch()
    return n


@pytest.mark.slow
def test_two_of_three_nodes_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third forks the job, and answers under the name that the program knows."""
    with private(slots=2) as nodes:
        monkeypatch.setenv("P2PREMAP_HOME", nodes.home)
        with p2premap.connect() as cluster:
            assert cluster.submit(add, 1).result(60) == 2
            fs = [cluster.submit(_slowly, n) for n in range(200)]
            eventually(lambda: sum(f.done() for f in fs) >= 10)
            nodes.kill("n1")
            nodes.kill("n2")
            assert [f.result(120) for f in fs] == list(range(200))
            assert sum(cluster.map(add, range(1_000))) == sum(range(1, 1_001))


def _slowly(n: int) -> int:
    time.sleep(0.02)
    return n
