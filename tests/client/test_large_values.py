"""Large values between a program and the node of its machine: files and not frames, each sent once."""

from __future__ import annotations

import errno
import gc
import mmap
import os
from pathlib import Path
from typing import Any

import pytest

import p2premap
from p2premap.client.cluster import Cluster
from p2premap.client.connection import RequestRefused
from p2premap.client.puts import is_same
from p2premap.control.data import FinishFile, PutBlob, ReadBlob, StartFile
from p2premap.ids import NodeId
from p2premap.node.paths import Paths
from p2premap.worker.values import pack_value
from tests.client.callhouse import CallHouse
from tests.fakedaemon import FakeDaemon

numpy = pytest.importorskip("numpy")

OTHER = NodeId(bytes(reversed(range(16))))
ITEMS = 400_000
"""3.2 MB of them."""


def spoil(array: Any, number: int) -> tuple[int, bool]:
    before = int(array[0])
    array[0] = number
    return before, bool(array.flags.writeable)


def files(daemon: FakeDaemon) -> int:
    return sum(isinstance(request, FinishFile) for request in daemon.requests)


def test_an_array_of_many_calls_is_written_once_and_each_call_has_its_own(cluster: Cluster, daemon: FakeDaemon) -> None:
    array = numpy.arange(ITEMS)
    fs = [cluster.submit(spoil, array, n + 1) for n in range(8)]
    assert [f.result(60) for f in fs] == [(0, True)] * 8
    assert files(daemon) == 1
    assert not any(isinstance(request, PutBlob) and request.job for request in daemon.requests)
    del fs
    gc.collect()
    assert cluster.submit(spoil, array.copy(), 1).result(60) == (0, True)
    assert files(daemon) == 1, "the same content is known although nothing refers to it any more"
    array[0], array[-1] = 5, 5
    assert cluster.submit(spoil, array, 1).result(60) == (5, True), "what it is when it is submitted counts"
    assert files(daemon) == 2


def test_a_value_that_was_put_is_one_for_all_calls(cluster: Cluster, daemon: FakeDaemon) -> None:
    shared = cluster.put(numpy.arange(ITEMS))
    again = cluster.put(numpy.arange(ITEMS))
    writeable = [
        cluster.submit(lambda a: (bool(a.flags.writeable), id(a)), s).result(60) for s in (shared, again, shared)
    ]
    assert not any(can for can, _ in writeable)
    assert len({one for _, one in writeable}) == 1
    assert files(daemon) == 1
    assert cluster.submit(spoil, numpy.arange(ITEMS), 1).result(60) == (0, True), "an argument is the call's own"
    assert files(daemon) == 1, "whose bytes are there"


def test_a_program_keeps_no_copy_of_what_it_puts(cluster: Cluster) -> None:
    shared = cluster.put(numpy.arange(ITEMS))
    assert isinstance(shared.data.obj, mmap.mmap)


def test_a_large_result_is_where_its_file_is_and_can_be_written_to(
    cluster: Cluster, daemon: FakeDaemon, house: CallHouse
) -> None:
    assert cluster.submit(abs, -1).result(60) == 1
    before = sum(map(len, daemon.payloads))  # with the first call go the program's modules
    future = cluster.submit(numpy.arange, ITEMS)
    array = future.result(60)
    assert sum(map(len, daemon.payloads)) - before < ITEMS, "nothing of it went through the socket"
    assert any(isinstance(request, ReadBlob) and request.here for request in daemon.requests)
    array[0] = 77
    assert cluster.submit(spoil, future, 1).result(60) == (0, True), "nobody else sees it"
    root = array
    while isinstance(root.base, numpy.ndarray):
        root = root.base
    assert isinstance(memoryview(root.base).obj, mmap.mmap)


def test_large_results_of_a_map(cluster: Cluster) -> None:
    arrays = list(cluster.map(numpy.arange, [ITEMS, 10, ITEMS + 1]))
    assert [len(array) for array in arrays] == [ITEMS, 10, ITEMS + 1]
    assert all(array.flags.writeable for array in arrays)


def test_where_files_are_not_shared_the_same_goes_in_frames(
    cluster: Cluster, daemon: FakeDaemon, house: CallHouse
) -> None:
    house.hides_files = True
    array = cluster.submit(lambda given: given + 1, numpy.arange(ITEMS)).result(60)
    assert (array == numpy.arange(1, ITEMS + 1)).all()
    assert array.flags.writeable
    assert files(daemon) == 0
    assert sum(map(len, daemon.payloads)) > 8 * ITEMS
    cluster.put(numpy.ones(ITEMS))
    assert sum(isinstance(request, StartFile) for request in daemon.requests) == 1, "asked once"


def test_a_damaged_file_is_not_taken_for_the_result(
    cluster: Cluster, house: CallHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = house.blobs.path
    bad = house.blobs.directory + "/bad"

    def path(digest: Any) -> str:
        monkeypatch.setattr(house.blobs, "path", real)
        Path(bad).write_bytes(bytes(house.blobs.size(digest) or 0))
        return bad

    future = cluster.submit(numpy.arange, ITEMS)
    monkeypatch.setattr(house.blobs, "path", path)
    assert future.result(60)[-1] == ITEMS - 1


def test_a_full_disk_is_said_and_what_was_begun_goes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, pieces: list[Any]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    cluster.put(numpy.zeros(ITEMS))
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(RequestRefused, match=r"cannot be kept in .*: the disk is full"):
            cluster.put(numpy.ones(ITEMS))
        assert isinstance(cluster.submit(len, numpy.ones(ITEMS)).exception(60), RequestRefused)
    assert cluster._line._sender._blob_line is None, "hung up: the node removes what was begun"
    assert cluster.submit(len, numpy.ones(ITEMS)).result(60) == ITEMS


def test_what_was_put_is_there_for_the_programs_next_job(cluster: Cluster, house: CallHouse) -> None:
    shared = cluster.put(numpy.arange(ITEMS))
    first = cluster.job_id
    cluster._line._sender.spent_bytes = 1 << 40
    house.blobs.delete(shared.at.digest)  # as the end of the first job may have it
    assert cluster.submit(len, shared).result(60) == ITEMS
    assert list(cluster.map(len, [shared] * 3)) == [ITEMS] * 3
    assert cluster.job_id != first


def test_what_was_put_moves_to_the_next_node(house: CallHouse, paths: Paths) -> None:
    first = house.daemon(paths)
    with p2premap.connect() as cluster:
        shared = cluster.put(numpy.arange(ITEMS))
        house.blobs.delete(shared.at.digest)
        with house.daemon(paths, node=OTHER, name="pi2") as second:
            first.close()
            assert cluster.submit(len, shared).result(60) == ITEMS
            assert files(second) == 1
            assert shared.at.holder == OTHER
            cluster.shutdown()


@pytest.mark.parametrize("change", [0, 1, 7, 4_096, 5_000_000, 7_999_999])
def test_values_are_the_same_only_if_every_byte_is(change: int) -> None:
    array = numpy.zeros(8_000_001, numpy.uint8)
    pieces = pack_value(array)
    data = memoryview(b"".join(pieces))
    assert is_same(data, pieces)
    array[change] = 1
    assert not is_same(data, pieces)
    assert not is_same(data[:-1], pieces)
