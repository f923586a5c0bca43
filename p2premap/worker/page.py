"""Memory that a worker process, its supervisor and the node's executor share: what runs now, and what has ended.

::

    word  0 started    number of the attempt that was begun last (attempts of one process are numbered from 1)
          1 began      when, by the system-wide monotonic clock, seconds
          2 ended      number of the attempt that ended last
          3 epoch      odd while the journal is being emptied
          4 length     bytes in the journal
          5 status     the worker's wait status + 1, once its supervisor has seen it end; 0 before
          6 peak       the worker's peak resident memory in bytes, set with `status`
          7 pid        of the worker
    from byte 64       the journal: ends of attempts that have not been sent yet, one after the other

So the executor knows which attempt was running when a process died and how long an attempt has been running, without
a message an attempt; and what had ended but not been sent outlives the process. The supervisor writes words 5 and 6,
the worker all the others, the executor none. User code lives in the worker and can write anything anywhere: whoever
reads here bounds what it reads, and the memory is sealed, for whoever reads beyond the end of a file that was cut is
killed by SIGBUS.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Final

JOURNAL_BYTES: Final = 448 << 10
_HEAD_BYTES: Final = 64
_SIZE: Final = _HEAD_BYTES + JOURNAL_BYTES
_STATUS_BITS: Final = 0xFFFF
_PEAK_MAX: Final = 2**53
"""What a report can carry."""

_STARTED, _BEGAN, _ENDED, _EPOCH, _LENGTH, _STATUS, _PEAK, _PID = range(8)


def new_page(directory: str) -> int:
    """A descriptor of zeroed shared memory of a fixed size; where the system has none, of a file in `directory`.

    Raises:
        OSError: no memory or no disk.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.ExitStack() as undo:
            descriptor = os.memfd_create("p2premap-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            undo.callback(os.close, descriptor)
            os.ftruncate(descriptor, _SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            undo.pop_all()
        return descriptor
    import tempfile  # slow to import, and rarely needed

    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        # written, not only made so long: a page for which the disk has no room later is SIGBUS too
        left = memoryview(bytes(_SIZE))
        while left:
            left = left[file.write(left) :]
        return os.dup(file.fileno())


class Page:
    """One mapping of the shared memory behind a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        view = memoryview(self._memory)
        self._words = view[:_HEAD_BYTES].cast("Q")
        self._times = view[:_HEAD_BYTES].cast("d")
        self._journal = view[_HEAD_BYTES:]
        view.release()

    def close(self) -> None:
        """Unmap."""
        for view in (self._words, self._times, self._journal):
            view.release()
        self._memory.close()

    # --- the worker writes ---

    def set_pid(self, pid: int) -> None:
        """The worker is this process."""
        self._words[_PID] = pid

    def begin(self, number: int, now: float) -> None:
        """Attempt `number` starts."""
        self._times[_BEGAN] = now
        self._words[_STARTED] = number

    def end(self, number: int, record: bytes) -> bool:
        """Attempt `number` has ended; False if the journal must be emptied before it can take the record."""
        length = self._words[_LENGTH]
        after = length + len(record)
        if after > JOURNAL_BYTES:
            return False
        self._journal[length:after] = record
        self._words[_LENGTH] = after
        self._words[_ENDED] = number
        return True

    def pending(self) -> memoryview:
        """What is in the journal."""
        return self._journal[: self._words[_LENGTH]]

    def clear(self) -> None:
        """Everything pending has been sent."""
        self._words[_EPOCH] += 1
        self._words[_LENGTH] = 0
        self._words[_EPOCH] += 1

    # --- the supervisor writes ---

    def close_with(self, status: int, peak_bytes: int) -> None:
        """The worker has ended with this wait status."""
        self._words[_PEAK] = peak_bytes
        self._words[_STATUS] = status + 1

    # --- the executor reads ---

    @property
    def pid(self) -> int:
        """The worker's process id; 0 until it is up."""
        return self._words[_PID]

    @property
    def started(self) -> int:
        """The number of the attempt begun last; 0 before the first."""
        return self._words[_STARTED]

    @property
    def began(self) -> float:
        """When it began."""
        return self._times[_BEGAN]

    @property
    def running(self) -> int:
        """The number of the attempt that is running (or was, when the process died); 0 if none."""
        started = self._words[_STARTED]
        return started if started > self._words[_ENDED] else 0

    @property
    def status(self) -> int | None:
        """The worker's wait status; None while it lives, or if its supervisor was killed."""
        value = self._words[_STATUS]
        return (value - 1) & _STATUS_BITS if value else None

    @property
    def peak_bytes(self) -> int:
        """The worker's peak resident memory, once it has ended."""
        return min(self._words[_PEAK], _PEAK_MAX)

    @property
    def journal_mark(self) -> tuple[int, int]:
        """Changes whenever the journal does: (epoch, length)."""
        return self._words[_EPOCH], self._words[_LENGTH]

    def journal(self) -> bytes:
        """A copy of what is pending. Whole records only if `journal_mark` is the same before and after."""
        return bytes(self._journal[: min(self._words[_LENGTH], JOURNAL_BYTES)])
