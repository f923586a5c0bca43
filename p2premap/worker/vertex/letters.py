"""Mail of the array form that does not follow edges: letters to any vertex, and questions about a state array.

A question takes two supersteps: what is asked in superstep s is answered with what the array holds after the compute of
s + 1, and is at hand in s + 2. Each partition asks another one once about each vertex, however many of its own wonder:
that makes it cheap to follow pointers, as in Shiloach and Vishkin's algorithm, when most of them point to few roots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from p2premap.worker.gang import Buffer
from p2premap.worker.vertex.exchange import pack
from p2premap.worker.vertex.kernels import Array, Keys, Reducer, Slots, distinct, places_of
from p2premap.worker.vertex.owners import owner

LETTERS: Final = 4
QUESTIONS: Final = 5
ANSWERS: Final = 6
"""Kinds of sections."""
NAMES: Final = "/names"
"""What can be asked about like a state array, and is none."""


class _Sorted:
    """Things by the partition that they go to.

    Args:
        keys: whom each of them is for.
    """

    def __init__(self, keys: Keys, partitions: int, ranges: Keys | None) -> None:
        owners = owner(keys, partitions, ranges)
        self.order = np.argsort(owners, kind="stable")
        self.bounds = np.zeros(partitions + 1, np.int64)
        np.cumsum(np.bincount(owners, minlength=partitions), out=self.bounds[1:])

    def of(self, partition: int) -> Keys:
        """Which of them go to this one."""
        chosen: Keys = self.order[self.bounds[partition] : self.bounds[partition + 1]]
        return chosen


class _Asked:
    """What this partition has asked and not yet been answered.

    Args:
        keys: as the program gave them.
    """

    def __init__(self, keys: Keys, partitions: int, ranges: Keys | None) -> None:
        self.keys = keys
        self.vertices, self.places = distinct(keys)
        self.sorted = _Sorted(self.vertices, partitions, ranges)
        self.answers: Array | None = None

    def put(self, source: int, answers: Array) -> None:
        if self.answers is None:
            self.answers = np.zeros(len(self.vertices), answers.dtype)
        elif self.answers.dtype != answers.dtype:  # names, and these are wider
            self.answers = self.answers.astype(np.promote_types(self.answers.dtype, answers.dtype))
        self.answers[self.sorted.of(source)] = answers


class Letters:
    """One partition's mail to vertices by name.

    Args:
        how: the combiner, if there is one.
        state: the arrays that can be asked about.
        names: makes an array of the vertices' names, which can be asked about as `NAMES`.
    """

    def __init__(
        self,
        partitions: int,
        ranges: Keys | None,
        how: Reducer | None,
        state: Mapping[str, Array],
        names: Callable[[], Array],
    ) -> None:
        self._partitions, self._ranges = partitions, ranges
        self._how, self._state, self._names = how, state, names
        self._lost = 0
        self.answers: Array | None = None
        """To what was asked two supersteps ago, in the order of that."""
        self._outbox: list[tuple[Keys, Array]] = []
        self._sorted: tuple[_Sorted, Keys, Array] | None = None
        self._asking: tuple[str, _Asked] | None = None
        self._asked: _Asked | None = None
        self._answering: dict[int, tuple[str, Slots]] = {}
        self._came: list[tuple[Keys, Array]] = []
        self._asked_here: dict[int, tuple[str, Keys]] = {}
        self._questions: dict[int, tuple[str, Slots]] = {}

    # Sending

    def begin(self) -> int:
        """A superstep begins; how many answers it owes."""
        self._outbox, self._sorted, self._asking = [], None, None
        self._answering, self._questions = self._questions, {}
        return sum(len(slots) for _, slots in self._answering.values())

    def send(self, keys: Keys, values: Array) -> int:
        """Letters; how many."""
        self._outbox.append((keys, values))
        return len(keys)

    def ask(self, name: str, keys: Keys) -> int:
        """Ask what the state array `name` holds for these vertices; how many questions that makes."""
        assert self._asking is None, "one array is asked about in a superstep"
        asked = _Asked(keys, self._partitions, self._ranges)
        self._asking = name, asked
        return len(asked.vertices)

    def mail(self, partition: int) -> list[Buffer]:
        """The sections for another partition; [] = none."""
        pieces: list[Buffer] = []
        if self._outbox and self._sorted is None:
            self._sorted = self._sort()
        if self._sorted is not None:
            order, keys, values = self._sorted
            chosen = order.of(partition)
            if len(chosen):
                pieces += pack(LETTERS, keys[chosen], values[chosen])
        if self._asking is not None:
            name, asked = self._asking
            chosen = asked.sorted.of(partition)
            if len(chosen):
                pieces += pack(QUESTIONS, np.frombuffer(name.encode(), np.uint8), asked.vertices[chosen])
        if partition in self._answering:
            name, slots = self._answering[partition]
            pieces += pack(ANSWERS, (self._names() if name == NAMES else self._state[name])[slots])
        return pieces

    def _sort(self) -> tuple[_Sorted, Keys, Array]:
        keys = np.concatenate([keys for keys, _ in self._outbox])
        values = np.concatenate([values for _, values in self._outbox])
        if self._how is not None:
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], values[order]
            starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else order
            keys, values = keys[starts], self._how.ufunc.reduceat(values, starts) if len(keys) else values
        return _Sorted(keys, self._partitions, self._ranges), keys, values

    # Receiving

    def take(self, source: int, kind: int, arrays: Sequence[Array]) -> None:
        """A section of another partition; in order of source. Letters and questions are used up by `turn`."""
        if kind == LETTERS:
            self._came.append((arrays[0], arrays[1]))
        elif kind == QUESTIONS:
            self._asked_here[source] = arrays[0].tobytes().decode(), arrays[1]
        else:
            assert self._asked is not None, "who answers was asked"
            self._asked.put(source, arrays[0])

    def lost(self) -> int:
        """How many letters were for vertices that do not exist, since this was last asked; of one partition's letters
        to the same vertex, combined, one counts."""
        lost, self._lost = self._lost, 0
        return lost

    def turn(self, keys: Keys) -> list[tuple[Slots, Array]]:
        """All mail is here: the letters, by source, each with the places of those whom it is for.

        Args:
            keys: of the vertices that are here now, ascending.

        Raises:
            ValueError: a question about an array or a vertex that does not exist.
        """
        self.answers = None
        if self._asked is not None and self._asked.answers is not None:
            self.answers = self._asked.answers[self._asked.places]
        self._asked = self._asking[1] if self._asking is not None else None
        for source, (name, wanted) in self._asked_here.items():
            slots = places_of(keys, wanted)
            if (name != NAMES and name not in self._state) or (slots < 0).any():
                raise ValueError(f"{name!r} was asked for of a vertex that does not exist, or there is no such array.")
            self._questions[source] = name, slots
        letters = []
        for wanted, values in self._came:
            slots = places_of(keys, wanted)
            known = slots >= 0
            self._lost += int(len(slots) - np.count_nonzero(known))
            letters.append((slots[known], values[known]))
        self._came, self._asked_here = [], {}
        return letters

    # Checkpoints

    def kept(self) -> dict[str, Array]:
        """What has to outlive the process, between `turn` and `begin`."""
        arrays: dict[str, Array] = {}
        if self.answers is not None:
            arrays[f"answers:{self.answers.dtype.str}"] = self.answers.view(np.uint8)
        if self._asked is not None:
            arrays["asked"] = self._asked.keys
        for source, (name, slots) in self._questions.items():
            arrays[f"question:{source}:{name}"] = slots
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Become what gave these."""
        self.answers = self._asked = None
        if "asked" in arrays:
            self._asked = _Asked(np.array(arrays["asked"]), self._partitions, self._ranges)
        self._questions = {}
        for key, array in arrays.items():
            what, _, rest = key.partition(":")
            if what == "answers":
                self.answers = np.array(array).view(rest)
            if what == "question":
                source, _, name = rest.partition(":")
                self._questions[int(source)] = name, np.array(array)
