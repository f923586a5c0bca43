"""What a person hears of a node's disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from p2premap.node import diskspace
from p2premap.node.diskspace import disk_trouble
from tests.node.test_ledger_store import small_disk  # noqa: F401  (a fixture)


def test_a_disk_with_room_is_no_trouble_and_nothing_is_left_there(tmp_path: Path) -> None:
    assert disk_trouble(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full. Free some space."),
        (errno.EDQUOT, "the disk quota is used up. Free some space."),
        (errno.EROFS, "the file system is read-only. Make it writable."),
        (errno.EIO, "Input/output error. Make it writable."),
    ],
)
def test_what_a_write_meets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert disk_trouble(tmp_path) == f"This node cannot keep anything in {tmp_path}: {sentence}"


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    assert "No such file or directory" in disk_trouble(tmp_path / "gone")


def test_a_small_disk_is_full(small_disk: Path) -> None:  # noqa: F811
    assert "is full: " in disk_trouble(small_disk)
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        _fill(file.write)
    assert disk_trouble(small_disk).endswith("the disk is full. Free some space.")


def test_little_room_is_told_before_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskspace, "LOW_BYTES", 1 << 62)
    assert "nearly full" in disk_trouble(tmp_path)


def _fill(write: Callable[[bytes], object]) -> None:
    while True:
        write(bytes(4096))
