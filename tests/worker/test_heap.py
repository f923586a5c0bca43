"""What was freed goes back to the system."""

from __future__ import annotations

import platform

import psutil
import pytest

from p2premap.worker.heap import give_back

PIECE, PIECES = 100 << 10, 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_what_lies_below_something_in_use_is_returned() -> None:
    process = psutil.Process()
    kept = [bytearray(PIECE) for _ in range(PIECES)]
    del kept[:-1]
    before = process.memory_info().rss
    give_back()
    assert process.memory_info().rss < before - PIECE * PIECES / 2
