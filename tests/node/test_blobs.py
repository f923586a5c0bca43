"""The store of blobs: whole or not at all, and damage is found."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.ids import Digest
from p2premap.node.blobs import BlobCorrupt, BlobMissing, BlobStore, StoreUnwritable, blob_path


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(store: BlobStore) -> list[str]:
    return sorted(str(p.relative_to(store.directory)) for p in Path(store.directory).rglob("*") if p.is_file())


def test_a_blob_lies_under_its_digest(store: BlobStore) -> None:
    ref = store.put(b"abc", durable=True)
    name = blake3.blake3(b"abc").hexdigest()
    assert (ref.digest.hex(), ref.size) == (name, 3)
    assert files(store) == [f"{name[:2]}/{name}"]
    assert store.path(ref.digest) == blob_path(store.directory, ref.digest)
    assert (store.has(ref.digest), store.size(ref.digest), store.get(ref.digest)) == (True, 3, b"abc")


@given(pieces=st.lists(st.binary(max_size=2_000), max_size=5))
def test_pieces_make_the_same_blob_as_the_whole(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    store = BlobStore(tmp_path_factory.mktemp("s") / "blobs")
    writer = store.writer()
    for piece in pieces:
        writer.write(memoryview(piece))
    assert writer.finish() == store.put(b"".join(pieces))
    assert len(files(store)) == 1


def test_a_blob_that_is_not_there(store: BlobStore) -> None:
    nothing = Digest(bytes(32))
    assert (store.has(nothing), store.size(nothing), store.delete(nothing)) == (False, None, False)
    for read in (store.get, store.check):
        with pytest.raises(BlobMissing, match="has no blob 0000"):
            read(nothing)


@pytest.mark.parametrize("damage", [b"", b"ab", b"abd", b"abcd"])
@pytest.mark.parametrize("by_check", [False, True])
def test_damage_is_found_and_removed(store: BlobStore, damage: bytes, by_check: bool) -> None:
    digest = store.put(b"abc").digest
    Path(store.path(digest)).write_bytes(damage)
    with pytest.raises(BlobCorrupt, match="was damaged"):
        (store.check if by_check else store.get)(digest)
    assert not store.has(digest)
    assert store.put(b"abc").digest == digest
    assert store.get(digest) == b"abc"


def test_nothing_exists_before_it_is_finished(store: BlobStore) -> None:
    writer = store.writer()
    writer.write(b"abc")
    assert not store.has(Digest(blake3.blake3(b"abc").digest()))
    writer.discard()
    assert files(store) == []
    writer.discard()


def test_something_else_than_announced_is_not_stored(store: BlobStore) -> None:
    writer = store.writer()
    writer.write(b"abc")
    with pytest.raises(BlobCorrupt, match="something else"):
        writer.finish(Digest(bytes(32)))
    assert files(store) == []


def test_a_full_disk_leaves_no_half_blob(store: BlobStore) -> None:
    """/dev/full answers every write as a full disk does."""
    writer = store.writer()
    descriptor = os.open("/dev/full", os.O_WRONLY)
    os.dup2(descriptor, writer._file.fileno(), inheritable=False)  # at once: other threads open files, too
    os.close(descriptor)
    with pytest.raises(StoreUnwritable, match="the disk is full"):
        writer.write(bytes(1 << 20))
    assert files(store) == []


def test_a_disk_that_fills_at_the_end_leaves_no_half_blob(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnwritable, match="the disk is full"):
        store.put(b"abc", durable=True)
    assert files(store) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="Cannot write to"):
        BlobStore(tmp_path / "file" / "blobs")


def test_a_store_that_was_removed_is_an_error_not_a_crash(store: BlobStore) -> None:
    os.rmdir(Path(store.directory) / "tmp")
    with pytest.raises(StoreUnwritable):
        store.put(b"abc")


def test_leftovers_of_dead_writers_go(store: BlobStore) -> None:
    left = store.writer()
    left.write(b"abc")
    store.clear_temporary(pid=os.getpid() + 1)
    assert len(files(store)) == 1
    store.clear_temporary(pid=os.getpid())
    assert files(store) == []
    left.discard()


def test_the_sweep_removes_what_is_old_and_not_kept(store: BlobStore) -> None:
    refs = [store.put(text) for text in (b"old", b"kept", b"new")]
    past = time.time() - 100
    for ref in refs[:2]:
        os.utime(store.path(ref.digest), (past, past))
    usage = store.sweep(older_s=50, keep={refs[1].digest})
    assert [store.has(ref.digest) for ref in refs] == [False, True, True]
    assert usage == (2, 7)


def test_putting_again_renews_the_age(store: BlobStore) -> None:
    ref = store.put(b"abc")
    os.utime(store.path(ref.digest), (0, 0))
    store.put(b"abc")
    assert store.sweep(older_s=50).blobs == 1


def test_a_file_that_another_process_has_written_is_named_by_what_is_in_it(store: BlobStore) -> None:
    data = os.urandom(3 << 20)
    writer = store.writer()
    Path(writer.path).write_bytes(data)
    ref = writer.take_in(len(data))
    writer.discard()
    assert ref.digest == blake3.blake3(data).digest()
    assert store.get(ref.digest) == data
    assert len(files(store)) == 1


@pytest.mark.parametrize("written", [0, 999, 1_001])
def test_a_file_that_is_not_whole_is_given_up(store: BlobStore, written: int) -> None:
    writer = store.writer()
    Path(writer.path).write_bytes(bytes(written))
    with pytest.raises(BlobCorrupt, match=f"1000 bytes was announced, and {written} are there"):
        writer.take_in(1_000)
    assert files(store) == []


def test_a_file_that_is_gone_is_an_error(store: BlobStore) -> None:
    writer = store.writer()
    os.unlink(writer.path)
    with pytest.raises(StoreUnwritable):
        writer.take_in(0)


def test_what_was_hashed_once_is_known_until_somebody_writes_to_it(store: BlobStore) -> None:
    large, small = store.put(bytes(2 << 20)).digest, store.put(b"small").digest
    assert store.vouches(large)
    assert not store.vouches(small), "that is hashed sooner than asked"
    assert not BlobStore(store.directory).vouches(large), "who starts knows nothing"
    with open(store.path(large), "r+b") as file:
        file.write(b"1")
    assert not store.vouches(large)
    store.put(bytes(2 << 20))
    assert store.vouches(large), "a sound one is in its place"
    store.delete(large)
    assert not store.vouches(large)
