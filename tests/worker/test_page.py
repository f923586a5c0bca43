"""The memory that worker, supervisor and executor share, and the records in its journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.tasks.job import AttemptEnd, Outcome
from p2premap.worker.messages import decode_ends, encode_end
from p2premap.worker.page import JOURNAL_BYTES, Page, new_page


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[Page, Page]]:
    """The same memory, mapped twice."""
    descriptor = new_page(str(tmp_path))
    one, other = Page(descriptor), Page(descriptor)
    os.close(descriptor)
    yield one, other
    one.close()
    other.close()


def test_what_one_writes_the_other_reads(pages: tuple[Page, Page]) -> None:
    worker, executor = pages
    assert (executor.started, executor.running, executor.status, executor.pid) == (0, 0, None, 0)
    worker.set_pid(77)
    worker.begin(1, 12.5)
    assert (executor.started, executor.running, executor.began, executor.pid) == (1, 1, 12.5, 77)
    assert worker.end(1, b"record")
    assert (executor.started, executor.running, executor.journal()) == (1, 0, b"record")
    worker.close_with(0, 4096)
    assert (executor.status, executor.peak_bytes) == (0, 4096)


def test_the_journal_is_emptied_and_the_mark_tells(pages: tuple[Page, Page]) -> None:
    worker, executor = pages
    marks = [executor.journal_mark]
    for number in (1, 2):
        worker.end(number, b"abc")
        marks.append(executor.journal_mark)
    assert bytes(worker.pending()) == b"abcabc"
    worker.clear()
    worker.end(3, b"abc")
    marks.append(executor.journal_mark)
    assert len(set(marks)) == len(marks), "the same length after a clear is another mark"
    assert executor.journal() == b"abc"


def test_a_full_journal_takes_nothing(pages: tuple[Page, Page]) -> None:
    worker, executor = pages
    assert worker.end(1, bytes(JOURNAL_BYTES))
    assert not worker.end(2, b"x")
    assert executor.running == 0
    worker.begin(2, 0.0)
    assert executor.running == 2
    worker.clear()
    assert worker.end(2, b"x")
    assert executor.running == 0


def test_a_system_without_memfd_uses_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    descriptor = new_page(str(tmp_path))
    page = Page(descriptor)
    page.begin(3, 1.0)
    assert page.running == 3
    page.close()
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only memory without a name can be sealed")
@pytest.mark.parametrize("size", [0, 1 << 20])
def test_nobody_can_change_its_size(tmp_path: Path, size: int) -> None:
    """Whoever reads beyond the end of a file that was cut is killed by SIGBUS."""
    descriptor = new_page(str(tmp_path))
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, size)
    os.close(descriptor)


def test_a_file_has_its_room_on_the_disk_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    descriptor = new_page(str(tmp_path))
    status = os.fstat(descriptor)
    assert status.st_blocks * 512 >= status.st_size > JOURNAL_BYTES
    os.close(descriptor)


def test_figures_that_cannot_be_are_cut_to_what_they_may_be(pages: tuple[Page, Page]) -> None:
    """User code shares the worker's memory."""
    worker, executor = pages
    worker.close_with(2**64 - 2, 2**64 - 1)
    assert executor.status == 0xFFFE
    assert executor.peak_bytes == 2**53


ends = st.builds(
    AttemptEnd,
    task=st.integers(0, 2**40),
    attempt=st.integers(0, 9),
    outcome=st.sampled_from(Outcome),
    value=st.binary(max_size=50),
    error=st.text(max_size=20),
    seconds=st.floats(0, 1e6),
)


@given(st.lists(st.tuples(st.integers(0, 2**60), ends)))
def test_records_come_back(told: list[tuple[int, AttemptEnd]]) -> None:
    assert decode_ends(b"".join(encode_end(number, end) for number, end in told)) == told


@given(st.binary(max_size=200))
def test_anything_else_is_one_error(data: bytes) -> None:
    try:
        decode_ends(data)
    except RemoteProtocolError:
        pass
    else:
        assert not data
