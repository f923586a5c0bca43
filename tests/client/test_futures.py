"""Futures against a scripted daemon that makes the calls for real: answers, errors, loss of daemons, cancelling."""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import p2premap
from p2premap.client import callline, mapping, packs
from p2premap.client.cluster import Cluster
from p2premap.client.pickles import RemoteTraceback
from p2premap.control.calls import Calls, OpenCalls
from p2premap.control.jobs import Submit
from p2premap.errors import CallFailed, JobCancelled, JobLost
from p2premap.ids import NodeId
from p2premap.node.paths import Paths
from tests.client.callhouse import CallHouse
from tests.fakedaemon import FakeDaemon

OTHER = NodeId(bytes(reversed(range(16))))


def add(x: int, y: int = 1) -> int:
    return x + y


def fail(x: int) -> int:
    raise ValueError("no", x)


def test_many_calls_have_their_results(cluster: Cluster, house: CallHouse) -> None:
    fs = [cluster.submit(add, n, y=2) for n in range(3_000)]
    assert [f.result(60) for f in fs] == [n + 2 for n in range(3_000)]
    assert len(house.ran) < 1_500, "quick calls go together"


def test_it_is_an_executor(cluster: Cluster) -> None:
    assert isinstance(cluster, futures.Executor)
    fs = [cluster.submit(add, n) for n in range(20)]
    assert {f.result() for f in p2premap.as_completed(fs, timeout=60)} == set(range(1, 21))
    assert not futures.wait(fs, timeout=60).not_done
    told = threading.Event()
    fs[0].add_done_callback(lambda f: told.set())
    assert told.wait(60)


def test_an_exception_is_raised_as_it_was_with_its_remote_traceback(cluster: Cluster) -> None:
    future = cluster.submit(fail, 3)
    with pytest.raises(ValueError, match="no") as raised:
        future.result(60)
    assert raised.value.args == ("no", 3)
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert 'raise ValueError("no", x)' in str(raised.value.__cause__)
    assert future.exception() is raised.value


def test_what_cannot_be_sent_is_the_futures_exception(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="pickle"):
        cluster.submit(add, threading.Lock()).result(60)
    with pytest.raises(TypeError, match="pickle"):
        list(cluster.map(add, [threading.Lock()]))


def test_an_answer_that_cannot_be_opened_here_is_said(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError):
        cluster.submit(lambda: Trap()).result(60)
    assert cluster.submit(add, 1).result(60) == 2, "and nothing else suffers"


class Trap:
    """What opens its pickle fails, but only where it is opened as an answer."""

    def __reduce__(self) -> Any:
        return divide, (1, 0)


def divide(a: int, b: int) -> float:
    return a / b


def test_a_notebook_sees_how_far_it_is(cluster: Cluster) -> None:
    fs = [cluster.submit(add, n) for n in range(20)]
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    assert list(p2premap.progress(fs, console=console)) == fs
    assert "20/20" in console.file.getvalue()  # type: ignore[attr-defined]
    assert re.fullmatch(r"<Cluster of 2 slots, job \w{8}: 20 calls done, 0 under way, 0 wait>", repr(cluster))
    assert 'max="20" value="20"' in cluster._repr_html_()


def test_map_in_order_and_as_they_come(cluster: Cluster) -> None:
    assert list(cluster.map(add, range(5_000))) == list(range(1, 5_001))
    assert sorted(cluster.map(add, range(100), ordered=False, chunksize=7)) == list(range(1, 101))
    assert list(cluster.map(add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(cluster.map(add, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        cluster.map(add, [1], chunksize=0)


def test_map_takes_endless_inputs_as_results_are_taken(cluster: Cluster) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    for ordered in (True, False):
        taken.clear()
        results = cluster.map(add, numbers(), itertools.repeat(1), ordered=ordered)
        assert taken, "some begin at once"
        given = list(itertools.islice(results, 3_000))
        assert given == list(range(1, 3_001)) if ordered else len(set(given)) == 3_000
        assert 3_000 <= len(taken) <= 3_000 + packs.AHEAD_ROWS_MAX
        results.close()  # type: ignore[attr-defined]


def test_what_a_map_has_taken_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "AHEAD_ROWS_BYTES", 1_000_000)
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(50_000)

    results = cluster.map(len, blocks())
    for given in range(200):
        assert next(results) == 50_000
        assert taken - given <= 60
    results.close()  # type: ignore[attr-defined]


def test_inputs_that_fail_fail_in_their_place(cluster: Cluster) -> None:
    def three() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("the file ends here")

    results = cluster.map(add, three())
    assert [next(results), next(results), next(results)] == [2, 3, 4]
    with pytest.raises(OSError, match="ends here"):
        next(results)


def test_what_comes_slowly_is_handed_in_as_it_comes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "TAKE_S", -1.0)
    seen: list[int] = []

    def stream() -> Iterator[int]:
        for n in range(40):
            assert n < 20 or len(seen) > 5, "results are not kept back until the next inputs are here"
            yield n

    for result in cluster.map(add, stream()):
        seen.append(result)
        _await(lambda: not cluster._line._state.packer.under_way)
    assert seen == list(range(1, 41))


def test_map_raises_in_the_place_of_the_call(cluster: Cluster) -> None:
    results = cluster.map(lambda x: 10 // (3 - x), range(10))
    assert [next(results), next(results), next(results)] == [3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_times_out(cluster: Cluster) -> None:
    with pytest.raises(TimeoutError):
        next(cluster.map(time.sleep, [0.3] * 3, timeout=0.05))
    assert cluster.submit(add, 1).result(60) == 2


def test_large_arguments_results_and_functions(cluster: Cluster) -> None:
    table = os.urandom(100_000)
    assert cluster.submit(len, table).result(60) == 100_000
    assert cluster.submit(bytes, 300_000).result(60) == bytes(300_000)
    assert cluster.submit(lambda n: table[n], 5).result(60) == table[5]
    assert list(cluster.map(bytes, [90_000] * 3)) == [bytes(90_000)] * 3
    assert list(cluster.map(len, [table] * 3)) == [100_000] * 3


def test_a_cancelled_future_is_cancelled_for_whoever_waits(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    fs = [cluster.submit(add, n) for n in range(50)]
    assert fs[0].cancel(), "it has been sent"
    assert fs[49].cancel(), "it waits here"
    assert fs[49].cancel(), "again"
    assert futures.wait(fs[:1], timeout=60).done
    with pytest.raises(futures.CancelledError):
        fs[49].result(60)
    while 0 not in house.cancelled:  # what was said goes out a little later; as much is under way then as may be
        time.sleep(0.001)
    house.deaf = False
    assert fs[1].cancel(), "which is told, and the daemon hears"
    assert cluster.submit(add, 1).result(60) == 2
    assert [f.result(60) for f in fs[2:49]] == list(range(3, 50))
    assert not fs[2].cancel(), "its result is here"


def test_the_guilty_call_fails_alone(cluster: Cluster, house: CallHouse) -> None:
    assert [f.result(60) for f in [cluster.submit(add, n) for n in range(500)]]
    house.deaf = True
    fs = [cluster.submit(add, n) for n in range(500)]
    house.crashing = 1  # the first pack that holds several is taken apart
    house.deaf = False
    assert cluster.submit(add, 1).result(60) == 2
    assert sum(f.exception(60) is not None for f in fs) <= 1
    house.crashing = 1
    lonely = cluster.submit(add, 5)
    with pytest.raises(CallFailed, match="worker process died"):
        lonely.result(60)


def test_another_daemon_is_asked_when_this_one_dies(house: CallHouse, paths: Paths) -> None:
    first = house.daemon(paths)
    with p2premap.connect() as cluster:
        assert cluster.submit(add, 1).result(60) == 2
        house.deaf = True
        fs = [cluster.submit(add, n) for n in range(100)]
        large = cluster.submit(len, bytes(100_000))
        with house.daemon(paths, node=OTHER, name="pi2") as second:
            first.close()
            house.deaf = False
            assert [f.result(60) for f in fs] == list(range(1, 101))
            assert large.result(60) == 100_000
            assert any(isinstance(request, OpenCalls) for request in second.requests)
            cluster.shutdown()
    assert len(house.ran) == len(set(house.ran)), "no pack is run twice"


def test_what_is_not_known_any_more_is_handed_in_again(house: CallHouse, paths: Paths, tmp_path: Path) -> None:
    """The new leader lacks what its predecessor had not protected; answers that came stay valid."""
    first = house.daemon(paths)
    with p2premap.connect() as cluster:
        assert [f.result(60) for f in [cluster.submit(add, n) for n in range(40)]] == list(range(1, 41))
        house.deaf = True
        fs = [cluster.submit(add, n) for n in range(8)]
        _await(lambda: sum(isinstance(request, Calls) for request in first.requests) > 0)
        successor = CallHouse(tmp_path / "successor")  # knows nothing at all
        first.close()
        with successor.daemon(paths, node=OTHER, name="pi2"):
            assert [f.result(60) for f in fs] == list(range(1, 9))
            cluster.shutdown()


def test_a_job_that_nobody_knows_any_more_is_lost(
    house: CallHouse, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callline, "LOST_S", 0.3)
    daemon = house.daemon(paths)
    cluster = p2premap.connect()
    house.deaf = True
    future, rest = cluster.submit(add, 1), cluster.map(add, range(5))
    daemon.close()
    with pytest.raises(JobLost):
        future.result(60)
    with pytest.raises(JobLost):
        next(rest)
    with pytest.raises(JobLost):
        cluster.submit(add, 1)
    cluster.shutdown()


def test_after_shutdown_nothing_is_taken(daemon: FakeDaemon) -> None:
    cluster = p2premap.connect()
    future = cluster.submit(add, 1)
    cluster.shutdown()
    assert future.result(0) == 2, "shutdown waits"
    with pytest.raises(RuntimeError, match="after shutdown"):
        cluster.submit(add, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        cluster.map(add, [1])
    cluster.shutdown()


def test_shutdown_can_cancel_what_waits(daemon: FakeDaemon, house: CallHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callline, "LOST_S", 0.2)
    house.deaf = True
    cluster = p2premap.connect()
    fs = [cluster.submit(add, n) for n in range(100)]
    cluster.shutdown(wait=False, cancel_futures=True)
    assert sum(f.cancelled() for f in fs) >= 80
    house.deaf = False
    daemon.close()
    for f in fs:
        assert f.cancelled() or f.exception(60) is not None or f.result() >= 0


def test_many_threads_may_use_it(cluster: Cluster) -> None:
    def use(start: int) -> None:
        sums.append(sum(cluster.submit(add, n).result(60) for n in range(start, start + 50)))

    sums: list[int] = []
    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(sums) == [sum(range(n + 1, n + 51)) for n in range(8)]


def test_a_cancelled_job_is_each_futures_exception(cluster: Cluster) -> None:
    cluster._line._state.end(JobCancelled("Somebody cancelled it."))
    with pytest.raises(JobCancelled):
        cluster.submit(add, 1)


def test_the_public_names_are_there() -> None:
    assert (
        sorted(p2premap.__all__, key=lambda name: (name.startswith("__") or name.islower(), name)) == p2premap.__all__
    )
    for name in p2premap.__all__:
        assert getattr(p2premap, name) is not None
    with pytest.raises(AttributeError):
        _ = p2premap.nothing_of_the_kind  # type: ignore[attr-defined]


def _await(condition: Any) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_long_session_goes_on_with_another_job(
    house: CallHouse, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2premap.client.cluster.JOB_BYTES_MAX", 20_000)
    with p2premap.connect() as cluster:
        fs = [cluster.submit(add, n) for n in range(3_000)]
        assert [f.result(60) for f in fs] == list(range(1, 3_001))
        assert list(cluster.map(add, range(100))) == list(range(1, 101))
    jobs = sum(isinstance(request, Submit) for request in daemon.requests)
    assert jobs >= 2
    assert house.closed == jobs, "each of them was ended"
