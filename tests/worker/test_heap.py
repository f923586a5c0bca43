"""What was freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from p2premap.worker.heap import give_back

PIECE, PIECES = 100 << 10, 1_000
process = psutil.Process()
kept = [bytearray(PIECE) for _ in range(PIECES)]
del kept[:-1]
before = process.memory_info().rss
give_back()
print(before - process.memory_info().rss > PIECE * PIECES / 2)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_what_lies_below_something_in_use_is_returned() -> None:
    """In a process of its own: in this one there may be room for the last piece below the others."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"
