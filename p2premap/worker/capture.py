"""What an attempt prints: one file below file descriptors 1 and 2, so that C code and subprocesses are caught too.

The executor starts the process with the file in place. An attempt that prints nothing costs one ``fstat``; after one
that did, the file is moved to its log and a new one takes its place: a process that the attempt left behind goes on
writing to the old one.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from p2premap.node.logs import TAIL_BYTES, read_tail, store_output

OUTPUT_NAME: Final = "output"
_FILES_MAX: Final = 10_000
_KEPT_BYTES_MAX: Final = 256 << 20


class Capture:
    """The output of one worker process.

    Args:
        directory: of the process; holds the file ``output``.
        log_bytes_max: of one attempt; beyond, the middle is cut.

    After 10,000 files or 256 MiB of one process, only the tails of attempts that failed are told, in their ends.
    """

    def __init__(self, directory: str, log_bytes_max: int) -> None:
        self._output = f"{directory}/{OUTPUT_NAME}"
        self._log_bytes_max = log_bytes_max
        self._files_left = _FILES_MAX
        self._bytes_left = _KEPT_BYTES_MAX
        self._logging = False
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]

    def begin(self) -> None:
        """Before an attempt: open again what one before it closed; once logging is imported, have it write here too."""
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            if getattr(getattr(sys, name), "closed", True):
                stream = open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)
        if not self._logging and "logging" in sys.modules:
            self._logging = True
            import logging

            # basicConfig does nothing where user code has configured logging itself
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def spoke(self) -> bool:
        """After an attempt: whether it printed anything."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            return os.lseek(1, 0, os.SEEK_END) > 0
        except Exception:
            # user code may have closed or replaced any of them
            return True

    def tail(self, size: int = TAIL_BYTES) -> str:
        """The last bytes of what the attempt printed."""
        return read_tail(self._output, size)

    def store(self, destination: str) -> None:
        """Move what the attempt printed to its log, and start afresh."""
        size = min(os.stat(self._output).st_size, self._log_bytes_max)
        if self._files_left and self._bytes_left >= size:
            try:
                store_output(self._output, destination, self._log_bytes_max)
            except OSError:  # the disk is full: the attempt's result matters more than its log
                os.unlink(self._output)
            else:
                self._files_left -= 1
                self._bytes_left -= size
        else:
            os.unlink(self._output)
        fresh = os.open(self._output, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for standard in (1, 2):
            if fresh == standard:  # the attempt had closed it
                os.set_inheritable(fresh, True)
            else:
                os.dup2(fresh, standard)
        if fresh not in (1, 2):
            os.close(fresh)
