"""What is known of a job: facts that only grow, cells that were decided.

**Facts** are true once and for all, so that replicas need no agreement on them, only copies
(`p2premap.tasks.journal`): which results each task has and who holds them, and how attempts failed. Told again they
change nothing; a node that dies takes nothing back (that it cannot be read *now* is an observation of the leader, see
`p2premap.tasks.locations`).

**Cells** are the few decisions of a job, each written once by vote of its replicas: the manifest of each stage, the
exact results that it pinned, and ``final``. A pure set in which "done" wins would mix lineages when a task that is not
deterministic runs twice (Spark lost rows so: SPARK-23207). So nothing is planned from results before a cell has pinned
them, and the ids of what is planned from them contain the cell's value.

Facts about a million tasks are a few packed arrays: 14 bytes a task beside the results' own bytes.
"""

from __future__ import annotations

import struct
import typing
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NewType, overload

import cbor2
from blake3 import blake3

from p2premap.errors import RemoteProtocolError
from p2premap.ids import Digest, NodeId
from p2premap.tasks.director import Pinned
from p2premap.tasks.job import AttemptEnd, BlobRef, Outcome, Phase, StageId
from p2premap.wire import decode_cbor

LINEAGE_BYTES: typing.Final = 8
SHARED_VALUES_MAX: typing.Final = 1024
SHARED_BYTES_MAX: typing.Final = 256

ResultRef = NewType("ResultRef", int)
"""Names one stored result of a stage at this replica; 0 means none."""

_HEAD: typing.Final = struct.Struct("<QIH")
_BLOB: typing.Final = struct.Struct("<32sQ")
_COUNTED: typing.Final = 8
_FAILED: typing.Final = 0xFFFF
"""In the place of the number of blobs: no result, the task has failed for good."""


class ResultFact(NamedTuple):
    """One attempt of a task yielded this result, and its node holds the blobs."""

    attempt: int
    node: NodeId
    result: ResultRef


class FailureFact(NamedTuple):
    """One attempt of a task ended without a result, and that counts."""

    task: int
    attempt: int
    node: NodeId
    outcome: Outcome
    error: str
    detail: str


class Results:
    """Result values one after another in one buffer; equal small ones are stored once."""

    def __init__(self) -> None:
        self._buffer = bytearray(1)
        self._shared: dict[tuple[bytes, tuple[BlobRef, ...], int], ResultRef] = {}

    @property
    def size(self) -> int:
        """Bytes used."""
        return len(self._buffer)

    def add(self, value: bytes, blobs: tuple[BlobRef, ...], records_out: int) -> ResultRef:
        """Store a result."""
        small = not blobs and len(value) <= SHARED_BYTES_MAX
        if small and (known := self._shared.get((value, blobs, records_out))) is not None:
            return known
        ref = ResultRef(len(self._buffer))
        self._buffer += _HEAD.pack(records_out, len(value), len(blobs))
        self._buffer += value
        for blob in blobs:
            self._buffer += _BLOB.pack(blob.digest, blob.size)
        if small and len(self._shared) < SHARED_VALUES_MAX:
            self._shared[value, blobs, records_out] = ref
        return ref

    def add_failed(self, value: bytes) -> ResultRef:
        """Store that there is none, and what the failure carried."""
        ref = ResultRef(len(self._buffer))
        self._buffer += _HEAD.pack(0, len(value), _FAILED)
        self._buffer += value
        return ref

    def failed(self, ref: ResultRef) -> bool:
        """Whether it stands for a failure."""
        return bool(_HEAD.unpack_from(self._buffer, ref)[2] == _FAILED)

    def get(self, ref: ResultRef) -> tuple[bytes, tuple[BlobRef, ...], int]:
        """Value, blobs and records_out."""
        records_out, size, blobs = _HEAD.unpack_from(self._buffer, ref)
        start = ref + _HEAD.size
        return bytes(self._buffer[start : start + size]), self._blobs(start + size, blobs), records_out

    def blobs(self, ref: ResultRef) -> tuple[BlobRef, ...]:
        """The result's large parts."""
        _, size, blobs = _HEAD.unpack_from(self._buffer, ref)
        return self._blobs(ref + _HEAD.size + size, blobs) if blobs else ()

    def _blobs(self, start: int, count: int) -> tuple[BlobRef, ...]:
        found = []
        for n in range(count % _FAILED):
            digest, size = _BLOB.unpack_from(self._buffer, start + n * _BLOB.size)
            found.append(BlobRef(digest=Digest(digest), size=size))
        return tuple(found)

    def content(self, ref: ResultRef) -> bytes:
        """What makes two results the same: value and blobs, not counters."""
        _, size, blobs = _HEAD.unpack_from(self._buffer, ref)
        return bytes(self._buffer[ref + _COUNTED : ref + _HEAD.size + size + blobs % _FAILED * _BLOB.size])


class StageFacts:
    """The facts of one stage, and which result of each task this replica would pin.

    Args:
        tasks: how many the stage has.
    """

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.results = Results()
        self.failures: dict[tuple[int, int], FailureFact] = {}
        self.any_blobs = False
        self._chosen = array("Q", bytes(8 * tasks))
        self._attempt = array("I", bytes(4 * tasks))
        self._holder = array("H", bytes(2 * tasks))
        self._more: dict[int, list[ResultFact]] = {}
        self._nodes: list[NodeId] = []
        self._numbers: dict[NodeId, int] = {}
        self._hasher = blake3()
        self._hashed = 0
        self._last: tuple[bytes, int] | None = None
        self._last_ref = ResultRef(0)

    def add(
        self, task: int, attempt: int, node: NodeId, value: bytes, blobs: tuple[BlobRef, ...], records_out: int
    ) -> ResultRef:
        """Take the fact that an attempt yielded a result; again changes nothing. The first one is chosen."""
        if not self._chosen[task]:
            ref = self.results.add(value, blobs, records_out)
            self._chosen[task], self._attempt[task], self._holder[task] = ref, attempt, self._number(node)
        else:
            for fact in self.facts(task):
                if fact.attempt == attempt and fact.node == node:
                    return fact.result
            ref = self._same_as(task, value, blobs) or self.results.add(value, blobs, records_out)
            self._more.setdefault(task, []).append(ResultFact(attempt, node, ref))
            self._number(node)
        if blobs:
            self.any_blobs = True
        return ref

    def add_first(self, task: int, attempt: int, node: NodeId, value: bytes, records_out: int) -> None:
        """The same for a task that has no result yet, and a result without blobs: the usual case of many tasks."""
        assert not self._chosen[task], "the task has a result already"
        if (value, records_out) != self._last:
            self._last = (value, records_out)
            self._last_ref = self.results.add(value, (), records_out)
        self._chosen[task] = self._last_ref
        self._attempt[task] = attempt
        self._holder[task] = self._number(node)

    def add_firsts(self, node: NodeId, ends: Iterable[AttemptEnd]) -> None:
        """The same for many."""
        value, records_out, ref = b"", -1, ResultRef(0)
        number = self._number(node)
        chosen, attempts, holders, add = self._chosen, self._attempt, self._holder, self.results.add
        for end in ends:
            if end.records_out != records_out or end.value != value:
                value, records_out = end.value, end.records_out
                ref = add(value, (), records_out)
            task = end.task
            chosen[task], attempts[task], holders[task] = ref, end.attempt, number

    @property
    def choices(self) -> Sequence[int]:
        """The result to pin of each task; 0 where there is none yet."""
        return self._chosen

    def grow(self, tasks: int) -> None:
        """The stage has so many more tasks."""
        self.tasks += tasks
        self._chosen.frombytes(bytes(8 * tasks))
        self._attempt.frombytes(bytes(4 * tasks))
        self._holder.frombytes(bytes(2 * tasks))

    def give_up(self, task: int, attempt: int, node: NodeId, value: bytes) -> None:
        """Take the fact that this failure is the task's answer, if it has none yet."""
        if not self._chosen[task]:
            self._chosen[task], self._attempt[task] = self.results.add_failed(value), attempt
            self._holder[task] = self._number(node)

    def hold(self, task: int, attempt: int, node: NodeId, holder: NodeId) -> bool:
        """Take the fact that `holder` has what this attempt at `node` yielded. False: it changes nothing."""
        if self.knows(task, attempt, holder):
            return False
        for fact in self.facts(task):
            if fact.attempt == attempt and fact.node == node:
                self._more.setdefault(task, []).append(ResultFact(attempt, holder, fact.result))
                self._number(holder)
                return True
        return False

    def knows(self, task: int, attempt: int, node: NodeId) -> bool:
        """Whether this attempt's result is known."""
        return any(fact.attempt == attempt and fact.node == node for fact in self.facts(task))

    def nodes(self) -> tuple[NodeId, ...]:
        """All that have yielded or hold a result."""
        return tuple(self._nodes)

    def fail(self, failure: FailureFact) -> None:
        """Take the fact that an attempt failed; again changes nothing."""
        self.failures.setdefault((failure.task, failure.attempt), failure)

    def facts(self, task: int) -> Iterator[ResultFact]:
        """The task's results, the chosen one first."""
        if chosen := self._chosen[task]:
            yield ResultFact(self._attempt[task], self._nodes[self._holder[task]], ResultRef(chosen))
            yield from self._more.get(task, ())

    def chosen(self, task: int) -> ResultRef:
        """The result to pin; 0 if there is none yet."""
        return ResultRef(self._chosen[task])

    def chosen_attempt(self, task: int) -> int | None:
        """Of which attempt that is; None if there is none yet."""
        return self._attempt[task] if self._chosen[task] else None

    def choose(self, task: int, fact: ResultFact) -> None:
        """Prefer another of the task's results: what was chosen can be read nowhere."""
        kept = [f for f in self.facts(task) if f != fact]
        self._chosen[task], self._attempt[task], self._holder[task] = fact.result, fact.attempt, self._number(fact.node)
        self._more[task] = kept
        if task < self._hashed:
            self._hasher, self._hashed = blake3(), 0

    def held_by(self, node: NodeId) -> Iterator[int]:
        """Tasks of which this node holds the blobs of a result, chosen or not."""
        if not self.any_blobs or node not in self._numbers:
            return
        number = self._numbers[node]
        for task, holder in enumerate(self._holder):
            if holder == number or task in self._more:
                for fact in self.facts(task):
                    if fact.node == node and self.results.blobs(fact.result):
                        yield task
                        break

    def holders(self, task: int) -> tuple[NodeId, ...]:
        """Who holds the chosen result: whoever yielded one of the same content."""
        chosen = self.chosen(task)
        return tuple(dict.fromkeys(f.node for f in self.facts(task) if f.result == chosen))

    def pinned(self, task: int) -> Pinned:
        """The chosen result as the director sees it."""
        value, blobs, records_out = self.results.get(self.chosen(task))
        failed = self.results.failed(self.chosen(task))
        return Pinned(value=value, blobs=blobs, holders=self.holders(task), records_out=records_out, failed=failed)

    def hash_ahead(self) -> None:
        """Hash what is chosen so far, in order of task, so that `manifest` has little left to do at the end."""
        content = self.results.content
        pieces: list[bytes] = []
        piece, of, task = b"", 0, self._hashed
        while task < self.tasks and (ref := self._chosen[task]):
            if ref != of:
                piece, of = content(ResultRef(ref)), ref
            pieces.append(piece)
            task += 1
        self._hasher.update(b"".join(pieces))
        self._hashed = task

    def manifest(self, generation: int) -> Digest:
        """BLAKE3 over the chosen results, in order of task, and the generation: the value of the stage's cell.

        Every task must have one. A stage that is pinned anew never has an earlier manifest again, even with the
        same results, so that what was planned from that one stays abandoned.
        """
        self.hash_ahead()
        assert self._hashed == self.tasks, "a manifest pins a result of every task"
        hasher = self._hasher.copy()
        hasher.update(generation.to_bytes(8))
        return Digest(hasher.digest())

    def _same_as(self, task: int, value: bytes, blobs: tuple[BlobRef, ...]) -> ResultRef | None:
        for fact in self.facts(task):
            known_value, known_blobs, _ = self.results.get(fact.result)
            if self.results.failed(fact.result):
                continue
            if known_value == value and known_blobs == blobs:
                return fact.result
        return None

    def _number(self, node: NodeId) -> int:
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return number


class PinnedResults(Sequence[Pinned]):
    """A stage's chosen results, unpacked one at a time."""

    def __init__(self, facts: StageFacts) -> None:
        self._facts = facts

    def __len__(self) -> int:
        return self._facts.tasks

    @overload
    def __getitem__(self, index: int) -> Pinned: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pinned]: ...
    def __getitem__(self, index: int | slice) -> Pinned | Sequence[Pinned]:
        if isinstance(index, slice):
            return [self._facts.pinned(t) for t in range(*index.indices(len(self)))]
        return self._facts.pinned(range(len(self))[index])


def manifest_cell(stage: StageId, generation: int) -> str:
    """The name of the cell that pins a stage's results: ``manifest/<number>[-<lineage>]/<generation>``."""
    lineage = f"-{stage.lineage.hex()}" if stage.lineage else ""
    return f"manifest/{stage.number}{lineage}/{generation}"


FINAL_CELL: typing.Final = "final"


class Final(NamedTuple):
    """The value of the cell ``final``: how the job ended."""

    phase: Phase
    error: str = ""
    detail: str = ""

    def encode(self) -> bytes:
        """As the cell's value."""
        return cbor2.dumps((self.phase.value, self.error, self.detail))

    @classmethod
    def decode(cls, value: bytes) -> Final:
        """From the cell's value.

        Raises:
            RemoteProtocolError: another replica wrote something else.
        """
        match decode_cbor(value):
            case [str(phase), str(error), str(detail)] if phase in {p.value for p in Phase}:
                return cls(Phase(phase), error, detail)
            case _:
                raise RemoteProtocolError("not the end of a job")
