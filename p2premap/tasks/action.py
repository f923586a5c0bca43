"""The director of actions: work on inputs one by one, which may be split before and merged after.

::

    stage 0 "process"   one task an input; grows: what a task splits its input into, or adds, are further tasks
    stage n "gather"    only where there are many results: puts a thousand of them into one blob, in their order
    stage n "merge"     one task with all results in the order of the inputs; or, where the order does not matter,
                        one task for each hundred results, then for each hundred of theirs, until one is left
    parts               of the last stage: each result as a line of JSON, and the files that its tasks have saved

Inputs and results are JSON, which is opaque here. A file that a task saves is a blob of its result; text in an input
or a result that names the file has it brought to where the input or result goes. Whether an action splits is seen in
the worker process, which alone may run user code; whether it merges must be known before, from its source.

The idea of the three steps, and that a step fails its job: CloudCrowd (DocumentCloud, 2009).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from p2premap.errors import JobError, JobFailed, JobRejected
from p2premap.ids import Digest, JobId, NodeId
from p2premap.tasks.director import Extension, Pinned, StagePlan, TaskInput
from p2premap.tasks.job import INLINE_BYTES_MAX, SAVED_PARTS_FIRST, BlobRef, Part, Source, StageId
from p2premap.wire import Count, DigestField, FilePath, NodeIdField, Record, Short

KIND: Final = "action"
PLAN_VERSION: Final = 1

UNIT: Final = "unit"
GATHER: Final = "gather"
MERGE: Final = "merge"

SMALL_BYTES_MAX: Final = 1 << 10
"""A result that is to be merged and is larger than this is a blob: all small ones travel in one message."""
GATHERED_MAX: Final = 1_000
MERGED_MAX: Final = 100
"""So many results go into one merge where their order does not matter."""
INPUTS_MAX: Final = 1_000_000
FILES_A_TASK_MAX: Final = 1_000


class InputFile(Record, frozen=True, kw_only=True):
    """An input that is a file of the submitting machine. See `p2premap.tasks.mapreduce_plan.InputFile`."""

    path: FilePath
    mtime_ns: int
    size: Count
    digest: DigestField


class Given(Record, frozen=True, kw_only=True):
    """An input.

    Args:
        value: JSON; of a file its name as the user gave it.
        file: where the input is a file.
    """

    value: bytes
    file: InputFile | None = None


class ActionPlan(Record, frozen=True, kw_only=True):
    """The plan blob.

    Args:
        action: the class's name.
        options: a JSON object.
        merges: the class defines `merge`.
        unordered: its merge takes results in any order, and may be called on its own results.
    """

    version: int
    action: Short
    inputs: tuple[Given, ...]
    options: bytes
    merges: bool = False
    unordered: bool = False


class Saved(Record, frozen=True, kw_only=True):
    """A file that a task has saved. `size` in bytes; holders as they were when the file was first used."""

    digest: DigestField
    size: Count
    holders: tuple[NodeIdField, ...] = ()


class Added(Record, frozen=True, kw_only=True):
    """An input that a task adds: JSON, and the saved files that it names."""

    value: bytes
    files: tuple[Saved, ...] = ()


class UnitParams(Record, frozen=True, kw_only=True):
    """Told to an attempt of the first stage.

    Args:
        value: the input, JSON.
        options: JSON.
        splits: the input may be split; it has not come of splitting.
        last: the result is output, and not merged.
        file: the one source is the input itself; else the sources are the saved files that the input names.
    """

    action: Short
    value: bytes
    options: bytes
    splits: bool
    last: bool
    file: bool = False


class MergeParams(Record, frozen=True, kw_only=True):
    """Told to an attempt that merges, or gathers.

    Args:
        results: JSON each; b"": the next of the sources, which are first the results that are blobs, then saved files.
        lists: each of the results is a list of results.
    """

    action: Short
    options: bytes
    results: tuple[bytes, ...]
    lists: bool = False
    last: bool = False


class UnitResult(Record, frozen=True, kw_only=True):
    """The value of a task's result.

    Args:
        added: further inputs.
        inline: the result, JSON, where it is small.
        blob: the result is the first blob.
        saved: names of the files that the other blobs are.
        names: digests of files that the result names, and this task has not saved itself.
    """

    added: tuple[Added, ...] = ()
    inline: bytes = b""
    blob: bool = False
    saved: tuple[FilePath, ...] = ()
    names: tuple[DigestField, ...] = ()


class _Payload(Record, frozen=True, kw_only=True):
    """What a result adds to the first stage; the last one closes it."""

    task: Count
    added: tuple[Added, ...]
    closes: bool


class _Entry(NamedTuple):
    """A result on its way to a merge."""

    inline: bytes
    blob: Source | None
    files: tuple[Source, ...]


def pack_plan(plan: ActionPlan) -> bytes:
    """The plan blob."""
    return msgspec.msgpack.encode(plan)


def pack_result(result: UnitResult) -> bytes:
    """The value of a task's result.

    Raises:
        JobFailed: it is too large; one sentence.
    """
    packed = msgspec.msgpack.encode(result)
    if len(packed) > SMALL_BYTES_MAX:
        packed = zlib.compress(packed, 1)
    if len(packed) > INLINE_BYTES_MAX:
        raise JobFailed(
            f"A task gave {len(result.added)} further inputs, {len(packed)} bytes even when compressed: more than "
            f"{INLINE_BYTES_MAX}. Give fewer or shorter ones, such as ranges that `process` divides with `add`."
        )
    return packed


def unpack_result(value: bytes) -> UnitResult:
    """The same read.

    Raises:
        JobFailed: it is something else.
    """
    try:
        # msgpack of a record is an array: never the first byte of what zlib writes
        data = zlib.decompress(value) if value[:1] == b"\x78" else value
        return msgspec.msgpack.decode(data, type=UnitResult)
    except (zlib.error, msgspec.DecodeError) as error:
        raise JobFailed(f"A task of the action told nonsense about its result: {error}.") from None


class ActionDirector:
    """Directs one action; see `p2premap.tasks.director.Director`."""

    runtime = "p2premap.worker.actions:ActionRuntime"
    planner = "p2premap.client.actions:plan"
    streams = False

    def __init__(self, *, job: JobId, home: NodeId, plan: bytes) -> None:
        try:
            self._plan = msgspec.msgpack.decode(plan, type=ActionPlan)
        except msgspec.DecodeError as error:
            raise JobRejected(f"The plan of the action cannot be read: {error}.") from None
        if self._plan.version != PLAN_VERSION or not self._plan.inputs or len(self._plan.inputs) > INPUTS_MAX:
            raise JobRejected("The plan of the action makes no sense, or is of another version.")
        self.home = home
        self._holders: tuple[NodeId, ...] = (home,)
        self._files = tuple(given.file for given in self._plan.inputs if given.file is not None)
        self.input_bytes = sum(file.size for file in self._files)
        self._added: list[Added] = []
        self._orders: list[tuple[int, ...]] = [(number,) for number in range(len(self._plan.inputs))]
        """Where each task's result stands among the others."""
        self._parents: set[int] = set()
        self._done: set[int] = set()
        self._closed = False
        self._saved: dict[bytes, Saved] = {}
        self._groups: dict[int, list[list[_Entry]]] = {}
        """By stage: the results that each task merges."""
        self._lists: set[int] = set()

    # --- the first stage ------------------------------------------------------------------------------------------

    def first(self) -> StagePlan:
        """One task an input."""
        return StagePlan(
            name="process",
            function=self._function(UNIT),
            tasks=len(self._plan.inputs),
            bytes_in=self.input_bytes,
            final=not self._plan.merges,
            open=True,
            grows=True,
        )

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        """See `p2premap.tasks.director.Unfolds`.

        Raises:
            JobError: the result makes no sense, or the action has too many inputs.
        """
        self._done.add(task)
        added: tuple[Added, ...] = ()
        if not result.failed:
            value = unpack_result(result.value)
            self._note(value, result)
            if task not in self._parents:
                added = tuple(self._with_holders(item) for item in value.added)
        closes = not added and len(self._done) == len(self._orders)
        if not added and not closes:
            return None
        if len(self._orders) + len(added) > INPUTS_MAX:
            raise JobFailed(f"The action has more than {INPUTS_MAX} inputs with those that its tasks added.")
        return msgspec.msgpack.encode(_Payload(task=task, added=added, closes=closes))

    def extend(self, payload: bytes) -> Extension:
        """Take what `unfold` gave.

        Raises:
            JobError: it is something else.
        """
        try:
            given = msgspec.msgpack.decode(payload, type=_Payload)
        except msgspec.DecodeError:
            raise JobError("An action takes no further inputs from outside.") from None
        if given.task >= len(self._orders):
            raise JobError("A task that there is not adds inputs to the action.")
        new = () if given.task in self._parents else given.added
        if new:
            self._parents.add(given.task)
            self._added += new
            self._orders += [(*self._orders[given.task], number) for number in range(len(new))]
        self._closed = self._closed or given.closes
        return Extension(tasks=len(new), closed=self._closed)

    def _note(self, value: UnitResult, result: Pinned) -> None:
        """Where the files are that a task has saved."""
        for blob in result.blobs[value.blob :]:
            self._saved[blob.digest] = Saved(digest=blob.digest, size=blob.size, holders=result.holders)

    def _with_holders(self, added: Added) -> Added:
        if not added.files:
            return added
        known = tuple(self._saved.get(file.digest, file) for file in added.files)
        return Added(value=added.value, files=known)

    # --- the stages after it --------------------------------------------------------------------------------------

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        """Gather or merge what the last stage gave, until one result is left.

        Raises:
            JobError: a result makes no sense.
        """
        if not self._plan.merges or (number and len(self._groups[number]) == 1 and number not in self._lists):
            return None
        entries = [entry for result in self._in_order(number, results) if (entry := self._entry(result)) is not None]
        stage, many = number + 1, len(entries)
        if self._plan.unordered:
            groups = [entries[at : at + MERGED_MAX] for at in range(0, many, MERGED_MAX)] or [[]]
        elif number == 0 and many > GATHERED_MAX:
            groups = [entries[at : at + GATHERED_MAX] for at in range(0, many, GATHERED_MAX)]
            self._groups[stage] = groups
            self._lists.add(stage)
            return StagePlan(name="gather", function=self._function(GATHER), tasks=len(groups))
        else:
            groups = [entries]
        self._groups[stage] = groups
        self._lists.discard(stage)
        return StagePlan(name="merge", function=self._function(MERGE), tasks=len(groups), final=len(groups) == 1)

    def _in_order(self, number: int, results: Sequence[Pinned]) -> Iterator[Pinned]:
        if number:
            yield from results
            return
        for task in sorted(range(len(results)), key=self._orders.__getitem__):
            yield results[task]

    def _entry(self, result: Pinned) -> _Entry | None:
        if result.failed:
            return None
        value = unpack_result(result.value)
        self._note(value, result)
        if not value.inline and not value.blob:
            return None
        blob = self._blob(result.blobs[0], result.holders) if value.blob else None
        own = [self._blob(ref, result.holders) for ref in result.blobs[value.blob :]]
        passed_on = [self._source(self._saved[digest]) for digest in value.names if digest in self._saved]
        return _Entry(value.inline, blob, (*own, *passed_on))

    # --- tasks and parts ------------------------------------------------------------------------------------------

    def task(self, stage: StageId, task: int) -> TaskInput:
        """An input with its file, or the results that are to be merged with theirs."""
        plan = self._plan
        if stage.number:
            return self._merge_input(stage.number, task)
        given = plan.inputs[task] if task < len(plan.inputs) else self._added[task - len(plan.inputs)]
        file = given.file if isinstance(given, Given) else None
        saved = given.files if isinstance(given, Added) else ()
        params = UnitParams(
            action=plan.action,
            value=given.value,
            options=plan.options,
            splits=isinstance(given, Given),
            last=not plan.merges,
            file=file is not None,
        )
        sources = [self._file(file)] if file is not None else [self._source(one) for one in saved]
        return TaskInput(params=msgspec.msgpack.encode(params), sources=tuple(sources))

    def _merge_input(self, stage: int, task: int) -> TaskInput:
        groups = self._groups[stage]
        group = groups[task]
        params = MergeParams(
            action=self._plan.action,
            options=self._plan.options,
            results=tuple(entry.inline for entry in group),
            lists=stage - 1 in self._lists,
            last=len(groups) == 1 and stage not in self._lists,
        )
        blobs = [entry.blob for entry in group if entry.blob is not None]
        files: list[Source] = []
        if stage not in self._lists:
            named = [group] if stage - 1 not in self._lists else self._groups[stage - 1]
            files = [file for entries in named for entry in entries for file in entry.files]
        return TaskInput(params=msgspec.msgpack.encode(params), sources=(*blobs, *dict.fromkeys(files)))

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        """A task's result, and the files that it has saved: each under its name, one of many tasks in a directory."""
        if result.failed:
            return ()
        value = unpack_result(result.value)
        found = []
        if value.blob:
            source = self._blob(result.blobs[0], result.holders)
            found.append(Part(number=task, source=source, records=1))
        for number, (name, ref) in enumerate(zip(value.saved, result.blobs[value.blob :], strict=False)):
            place = name if self._plan.merges else f"{task:05}/{name}"
            at = SAVED_PARTS_FIRST + task * FILES_A_TASK_MAX + number
            found.append(Part(number=at, source=self._blob(ref, result.holders), name=place))
        return found

    # --- files of the submitting machine --------------------------------------------------------------------------

    def input_files(self) -> Iterable[str]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return dict.fromkeys(file.path for file in self._files)

    def inputs(self) -> Iterator[Source]:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        return map(self._file, self._files)

    def spread(self, holders: Sequence[NodeId]) -> None:
        """See `p2premap.tasks.inputs.ReadsInputs`."""
        self._holders = (self.home, *(node for node in holders if node != self.home))

    def _file(self, file: InputFile) -> Source:
        return Source(
            digest=Digest(file.digest),
            start=0,
            end=file.size,
            holders=self._holders,
            path=file.path,
            mtime_ns=file.mtime_ns,
        )

    @staticmethod
    def _blob(ref: BlobRef, holders: tuple[NodeId, ...]) -> Source:
        return Source(digest=ref.digest, start=0, end=ref.size, holders=holders, blob=ref.digest)

    @staticmethod
    def _source(saved: Saved) -> Source:
        return Source(digest=saved.digest, start=0, end=saved.size, holders=saved.holders, blob=saved.digest)

    def _function(self, step: str) -> str:
        """What a stage's tasks are told to do; a node that refuses the action knows it by the name in front."""
        return f"{self._plan.action}/{step}"
