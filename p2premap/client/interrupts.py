"""Ctrl-C, put off for a moment: where it would leave half of a change that nobody else can finish."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Final

_signal: Final[Any] = sys.modules.get("_signal", signal)
"""Without the enums that `signal` makes of what it is given and gives back, which take ten times as long."""
_INTERRUPT: Final = int(signal.SIGINT)
_INTERRUPTS: Final = signal.default_int_handler


class PutOff:
    """A context in which Ctrl-C does nothing; at its end it raises `KeyboardInterrupt`, if it came meanwhile.

    For what takes no time: nothing is waited for in it. Where the program, or the loop that it runs, has its own way
    with Ctrl-C, or this is not the main thread, nothing is put off.
    """

    __slots__ = ("_came", "_is_ours")

    def __enter__(self) -> None:
        self._came = False
        self._is_ours = (
            threading.get_ident() == threading.main_thread().ident and _signal.getsignal(_INTERRUPT) is _INTERRUPTS
        )
        if self._is_ours:
            try:
                _signal.signal(_INTERRUPT, self._note)
            except ValueError:  # this interpreter is not the main one of its process
                self._is_ours = False

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            _signal.signal(_INTERRUPT, _INTERRUPTS)
            if self._came:
                raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
