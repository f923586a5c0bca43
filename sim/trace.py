"""Everything that happened in a world, as one hash and as a few last lines.

Two runs with one seed and one commit have the same hash, whatever PYTHONHASHSEED is; where they differ, something
in a core draws on set order, the wall clock or a global random number generator.
"""

from __future__ import annotations

import re
import struct
from ast import literal_eval
from collections import deque
from typing import Final

from blake3 import blake3

_HEAD: Final = struct.Struct(">dIBI")
_CHUNK: Final = 256
"""So many entries are hashed at a time."""

_LINES: Final = 400
_LINE: Final = 240
_BYTES: Final = re.compile(r"""b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*\"""")


class Trace:
    """A running BLAKE3 hash over (instant, node, kind, encoding)."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._fresh: list[tuple[float, int, int, bytes, object, str]] = []
        """Entries that are not in the hash yet."""
        self._tail: deque[tuple[float, int, str, object]] = deque(maxlen=_LINES)

    def add(self, now: float, seat: int, kind: int, data: bytes, shown: object, word: str) -> None:
        """Enter one thing that happened.

        Args:
            now: virtual seconds.
            seat: the machine's index.
            kind: a byte that tells events, effects and faults apart.
            data: its encoding; for a message the very bytes that travelled.
            shown: kept for `tail`, as it is.
            word: what happened, for people.
        """
        fresh = self._fresh
        fresh.append((now, seat, kind, data, shown, word))
        if len(fresh) == _CHUNK:
            self._take_in()

    def _take_in(self) -> None:
        fresh, self._fresh, pack = self._fresh, [], _HEAD.pack
        self._hash.update(b"".join([pack(now, seat, kind, len(data)) + data for now, seat, kind, data, _, _ in fresh]))
        self._tail.extend([(now, seat, word, shown) for now, seat, _, _, shown, word in fresh])

    def digest(self) -> str:
        """The hash of everything so far, in hexadecimal."""
        self._take_in()
        return self._hash.hexdigest()

    def tail(self, seat: int | None = None, lines: int = 30) -> str:
        """The last things that happened, at one machine or at all, one a line."""
        self._take_in()
        chosen = [entry for entry in self._tail if seat is None or entry[1] == seat][-lines:]
        return "\n".join(
            f"  {now:12.6f}  node {index:<4d} {word} {_brief(shown)}" for now, index, word, shown in chosen
        )


def _brief(shown: object) -> str:
    """Ids by their first digits, nothing longer than a line."""
    text = _BYTES.sub(lambda found: literal_eval(found[0])[:4].hex() or "''", str(shown))
    return text if len(text) <= _LINE else text[: _LINE - 3] + "..."
