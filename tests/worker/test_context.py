"""What an attempt may use."""

from __future__ import annotations

import os
from pathlib import Path

import blake3
import pytest

from p2premap.ids import JobId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.job import AttemptKey, StageId
from p2premap.worker.context import AttemptContext
from p2premap.worker.measure import Directory, PeakMemory
from p2premap.worker.runtime import InputLost, Segment


@pytest.fixture
def context(tmp_path: Path) -> AttemptContext:
    key = AttemptKey(JobId(b"j" * 16), StageId(0, b""), 3, 0)
    return AttemptContext(key, str(tmp_path), BlobStore(tmp_path / "blobs"))


def segment(path: Path, start: int, end: int, data: bytes, *, verified: bool = False) -> Segment:
    return Segment(str(path), start, end, blake3.blake3(data).digest(), verified, "the input")


def test_a_segment_is_read_and_checked(context: AttemptContext, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    assert context.read(segment(path, 4, 7, b"two")) == b"two"
    assert context.read(segment(path, 13, 13, b"")) == b""
    assert context.read(segment(path, 0, 3, b"?", verified=True)) == b"one", "the node has checked it"


@pytest.mark.parametrize(
    ("start", "end", "data", "text"),
    [
        (0, 3, b"eno", "the input is not what the job announced"),
        (4, 14, b"two three!", "the input ends before byte 14"),
        (20, 23, b"two", "the input ends before byte 23"),
    ],
)
def test_a_segment_that_is_something_else_is_lost(
    context: AttemptContext, tmp_path: Path, start: int, end: int, data: bytes, text: str
) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    with pytest.raises(InputLost, match=text) as lost:
        context.read(segment(path, start, end, data))
    assert lost.value.digest == blake3.blake3(data).digest()


def test_a_file_that_is_gone_is_lost(context: AttemptContext, tmp_path: Path) -> None:
    with pytest.raises(InputLost, match="the input cannot be read: No such file"):
        context.read(segment(tmp_path / "none", 0, 1, b"x"))


def test_a_mapped_file_is_hashed_once(context: AttemptContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tmp_path / "input", bytes(2 << 20)
    path.write_bytes(data)
    given = segment(path, 0, len(data), data)
    assert context.map(given) == data
    with monkeypatch.context() as patch:
        patch.delattr("p2premap.worker.context.blake3.blake3")
        assert context.map(given) == data, "it need not be hashed again"
    with path.open("r+b") as file:
        file.write(b"1")
    with pytest.raises(InputLost, match="has changed since"):
        context.map(given)


def test_a_file_mapped_as_ones_own_can_be_written_to_and_stays_as_it_is(
    context: AttemptContext, tmp_path: Path
) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    one, other = (context.map(segment(path, 4, 7, b"two"), own=True) for _ in range(2))
    one[0:1] = b"T"
    assert (bytes(one), bytes(other), path.read_bytes()) == (b"Two", b"two", b"one two three")
    with pytest.raises(TypeError, match="read-only"):
        context.map(segment(path, 4, 7, b"two"))[0:1] = b"T"


def test_counters_add_up_and_unfinished_blobs_go(context: AttemptContext, tmp_path: Path) -> None:
    context.count(records_in=1)
    context.count(records_in=2, records_out=5)
    assert (context.records_in, context.records_out) == (3, 5)
    context.new_blob().write(b"abc")
    done = context.new_blob()
    done.finish()
    context.close()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_what_is_put_aside_on_disk_is_told(context: AttemptContext, tmp_path: Path) -> None:
    assert context.spilled is None
    for mode, size in (("wb", 10), ("ab", 5)):
        with context.spill(str(tmp_path / "run"), mode) as file:  # type: ignore[arg-type]
            file.write(bytes(size))
    assert context.spilled is not None
    assert (context.spilled.bytes, context.spilled.seconds > 0) == (15, True)
    assert (tmp_path / "run").stat().st_size == 15


def test_the_scratch_directory_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    directory = Directory(str(scratch))
    for _ in range(3):
        (scratch / "deep").mkdir()
        (scratch / "deep" / "file").write_text("x")
        (scratch / "link").symlink_to(tmp_path)
        os.chdir("/")
        directory.clear()
        assert list(scratch.iterdir()) == []
        assert Path.cwd() == scratch
    assert tmp_path.exists()
    os.close(directory._descriptor)


def test_a_scratch_directory_that_an_attempt_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    directory = Directory(str(scratch))
    scratch.rmdir()
    directory.clear()
    assert Path.cwd() == scratch
    (scratch / "file").write_text("x")
    directory.clear()
    assert list(scratch.iterdir()) == []
    os.close(directory._descriptor)


def test_the_peak_is_of_the_time_since_the_last_long_attempt() -> None:
    peak = PeakMemory()
    data = bytearray(os.urandom(1 << 20) * 150)
    size = len(data)
    large = peak.of_attempt(1.0)
    del data
    peak.of_attempt(1.0)
    assert peak.of_attempt(1.0) < large - size // 2
    assert peak.of_attempt(0.000_1) == 0
