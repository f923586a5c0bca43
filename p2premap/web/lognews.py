"""What is new in logs that are read again and again, each whole, or its two ends where it is long.

A place in a log is counted in bytes of what the attempt printed. What is missing in the middle counts, as the mark
there says how much it is; so what comes after a place is known also where the last end has moved on since then.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from p2premap.node.logs import CUT, CUT_TAIL

SURE_BYTES: Final = 256
"""So much of what was told last is compared with what is there now."""
_CUT: Final = re.compile(re.escape(CUT).replace(b"%d", rb"(\d{1,15})"))
_MARK_BYTES: Final = 64
"""Longer than any mark."""
_TAIL: Final = CUT_TAIL.partition(b"%d")[0]


class _Told(NamedTuple):
    """How far a log was told: to which place, what came last, and the hash of the first end where there are two."""

    place: int
    last: bytes
    first: int


class _Kept(NamedTuple):
    """What is kept of what an attempt printed: its first bytes, and those from a place on."""

    first: bytes
    last: bytes
    place: int

    @property
    def told(self) -> _Told:
        """Once all of it was."""
        first = hash(self.first) if self.last else 0
        return _Told(self.place + len(self.last), (self.last or self.first)[-SURE_BYTES:], first)

    def goes_on(self, told: _Told) -> bool:
        """Whether this may be the log that was told so far."""
        if told.place > self.place + len(self.last):
            return False
        if told.place <= len(self.first):
            before = self.first[: told.place]
        else:
            before = self.last[: max(told.place - self.place, 0)]
        size = min(len(before), len(told.last))
        return before[len(before) - size :] == told.last[len(told.last) - size :]

    def since(self, place: int) -> bytes:
        """What comes after a place."""
        missing = self.place - max(place, len(self.first))
        mark = CUT % missing if missing > 0 else b""
        return self.first[place:] + mark + self.last[max(place - self.place, 0) :]


def _kept(text: bytes) -> _Kept:
    """Take a log apart. A mark is in the middle; others were printed."""
    found = _CUT.search(text, max(len(text) // 2 - _MARK_BYTES, 0))
    if found is None or len(text) - found.end() - found.start() not in (0, 1):  # a log that is over ends with one more
        return _Kept(text, b"", len(text))
    return _Kept(text[: found.start()], text[found.end() :], found.start() + int(found[1]))


class LogNews:
    """Of logs that are read again and again, what is new; under the head of its attempt, where that is another one."""

    def __init__(self) -> None:
        self._told: dict[bytes, list[_Told]] = {}
        self._head = b""

    def of(self, piece: bytes) -> bytes:
        """What is new of the log of an attempt, which begins with its head; other logs may have the same head."""
        if not piece:
            return b""
        head, _, text = piece.partition(b"\n")
        kept, known = _kept(text), self._told.setdefault(head, [])
        now = kept.told
        told = max((one for one in known if kept.goes_on(one)), default=None)
        if told is not None:
            fresh = kept.since(told.place)
        else:
            self._head = b""
            told = next((one for one in known if one.first == now.first != 0), None)
            # the same beginning: the node has thrown away what came after it, and the attempt prints on
            fresh = text if told is None else _since_thrown_away(kept)
        if told is not None:
            known.remove(told)
        known.append(now)
        if head == self._head or (told is not None and not fresh):
            return fresh
        self._head = head
        return head + b"\n" + fresh


def _since_thrown_away(kept: _Kept) -> bytes:
    at = kept.last.rfind(_TAIL)
    return kept.since(len(kept.first)) if at < 0 else kept.last[at:]
