"""The bulk service over streams in memory."""

from __future__ import annotations

import os
from pathlib import Path

import blake3
import pytest
import trio

from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import Digest, JobId
from p2premap.node.blobs import BlobStore
from p2premap.node.bulk import (
    PIECE_BYTES,
    AllowedFiles,
    BulkService,
    NoSuch,
    Piece,
    ReadSource,
    SourceGone,
    read_source,
)
from p2premap.tasks.job import Source
from tests.node.slots_house import JOB, ME, file_source, stream_pair

pytestmark = pytest.mark.trio


class Holder:
    def __init__(self, root: Path) -> None:
        self.blobs = BlobStore(root / "blobs")
        self.files = AllowedFiles()
        self.service = BulkService(blobs=self.blobs, files=self.files)

    async def ask(self, *sources: Source) -> list[bytes | str]:
        """What a reader gets for each source, over one stream: its bytes, or why not."""
        ours, theirs = stream_pair()
        answers: list[bytes | str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.serve_bulk, theirs)
            for source in sources:
                try:
                    answers.append(await collect(ours, source))
                except SourceGone as error:
                    answers.append(str(error))
            await ours.aclose()
        return answers


async def collect(stream, source: Source) -> bytes:
    got = bytearray()

    async def take(data: bytes) -> None:
        got.extend(data)

    await read_source(stream, source, take)
    return bytes(got)


def blob_source(store: BlobStore, data: bytes, start: int = 0, end: int | None = None) -> Source:
    ref = store.put(data)
    end = len(data) if end is None else end
    digest = Digest(blake3.blake3(data[start:end]).digest())
    return Source(digest=digest, start=start, end=end, holders=(ME,), blob=ref.digest)


async def test_blobs_and_their_ranges_are_read(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    data = os.urandom(2 * PIECE_BYTES + 5)
    sources = [
        blob_source(holder.blobs, data),
        blob_source(holder.blobs, data, 3, PIECE_BYTES + 3),
        blob_source(holder.blobs, data, 7, 7),
        blob_source(holder.blobs, b""),
    ]
    assert await holder.ask(*sources) == [data, data[3 : PIECE_BYTES + 3], b"", b""]


async def test_files_are_read_only_while_a_job_names_them(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    source = file_source(path, 4, 7)
    assert await holder.ask(source) == ["input is not an input of a job submitted here."]
    holder.files.allow_files(JOB, [str(path)])
    holder.files.allow_files(JobId(b"k" * 16), [str(path)])
    assert await holder.ask(source) == [b"two"]
    holder.files.forget_job(JOB)
    assert await holder.ask(source) == [b"two"]
    holder.files.forget_job(JobId(b"k" * 16))
    assert await holder.ask(source) == ["input is not an input of a job submitted here."]


async def test_whether_a_file_may_be_read_does_not_take_longer_with_many_jobs() -> None:
    looks = 0

    class Path(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return super().__hash__()

    files = AllowedFiles()
    for number in range(1_000):
        files.allow_files(JobId(number.to_bytes(16)), [f"/input/{number}", "/input/of/all"])
    assert Path("/input/of/none") not in files
    assert looks == 1
    for number in range(999):
        files.allow_files(JobId(number.to_bytes(16)), ["/input/of/all"])  # once more is not twice
        files.forget_job(JobId(number.to_bytes(16)))
        files.forget_job(JobId(number.to_bytes(16)))
        assert f"/input/{number}" not in files
    assert "/input/of/all" in files
    files.forget_job(JobId((999).to_bytes(16)))
    assert "/input/of/all" not in files


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("gone", "input cannot be read: No such file or directory."),
        ("touched", "input has changed since the job was submitted."),
        ("shorter", "input has changed since the job was submitted."),
        ("directory", "input is not a regular file."),
        ("fifo", "input is not a regular file."),
    ],
)
async def test_a_file_that_is_not_what_it_was_is_refused(tmp_path: Path, change: str, text: str) -> None:
    holder = Holder(tmp_path)
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    source = file_source(path)
    holder.files.allow_files(JOB, [str(path)])
    spoil(path, change, source.mtime_ns)
    assert await holder.ask(source) == [text]


def spoil(path: Path, change: str, mtime_ns: int) -> None:
    if change == "touched":
        os.utime(path, ns=(mtime_ns + 1, mtime_ns + 1))
        return
    path.unlink()
    if change == "shorter":
        path.write_bytes(b"one")
        os.utime(path, ns=(mtime_ns, mtime_ns))
    elif change == "directory":
        path.mkdir()
    elif change == "fifo":
        os.mkfifo(path)


async def test_a_refusal_leaves_the_stream_usable(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    good = blob_source(holder.blobs, b"abc")
    missing = Source(digest=Digest(bytes(32)), start=0, end=3, holders=(ME,), blob=Digest(bytes(32)))
    backwards = Source(digest=Digest(bytes(32)), start=3, end=1, holders=(ME,), blob=good.blob)
    beyond = Source(digest=Digest(bytes(32)), start=0, end=4, holders=(ME,), blob=good.blob)
    *refusals, last = await holder.ask(missing, backwards, beyond, good)
    assert [type(refusal) for refusal in refusals] == [str, str, str]
    assert last == b"abc"


async def test_a_reader_that_says_something_else_is_dropped(tmp_path: Path) -> None:
    ours, theirs = stream_pair()
    await ours.send(NoSuch(text="?"))
    with pytest.raises(RemoteProtocolError, match="NoSuch is not a request"):
        await Holder(tmp_path).service.serve_bulk(theirs)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([(Piece(last=True), b"ab")], RemoteProtocolError),
        ([(Piece(last=False), b"abc")], RemoteProtocolError),
        ([(Piece(last=True), b"abcd")], RemoteProtocolError),
        ([(Piece(last=False), b"")], RemoteProtocolError),
        ([(ReadSource(source=Source(digest=Digest(bytes(32)), start=0, end=3, holders=())), b"")], RemoteProtocolError),
        ([(Piece(last=False), b"a")], PeerUnreachable),
        ([], PeerUnreachable),
    ],
)
async def test_a_holder_that_answers_wrongly_is_found_out(answer, error: type[Exception]) -> None:
    source = Source(digest=Digest(bytes(32)), start=0, end=3, holders=(), blob=Digest(bytes(32)))
    ours, theirs = stream_pair()
    for message, payload in answer:
        await theirs.send(message, payload)
    theirs.finish()
    with pytest.raises(error):
        await collect(ours, source)


async def test_a_broken_stream_is_told(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    ours, theirs = stream_pair()
    theirs.break_off()
    with pytest.raises(PeerUnreachable):
        await collect(ours, blob_source(holder.blobs, b"abc"))
