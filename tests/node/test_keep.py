"""Keeping sources: linked or copied from this machine, fetched from another, checked in any case."""

from __future__ import annotations

import os
from pathlib import Path

import blake3
import pytest
import trio

from p2premap.ids import Digest, NodeId
from p2premap.node.blobs import BlobStore, StoreUnwritable
from p2premap.node.keep import keep_local
from p2premap.node.staging import SourceLost
from p2premap.tasks.job import Source
from tests.node.slots_house import file_source
from tests.node.test_staging import HOME, OTHER, Cluster

HOLDER = NodeId(b"h" * 16)
DATA = b"some bytes of a result"


@pytest.fixture
def mine(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "mine")


@pytest.fixture
def theirs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "theirs")


@pytest.fixture
def cluster(tmp_path: Path, nursery: trio.Nursery) -> Cluster:
    return Cluster(tmp_path, nursery)


def whole(store: BlobStore, data: bytes = DATA) -> Source:
    ref = store.put(data)
    return Source(digest=ref.digest, start=0, end=ref.size, holders=(HOLDER,), blob=ref.digest)


@pytest.mark.parametrize("durable", [False, True])
def test_a_neighbours_blob_becomes_a_hard_link_that_stays(mine: BlobStore, theirs: BlobStore, durable: bool) -> None:
    source = whole(theirs)
    assert keep_local(mine, source, [theirs.directory], durable=durable)
    assert os.stat(mine.path(source.digest)).st_nlink == 2
    theirs.delete(source.digest)
    assert mine.get(source.digest) == DATA


def test_what_is_here_already_is_checked_and_counts_as_young(mine: BlobStore) -> None:
    source = whole(mine)
    os.utime(mine.path(source.digest), (0, 0))
    assert keep_local(mine, source, [])
    assert mine.sweep(older_s=3_600.0).blobs == 1


def test_a_damaged_copy_of_ours_is_replaced_from_the_neighbour(mine: BlobStore, theirs: BlobStore) -> None:
    source = whole(theirs)
    mine.put(DATA)
    Path(mine.path(source.digest)).write_bytes(b"x" * len(DATA))
    assert keep_local(mine, source, [theirs.directory])
    assert mine.get(source.digest) == DATA


def test_a_neighbours_damaged_blob_is_not_taken(mine: BlobStore, theirs: BlobStore) -> None:
    source = whole(theirs)
    Path(theirs.path(source.digest)).write_bytes(b"x" * len(DATA))
    assert not keep_local(mine, source, [theirs.directory])
    assert not mine.has(source.digest)
    assert Path(theirs.path(source.digest)).read_bytes() == b"x" * len(DATA)


def test_without_links_it_is_copied(mine: BlobStore, theirs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    source = whole(theirs)
    monkeypatch.setattr(os, "link", refuse)
    assert keep_local(mine, source, [theirs.directory])
    assert os.stat(mine.path(source.digest)).st_nlink == 1
    assert mine.get(source.digest) == DATA


def test_a_range_of_a_blob_is_kept_under_its_own_name(mine: BlobStore, theirs: BlobStore) -> None:
    blob = theirs.put(DATA).digest
    digest = Digest(blake3.blake3(DATA[5:10]).digest())
    source = Source(digest=digest, start=5, end=10, holders=(HOLDER,), blob=blob)
    assert keep_local(mine, source, [theirs.directory])
    assert mine.get(digest) == DATA[5:10]
    assert not mine.has(blob)


def test_a_split_of_a_file_is_copied_if_it_is_what_was_submitted(mine: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(DATA)
    source = file_source(path, 5, 10, HOLDER)
    assert keep_local(mine, source, [])
    assert mine.get(Digest(source.digest)) == DATA[5:10]
    other = file_source(path, 0, 5, HOLDER)
    path.write_bytes(DATA[::-1])
    assert not keep_local(mine, other, [])


def test_a_full_disk_is_told(mine: BlobStore, theirs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    source = whole(theirs)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StoreUnwritable, match="the disk is full"):
        keep_local(mine, source, [theirs.directory])


@pytest.mark.trio
async def test_from_another_machine_it_is_fetched_and_handed_on(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    split = file_source(path, 4, 7, HOME)
    cluster.files[HOME].allow_files(b"j" * 16, [str(path)])
    path.rename(tmp_path / "input-of-home")  # another machine has it, not this one
    (tmp_path / "input").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceLost):
        await cluster.stager.keep(split)
    (tmp_path / "input").unlink()
    copy = cluster.blob(b"two", OTHER)
    held_by_other = Source(
        digest=split.digest, start=4, end=7, holders=(HOME, OTHER), path=split.path, mtime_ns=split.mtime_ns
    )
    assert copy.digest == split.digest
    await cluster.stager.keep(held_by_other)  # the replica OTHER has a copy of just these bytes
    assert cluster.mine.get(Digest(split.digest)) == b"two"
    assert cluster.opened[-1] == OTHER


@pytest.mark.trio
async def test_two_who_keep_the_same_fetch_it_once(cluster: Cluster) -> None:
    source = cluster.blob(DATA, HOME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.stager.keep, source)
        nursery.start_soon(cluster.stager.keep, source)
    assert cluster.stager.statistics().fetched == 1
