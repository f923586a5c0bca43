"""Whether a node's directory can take what the node has to keep. Asked when a person asks, so nothing is polled.

The free space that a file system tells is not all: a quota, a directory without permission, a disk that went
read-only after an error show only when something is written. So a small file is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from p2premap.node.blobs import why_unwritable

FULL_BYTES: Final = 16 << 20
"""With less than this free a node cannot keep results of any use."""
LOW_BYTES: Final = 256 << 20
_PROBE: Final = bytes(16 << 10)


def disk_trouble(directory: Path) -> str:
    """One sentence about why this directory takes nothing, or soon will not; "" where all is well. Blocks."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            probe.unlink()  # of a life that was killed just then
        try:
            probe.write_bytes(_PROBE)
        finally:
            with contextlib.suppress(FileNotFoundError):
                probe.unlink()
        space = os.statvfs(directory)
    except OSError as error:
        return f"This node cannot keep anything in {directory}: {why_unwritable(error)}. {_remedy(error)}"
    free = space.f_bavail * space.f_frsize
    if free < LOW_BYTES:
        state = "full" if free < FULL_BYTES else "nearly full"
        return f"The disk that holds {directory} is {state}: {free >> 20} MB are free. Free some space."
    return ""


def _remedy(error: OSError) -> str:
    return "Free some space." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make it writable."
