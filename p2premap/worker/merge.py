"""Sorted runs merged in bounded memory, at the speed of C loops.

A *run* is a sequence of blocks whose keys ascend; it may have a key several times, also across blocks. Merging pair by
pair with a heap costs a microsecond a pair in Python. Here each run has its front block in memory; the smallest last
key among the front blocks is the *bound*: every pair below it is at hand. These prefixes (found by bisection) are
poured into one dict, in order of run, and its keys sorted, which timsort does in about one comparison a key because
they are ascending pieces. At most two blocks a run are in memory.

Where nothing lies below the bound, a single key fills whole blocks: its values are then streamed, run after run.

Source: external merging as in Knuth, TAOCP 3, 5.4; timsort's galloping as in CPython's ``listsort.txt``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from blake3 import blake3

from p2premap.worker.blocks import HEAD, Columns, decode_block, shorten
from p2premap.worker.pairs import JobCodeError, Key
from p2premap.worker.runtime import InputLost, Segment

_READ_BYTES: Final = 1 << 20


class Window(NamedTuple):
    """Keys in ascending order, and all values of each: to be used before the next window is asked for."""

    keys: Sequence[Key]
    groups: Mapping[Key, Iterable[Any]]


class Run:
    """One sorted run: a range of a file, of which one or two blocks are in memory.

    Raises:
        InputLost: the file is gone, or is not what it was announced to be. Nothing is decoded before the digest of
            the whole run has been checked: blocks may hold pickles.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._next = segment.start
        self.front: list[Columns] = []
        if not segment.verified:
            self._verify()

    @property
    def more(self) -> bool:
        """Whether there are blocks on disk still."""
        return self._next < self._segment.end

    def fill(self) -> None:
        """Read a block where the front is empty, and a second one where it has a single key left."""
        while not self.front and self.more:
            self._read()
        if len(self.front) == 1 and self.more and self.front[0].keys[0] == self.front[0].keys[-1]:
            self._read()

    def take(self, bound: Key) -> list[Columns]:
        """Remove and return what lies below `bound`."""
        taken: list[Columns] = []
        while self.front and self.front[0].keys[-1] < bound:
            taken.append(self.front.pop(0))
        if self.front and (cut := bisect_left(self.front[0].keys, bound)):
            taken.append(self._split(cut))
        return taken

    def take_all(self) -> list[Columns]:
        """Remove and return everything in memory."""
        taken, self.front = self.front, []
        return taken

    def stream(self, key: Key) -> Iterator[Any]:
        """Remove and yield the values of `key`, which is this run's first or not in it."""
        self.fill()
        while self.front and self.front[0].keys[0] == key:
            columns = self._split(bisect_right(self.front[0].keys, key))
            for values in columns.values:
                if columns.grouped:
                    yield from values
                else:
                    yield values
            self.fill()

    def _split(self, cut: int) -> Columns:
        """Remove the first `cut` entries of the first block."""
        keys, values, grouped = self.front[0]
        if cut == len(keys):
            return self.front.pop(0)
        self.front[0] = Columns(keys[cut:], values[cut:], grouped)
        return Columns(keys[:cut], values[:cut], grouped)

    def _read(self) -> None:
        left = self._segment.end - self._next - HEAD.size
        head = self._bytes(self._next, HEAD.size) if left >= 0 else bytes(HEAD.size)
        stored = HEAD.unpack(head)[2]
        if stored > left:
            raise ValueError("a block ends behind its run")
        columns = decode_block(head, self._bytes(self._next + HEAD.size, stored))
        self._next += HEAD.size + stored
        if columns.keys:
            self.front.append(columns)

    def _bytes(self, offset: int, size: int) -> bytes:
        # Opened anew for each block: a reducer of many maps would run out of descriptors.
        try:
            with open(self._segment.path, "rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise InputLost(f"A map output cannot be read: {error.strerror}.", self._segment.digest) from None
        if len(data) < size:
            raise InputLost("A map output is shorter than announced.", self._segment.digest)
        return data

    def _verify(self) -> None:
        hasher, segment = blake3(), self._segment
        for offset in range(segment.start, segment.end, _READ_BYTES):
            hasher.update(self._bytes(offset, min(_READ_BYTES, segment.end - offset)))
        if hasher.digest() != segment.digest:
            raise InputLost("A map output is not what was announced.", segment.digest)


def merge(runs: Sequence[Run]) -> Iterator[Window]:
    """The runs as one, in windows; values of a key come in order of run.

    Raises:
        InputLost: see `Run`.
        JobCodeError: keys that do not compare with each other, or have no order.
    """
    runs = list(runs)
    while True:
        for run in runs:
            run.fill()
        runs = [run for run in runs if run.front]
        if not runs:
            return
        bounds = [run.front[-1].keys[-1] for run in runs if run.more]
        taken: list[Columns] = []
        try:
            for run in runs:
                taken += run.take(min(bounds)) if bounds else run.take_all()
            window = _window(taken)
        except TypeError:
            fronts = (c for run in runs for c in run.front)
            raise incomparable(k for c in chain(taken, fronts) for k in c.keys) from None
        if window.keys:
            yield window
            continue
        key = min(bounds)
        if not any(run.front[0].keys[0] == key for run in runs):  # else nothing would ever be taken
            raise JobCodeError(
                f"map gave a key that has no place among others, {shorten(key)}: it must be equal to itself, and in "
                "an order with all others."
            )
        values = (value for run in runs for value in run.stream(key))
        yield Window((key,), {key: values})
        for _ in values:  # what the consumer left
            pass


def _window(taken: Sequence[Columns]) -> Window:
    groups: defaultdict[Key, list[Any]] = defaultdict(list)
    for keys, values, grouped in taken:
        if grouped:
            for key, several in zip(keys, values, strict=True):
                groups[key] += several
        else:
            for key, value in zip(keys, values, strict=True):
                groups[key].append(value)
    return Window(sorted(groups), groups)


def incomparable(keys: Iterable[Key]) -> Exception:
    """The sentence about keys that cannot be sorted."""
    examples: dict[object, Key] = {}
    for key in keys:
        examples.setdefault(tuple(map(type, key)) if isinstance(key, tuple) else type(key), key)
    shown = " and ".join(f"{shorten(key)} ({type(key).__name__})" for key in list(examples.values())[:2])
    return JobCodeError(
        f"map gave keys that do not compare with each other, such as {shown}: keys of a job must be of one kind, or "
        "the job file must say sort_key(key)."
    )
