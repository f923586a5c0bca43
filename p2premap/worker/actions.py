"""Actions in a worker process: the other half of `p2premap.tasks.action`."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import blake3
import msgspec

from p2premap.ids import Digest
from p2premap.tasks.action import (
    FILES_A_TASK_MAX,
    GATHER,
    MERGE,
    SMALL_BYTES_MAX,
    UNIT,
    Added,
    MergeParams,
    Saved,
    UnitParams,
    UnitResult,
    pack_result,
)
from p2premap.tasks.job import BlobRef
from p2premap.worker.action import SAVED, Action, ActionError, Tools
from p2premap.worker.loading import load_bundle
from p2premap.worker.runtime import Context, InputLost, Result, Segment
from p2premap.worker.urls import NAME_MAX

_PIECE_BYTES: Final = 1 << 20
_SHOWN_CHARACTERS: Final = 60
_NAMED: Final = re.compile(r"p2premap:([0-9a-f]{64})/(\d+)/")


class ActionRuntime:
    """See `p2premap.worker.runtime.Runtime`."""

    def __init__(self, bundle: bytes, directory: str) -> None:
        self._module = load_bundle(bundle)

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        """Run one step of an action."""
        step = function.rpartition("/")[2]
        if step == UNIT:
            return self._unit(msgspec.msgpack.decode(params, type=UnitParams), segments, context)
        told = msgspec.msgpack.decode(params, type=MergeParams)
        results, files = _results(told, segments, context)
        if step == GATHER:
            made = _Made(context, ())
            return made.result(b"[%s]" % b",".join(results), large=True, names=False)
        assert step == MERGE, function
        return self._merge(told, results, files, context)

    def _unit(self, params: UnitParams, segments: Sequence[Segment], context: Context) -> Result:
        action = self._class(params.action)
        made = _Made(context, segments, params.value if params.file else b"")
        doing = self._make(action, json.loads(params.value), params.options, made, context)
        if _defines(action, "merge") == params.last:
            raise ActionError(f"merge must be defined in the class {params.action} itself.")
        with _inside(made.directory):
            if params.splits and _defines(action, "split"):
                for input in _inputs(doing.split(), params.action):
                    made.add(input)
                return made.result(b"")
            value = doing.process()
        context.count(records_in=1)
        return made.result(_json(value, "process", params.action), large=params.last)

    def _merge(self, params: MergeParams, results: list[bytes], files: Sequence[Segment], context: Context) -> Result:
        made = _Made(context, files, adds=False)
        values = json.loads(b"[%s]" % b",".join(results))
        doing = self._make(self._class(params.action), values, params.options, made, context)
        context.count(records_in=len(values))
        with _inside(made.directory):
            value = doing.merge()
        return made.result(_json(value, "merge", params.action), large=params.last)

    def _class(self, name: str) -> type[Action]:
        found = getattr(self._module, name, None)
        if not isinstance(found, type) or not issubclass(found, Action):
            raise ActionError(f"{name} in the job file is no class that derives from p2premap.Action on this node.")
        if not _defines(found, "process"):
            raise ActionError(f"The action {name} has no method process: define process(self).")
        return found

    @staticmethod
    def _make(action: type[Action], input: object, options: bytes, made: _Made, context: Context) -> Action:
        key = context.attempt
        attempt = f"{key.job.hex()}-{key.stage.number}.{key.task}.{key.attempt}"
        tools = Tools(local=made.local, store=made.store, add=made.add)
        return action(input, json.loads(options), made.directory, attempt, tools)


class _Made:
    """What an attempt makes, and the files that it was given.

    Args:
        files: that inputs or results name, or the input itself.
        input: JSON of the input's name, where it is the file.
        adds: it may add inputs.
    """

    def __init__(self, context: Context, files: Sequence[Segment], input: bytes = b"", *, adds: bool = True) -> None:
        self._context = context
        self._input: str | None = json.loads(input) if input else None
        self._files = {segment.digest: segment for segment in files}
        self._adds = adds
        self._added: list[Added] = []
        self._saved: list[str] = []
        self._refs: list[BlobRef] = []
        self.directory = Path(context.scratch)

    def local(self, name: str) -> str:
        """See `p2premap.worker.action.Tools`."""
        found = SAVED.fullmatch(name)
        if found is not None:
            digest, shown = bytes.fromhex(found[1]), found[3]
        elif self._input is not None and name == self._input:
            digest, shown = next(iter(self._files)), os.path.basename(name)
        else:
            raise ActionError(f"{name[:200]!r} is no file that this action was given, and no URL.")
        segment = self._files.get(digest)
        if segment is None:
            raise ActionError(f"The file {shown} was saved, but neither this input nor a result in it names it.")
        return str(self._copy(segment, shown))

    def _copy(self, segment: Segment, name: str) -> Path:
        """A copy that user code may write to; what has not been checked yet is checked on the way."""
        number = 0
        target = self.directory / name[-NAME_MAX:]
        while target.exists():
            number += 1
            target = self.directory / f"{number}-{name[-NAME_MAX:]}"
        hasher, left = blake3.blake3(), segment.end - segment.start
        try:
            with open(segment.path, "rb", buffering=0) as source, target.open("xb") as copy:
                source.seek(segment.start)
                while left and (piece := source.read(min(left, _PIECE_BYTES))):
                    hasher.update(piece)
                    copy.write(piece)
                    left -= len(piece)
        except OSError as error:
            if error.filename != segment.path:
                raise
            raise InputLost(f"{name} cannot be read: {error.strerror}.", segment.digest) from None
        if left or hasher.digest() != segment.digest:
            raise InputLost(f"{name} is not what the job announced: it has changed since.", segment.digest)
        return target

    def store(self, path: str, name: str) -> str:
        """See `p2premap.worker.action.Tools`."""
        if name in self._saved:
            raise ActionError(f"A file {name} has been saved already; give this one another name.")
        if len(self._saved) >= FILES_A_TASK_MAX:
            raise ActionError(f"More than {FILES_A_TASK_MAX} files were saved for one input; put them into an archive.")
        writer = self._context.new_blob()
        with open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                writer.write(piece)
        ref = writer.finish()
        self._saved.append(name)
        self._refs.append(ref)
        return f"p2premap:{ref.digest.hex()}/{ref.size}/{name}"

    def add(self, input: object) -> None:
        """See `p2premap.worker.action.Tools`."""
        if not self._adds:
            raise ActionError("merge cannot add inputs: everything has been processed by then.")
        value = _json(input, "an added input", "")
        files = tuple(Saved(digest=digest, size=size) for digest, size in _named(value))
        self._added.append(Added(value=value, files=files))

    def result(self, value: bytes, *, large: bool = False, names: bool = True) -> Result:
        """What the attempt yields.

        Args:
            value: JSON; b"" for none.
            large: it is to be a blob, whatever its size: output, for one.
            names: tell which files it names.
        """
        blobs = list(self._refs)
        is_blob = bool(value) and (large or len(value) > SMALL_BYTES_MAX)
        if is_blob:
            writer = self._context.new_blob()
            writer.write(value + b"\n")
            blobs.insert(0, writer.finish())
        own = {ref.digest for ref in self._refs}
        self._context.count(records_out=bool(value))
        result = UnitResult(
            added=tuple(self._added),
            inline=b"" if is_blob else value,
            blob=is_blob,
            saved=tuple(self._saved),
            names=tuple(digest for digest, _ in _named(value) if digest not in own) if names else (),
        )
        return Result(pack_result(result), tuple(blobs))


def _results(
    params: MergeParams, segments: Sequence[Segment], context: Context
) -> tuple[list[bytes], Sequence[Segment]]:
    """The results that are to be merged, JSON each, and the files behind them."""
    rest = list(segments)
    found: list[bytes] = []
    for inline in params.results:
        value = inline or context.read(rest.pop(0))
        if params.lists:
            found += [msgspec.json.encode(one) for one in msgspec.json.decode(value)]
        else:
            found.append(value)
    return found, rest


def _inputs(split: object, action: str) -> Iterable[object]:
    if isinstance(split, str | bytes | Mapping) or not isinstance(split, Iterable):
        given = str(split)[:_SHOWN_CHARACTERS]
        raise ActionError(
            f"split of the action {action} gave {given!r}: it must return a list of inputs, or yield them."
        )
    return split


def _named(value: bytes) -> Iterator[tuple[Digest, int]]:
    """The saved files that a JSON value names, each once."""
    seen = set()
    for found in _NAMED.finditer(value.decode()) if b"p2premap:" in value else ():
        if found[1] not in seen:
            seen.add(found[1])
            yield Digest(bytes.fromhex(found[1])), int(found[2])


def _json(value: object, what: str, action: str) -> bytes:
    if value is None and action:
        return b""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        who = f"{what} of the action {action} returned" if action else f"{what} is"
        raise ActionError(f"{who} what JSON cannot say: {error}.") from None


def _defines(action: type[Action], method: str) -> bool:
    return getattr(action, method) is not getattr(Action, method)


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        if before != str(directory):  # in a worker process it is the same, and may have been removed
            os.chdir(before)
