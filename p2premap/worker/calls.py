"""Calls in a worker process: the other half of `p2premap.tasks.calls`.

A function is unpickled once and kept; arguments and results are pickled, by Python's own pickle where it can, else by
cloudpickle (ten times slower, but it knows what scripts and notebooks define). What user code raises is a result like
any other, with its traceback as text; so is what cannot be pickled.

A pack was made for a few milliseconds of work. If it takes longer than `GIVE_UP_S`, the calls that have not begun go
back to the client: a call that is slower than its brothers delays nobody for longer than it runs.
"""

from __future__ import annotations

import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import starmap
from typing import Any, Final

import cloudpickle

from p2premap.tasks.calls import BLOB, CHUNK, RAISED, STAR, VALUES, VOID, Work, unpack_calls, unpack_params
from p2premap.tasks.calls_refs import ANSWER, COPY, RESULT, Ref
from p2premap.tasks.calls_results import pack_answers, pack_chunk, pack_done, unpack_answers
from p2premap.tasks.job import INLINE_BYTES_MAX
from p2premap.worker.failure import Stopped, sentence_of, traceback_of
from p2premap.worker.inputs import giving
from p2premap.worker.loading import load_bundle
from p2premap.worker.runtime import Context, InputLost, Result, Segment
from p2premap.worker.values import Apart, Pickled, pack_values, unpack_value, unpack_values

GIVE_UP_S: Final = 0.05
FUNCTIONS_KEPT_MAX: Final = 1_000
VALUES_KEPT_MAX: Final = 8
_HEAD_BYTES: Final = 64
_BLOCK_MAX: Final = 4_096
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
_loads: Final = pickle.loads  # to open what users pickled is a worker's work

Function = Callable[..., Any]


class CallsRuntime:
    """See `p2premap.worker.runtime.Runtime`."""

    def __init__(self, bundle: bytes, directory: str) -> None:
        load_bundle(bundle)
        self._functions: OrderedDict[bytes, Function] = OrderedDict()
        self._values: OrderedDict[bytes, tuple[Any]] = OrderedDict()

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        """Run one pack."""
        work = unpack_params(params)
        if work.flags & VOID:
            return Result(pack_done(work.flags, 0, 0.0, 0.0))
        data: bytes | memoryview = context.read(segments[-1]) if work.data is None else work.data
        try:
            call = self._function(work.code, segments, context)
        except (Stopped, InputLost):
            raise
        except BaseException as error:
            # it cannot be unpickled here, such as for a module that this machine lacks
            if work.flags & CHUNK:
                answer = pack_chunk(dumps([]), describe(error))
                return self._result(work.flags | RAISED, 0, 0.0, 0.0, answer, context)
            broken = describe(error)
            pickles = [broken for _ in unpack_calls(data)]
            answer = pack_answers(pickles, range(len(pickles)))
            return self._result(0, len(pickles), 0.0, 0.0, answer, context)
        with giving(self._inputs(work, segments, context)) if work.refs else nullcontext():
            if work.flags & CHUNK:
                return self._chunk(call, work.flags, data, context)
            return self._calls(call, data, context)

    def _function(self, code: bytes | None, segments: Sequence[Segment], context: Context) -> Function:
        key = segments[0].digest if code is None else code
        known = self._functions.get(key)
        if known is None:
            known = self._functions[key] = _loads(context.read(segments[0]) if code is None else code)
            if len(self._functions) > FUNCTIONS_KEPT_MAX:
                self._functions.popitem(last=False)
        return known

    def _inputs(self, work: Work, segments: Sequence[Segment], context: Context) -> list[Callable[[], object]]:
        """What makes each value that the arguments refer to."""
        blobs = iter(segments[1 if work.code is None else 0 :])
        return [partial(self._input, ref, None if ref.blob is None else next(blobs), context) for ref in work.refs]

    def _input(self, ref: Ref, segment: Segment | None, context: Context) -> object:
        if segment is None:
            return _loads(ref.data)
        if ref.kind == ANSWER:
            pieces, raised = unpack_answers(memoryview(context.read(segment)), ref.calls)
            if ref.position in raised:
                raise Inherited(bytes(pieces[ref.position]))
            return _loads(pieces[ref.position])
        if ref.kind == RESULT:
            value, is_exception = unpack_values(context.map(segment, own=True))[ref.position]
            if is_exception:
                raise Inherited(bytes(value))
            return unpack_value(value)
        if ref.kind == COPY:
            return unpack_value(context.map(segment, own=True))
        known = self._values.get(segment.digest)
        if known is None:
            known = self._values[segment.digest] = (unpack_value(context.map(segment)),)
            if len(self._values) > VALUES_KEPT_MAX:
                self._values.popitem(last=False)
        return known[0]

    def _calls(self, call: Function, data: bytes | memoryview, context: Context) -> Result:
        """Calls one by one."""
        clock = time.perf_counter
        answers: list[bytes] = []
        raised: list[int] = []
        apart = Apart()
        longest = 0.0
        began = before = clock()
        for arguments in unpack_calls(data):
            try:
                args, kwargs = _loads(arguments)
                answers.append(dumps(call(*args, **kwargs), apart))
            except (Stopped, InputLost):
                raise
            except BaseException as error:
                # whatever user code raises is an answer
                apart.buffers.clear()
                raised.append(len(answers))
                answers.append(describe(error))
            now = clock()
            if now - before > longest:
                longest = now - before
            before = now
            if now - began > GIVE_UP_S or apart.buffers:  # the next call may change an array that has not been written
                break
        context.count(records_out=len(answers))
        done = partial(self._result, 0, len(answers), before - began, longest)
        if apart.buffers:
            *others, last = answers
            return done([*map(Pickled, others), Pickled(last, apart.buffers)], context, raised)
        return done(pack_answers(answers, raised), context)

    def _chunk(self, call: Function, flags: int, data: bytes | memoryview, context: Context) -> Result:
        """The calls of a `map`, in blocks that grow as long as they are quick."""
        results: list[Any] = []
        error = b""
        apart = Apart()
        clock = time.perf_counter
        began = clock()
        try:
            rows = _loads(data)
            every = starmap if flags & STAR else map
            block = 1
            while len(results) < len(rows) and clock() - began < GIVE_UP_S:
                some = rows[len(results) : len(results) + block]
                # extend() keeps what came before an exception
                results.extend(every(call, some))
                block = min(2 * block, _BLOCK_MAX)
            seconds = clock() - began
            context.count(records_out=len(results))
            data = dumps(results, apart)
        except (Stopped, InputLost):
            raise
        except BaseException as raised:
            # whatever user code raises is an answer
            flags |= RAISED
            error = describe(raised)
            seconds = clock() - began
            apart.buffers.clear()
            results, data = _picklable(results)
        done = partial(self._result, flags, len(results), seconds, 0.0)
        if apart.buffers:
            return done([Pickled(bytes(data), apart.buffers)], context)
        return done(pack_chunk(bytes(data), error), context)

    def _result(
        self,
        flags: int,
        calls: int,
        seconds: float,
        longest: float,
        data: bytes | list[Pickled],
        context: Context,
        raised: Sequence[int] = (),
    ) -> Result:
        flags &= ~(BLOB | VALUES)
        if isinstance(data, bytes):
            if len(data) + _HEAD_BYTES <= INLINE_BYTES_MAX:
                return Result(pack_done(flags, calls, seconds, longest, data))
            pieces: Sequence[bytes | memoryview] = [data]
        else:
            flags |= VALUES
            pieces = pack_values(data, raised)
        writer = context.new_blob()
        for piece in pieces:
            writer.write(piece)
        return Result(pack_done(flags | BLOB, calls, seconds, longest), (writer.finish(),))


def dumps(value: object, apart: Apart | None = None) -> bytes:
    """A pickle of what user code returned.

    Args:
        apart: takes large arrays, which then are not in the pickle.

    Raises:
        Exception: it cannot be pickled.
    """
    try:
        return pickle.dumps(value, _PROTOCOL, buffer_callback=apart)
    except Exception:
        if apart is not None:
            apart.buffers.clear()
        # what a script defines has no module that could be imported: cloudpickle takes it by value
        return cloudpickle.dumps(value, _PROTOCOL, buffer_callback=apart)  # type: ignore[no-any-return]


class Inherited(Exception):
    """The call whose result was to be an argument raised; `described` is what `describe` has made of that."""

    def __init__(self, described: bytes) -> None:
        super().__init__("The call whose result was to be an argument raised an exception.")
        self.described = described


def describe(error: BaseException) -> bytes:
    """An exception for the caller: pickled if it survives that, and in words in any case."""
    if isinstance(error, Inherited):
        return error.described
    pickled = b""
    try:
        candidate = dumps(error)
        _loads(candidate)  # many exceptions with arguments of their own cannot be made again
    except Exception:  # noqa: S110  (then the words must do)
        pass
    else:
        pickled = candidate
    return pickle.dumps((pickled, sentence_of(error), traceback_of(error)), _PROTOCOL)


def _picklable(results: list[Any]) -> tuple[list[Any], bytes]:
    """As many of the first results as can be pickled."""
    try:
        return results, dumps(results)
    except Exception:
        kept = []
        for result in results:
            try:
                dumps(result)
            except Exception:
                break
            kept.append(result)
        return kept, dumps(kept)
