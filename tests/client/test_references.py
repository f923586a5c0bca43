"""What calls refer to: results of other calls, values that were put, large arguments; `gather` and `remote`."""

from __future__ import annotations

import os
import time
from concurrent import futures
from typing import Any

import pytest

import p2premap
from p2premap.client.cluster import Cluster
from p2premap.client.locals import bundle_of_program
from p2premap.control.data import PutBlob
from p2premap.ids import NodeId
from p2premap.node.paths import Paths
from tests.client.callhouse import CallHouse
from tests.fakedaemon import FakeDaemon

OTHER = NodeId(bytes(reversed(range(16))))


def add(x: int, y: int = 1) -> int:
    return x + y


def fail(x: int) -> int:
    raise ValueError("no", x)


def whole(values: list[Any], more: dict[str, int]) -> int:
    return sum(values) + sum(more.values())


def test_a_future_is_an_argument_wherever_it_stands(cluster: Cluster) -> None:
    one, two = cluster.submit(add, 1), cluster.submit(add, 2)
    three = cluster.submit(add, one, y=two)
    assert three.result(60) == 5
    assert cluster.submit(whole, [one, two, 4], {"y": three}).result(60) == 14
    chain = one
    for _ in range(100):
        chain = cluster.submit(add, chain)
    assert chain.result(60) == 102


def test_a_large_result_goes_to_who_needs_it_without_being_sent_from_here(cluster: Cluster, daemon: FakeDaemon) -> None:
    large = cluster.submit(bytes, 300_000)
    assert cluster.submit(len, large).result(60) == 300_000
    assert cluster.submit(len, large).result(60) == 300_000, "it has come here in the meantime"
    assert sum(map(len, daemon.payloads)) < 100_000 + len(bundle_of_program())


def test_what_a_future_raised_is_what_its_dependents_raise(cluster: Cluster, house: CallHouse) -> None:
    house.deaf = True
    chain = first = cluster.submit(fail, 3)
    for _ in range(3_000):
        chain = cluster.submit(add, chain)
    cancelled = cluster.submit(add, 1)
    after = cluster.submit(add, cancelled)
    cancelled.cancel()
    with pytest.raises(futures.CancelledError):
        after.result(60)
    house.deaf = False
    cluster.submit(add, 1)
    with pytest.raises(ValueError, match="no"):
        chain.result(60)
    assert chain.exception() is first.exception()


def test_shutdown_waits_for_calls_that_wait_for_others(daemon: FakeDaemon) -> None:
    cluster = p2premap.connect()
    last = cluster.submit(add, cluster.submit(add, cluster.submit(add, 1)))
    cluster.shutdown()
    assert last.result(0) == 4


def test_a_future_is_no_part_of_a_function_or_of_the_inputs_of_a_map(cluster: Cluster) -> None:
    future = cluster.submit(add, 1)
    with pytest.raises(p2premap.LocalProtocolError, match="argument of a call"):
        cluster.submit(lambda: future).result(60)
    with pytest.raises(p2premap.LocalProtocolError, match="inputs of map"):
        list(cluster.map(add, [future]))


def test_a_value_is_put_once(cluster: Cluster, daemon: FakeDaemon) -> None:
    table = cluster.put(os.urandom(500_000))
    sent = sum(map(len, daemon.payloads))
    assert [cluster.submit(len, table).result(60) for _ in range(3)] == [500_000] * 3
    assert cluster.submit(whole, [1], {"size": cluster.submit(len, table)}).result(60) == 500_001
    assert list(cluster.map(len, [table] * 5)) == [500_000] * 5
    assert sum(map(len, daemon.payloads)) - sent < 20_000
    assert "500" in repr(table)


def test_a_large_argument_is_sent_once_and_each_call_may_change_its_own(cluster: Cluster, daemon: FakeDaemon) -> None:
    large = bytearray(1_000_000)
    before = sum(map(len, daemon.payloads))
    fs = [cluster.submit(spoil, large, n) for n in range(8)]
    assert [f.result(60) for f in fs] == [0] * 8
    assert sum(map(len, daemon.payloads)) - before < 1_100_000
    large[0] = 7
    assert cluster.submit(spoil, large, 1).result(60) == 7, "what it is when it is submitted counts"


def spoil(data: bytearray, n: int) -> int:
    before = data[0]
    data[0] = n + 1
    return before


def test_arrays_that_were_put_are_read_where_they_are(cluster: Cluster) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    shared = cluster.put({"array": array})
    assert cluster.submit(lambda given: (given["array"].sum(), given["array"].flags.writeable), shared).result(60) == (
        array.sum(),
        False,
    )
    assert cluster.submit(lambda given: given.flags.writeable, array).result(60), "an argument is the call's own"


def test_what_was_put_moves_to_the_next_node(house: CallHouse, paths: Paths) -> None:
    first = house.daemon(paths)
    with p2premap.connect() as cluster:
        table = cluster.put(bytes(300_000))
        assert cluster.submit(len, table).result(60) == 300_000
        with house.daemon(paths, node=OTHER, name="pi2") as second:
            first.close()
            assert cluster.submit(len, table).result(60) == 300_000
            assert sum(isinstance(request, PutBlob) for request in second.requests) >= 1
            cluster.shutdown()


def test_gather_keeps_the_shape(cluster: Cluster) -> None:
    fs = [cluster.submit(add, n) for n in range(4)]
    assert p2premap.gather(fs) == [1, 2, 3, 4]
    assert p2premap.gather({"a": fs[0], "b": (fs[1], {fs[2]}, 9)}, timeout=60) == {"a": 1, "b": (2, {3}, 9)}
    with pytest.raises(ValueError, match="no"):
        p2premap.gather([fs[0], cluster.submit(fail, 1)])
    with pytest.raises(TimeoutError):
        p2premap.gather([cluster.submit(time.sleep, 0.5)], timeout=0.01)


@p2premap.remote
def twice(x: int) -> int:
    """Two times."""
    return 2 * x


def test_a_remote_function(cluster: Cluster) -> None:
    assert twice(4) == 8
    assert twice.__doc__ == "Two times."
    assert p2premap.current() is cluster
    assert twice.submit(twice.submit(3)).result(60) == 12
    assert list(twice.map(range(5))) == [0, 2, 4, 6, 8]
    assert cluster.submit(twice, 5).result(60) == 10
