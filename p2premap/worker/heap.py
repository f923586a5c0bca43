"""Memory that the C library keeps although it was freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_back() -> None:
    """Return to the system what was freed.

    Arrays of up to some 32 MB come from glibc's heap once such arrays have been freed before, and what is freed there
    stays where anything that lies above it is still in use. Takes milliseconds for each 100 MB; other C libraries have
    nothing like it.

    Sources: malloc_trim(3); mallopt(3) on M_MMAP_THRESHOLD.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
