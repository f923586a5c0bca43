"""Calls in a worker process: answers, exceptions and what cannot be pickled, one by one and in chunks."""

from __future__ import annotations

import copyreg
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from p2premap.client.pickles import RemoteTraceback, exception
from p2premap.errors import CallFailed
from p2premap.ids import JobId
from p2premap.node.blobs import BlobStore
from p2premap.tasks import calls, calls_results
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle
from p2premap.tasks.job import AttemptKey, StageId
from p2premap.worker import calls as worker_calls
from p2premap.worker.calls import CallsRuntime
from p2premap.worker.context import AttemptContext
from p2premap.worker.failure import Stopped
from p2premap.worker.runtime import InputLost, Result, Segment
from p2premap.worker.values import unpack_value, unpack_values

EMPTY = pack_bundle([Module(name=JOB_MODULE, path="", source="")])


class Unsendable:
    def __reduce__(self) -> Any:
        raise ValueError("not by mail")


class Peculiar(Exception):
    """Its pickle cannot be opened: it is made with two arguments and keeps one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, calls are not given back for that."""
    monkeypatch.setattr(worker_calls, "GIVE_UP_S", 3600.0)


@pytest.fixture
def runtime(tmp_path: Path) -> CallsRuntime:
    return CallsRuntime(EMPTY, str(tmp_path))


@pytest.fixture
def context(tmp_path: Path) -> AttemptContext:
    return AttemptContext(AttemptKey(JobId(bytes(16)), StageId(0, b""), 0, 0), str(tmp_path), BlobStore(tmp_path / "b"))


def params(function: Any, body: bytes) -> bytes:
    code = cloudpickle.dumps(function)
    return len(code).to_bytes(4, "little") + code + body


def single(*arguments: Any) -> bytes:
    return calls.pack_body(0, 0, calls.pack_calls([pickle.dumps((a, {})) for a in arguments]))


def chunk(rows: list[Any], flags: int = 0) -> bytes:
    return calls.pack_body(calls.CHUNK | flags, 0, pickle.dumps(rows))


def answers(result: Result) -> tuple[list[Any], list[int]]:
    done = calls_results.unpack_done(result.value)
    pieces, raised = calls_results.unpack_answers(done.data, done.calls)
    return [exception(p) if n in raised else pickle.loads(p) for n, p in enumerate(pieces)], raised


def test_calls_are_answered_one_by_one(runtime: CallsRuntime, context: AttemptContext) -> None:
    def half(x: int) -> float:
        return 10 / x

    values, raised = answers(runtime.run("calls", params(half, single((5,), (0,), (2,))), (), context))
    assert raised == [1]
    assert (values[0], values[2]) == (2.0, 5.0)
    assert isinstance(values[1], ZeroDivisionError)
    cause = values[1].__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "return 10 / x" in str(cause)
    assert "p2premap/worker" not in str(cause), "frames of ours say nothing"
    assert context.records_out == 3


def test_a_chunk_ends_with_what_was_raised(runtime: CallsRuntime, context: AttemptContext) -> None:
    result = runtime.run("calls", params(lambda x: 10 // x, chunk([5, 2, 0, 1])), (), context)
    done = calls_results.unpack_done(result.value)
    assert done.flags & calls.RAISED
    assert done.calls == 2
    values, error = calls_results.unpack_chunk(done.data)
    assert pickle.loads(values) == [2, 5]
    assert isinstance(exception(error), ZeroDivisionError)


def test_rows_of_a_star_are_arguments(runtime: CallsRuntime, context: AttemptContext) -> None:
    result = runtime.run("calls", params(pow, chunk([(2, 3), (3, 2)], calls.STAR)), (), context)
    assert pickle.loads(calls_results.unpack_chunk(calls_results.unpack_done(result.value).data)[0]) == [8, 9]


def test_what_takes_too_long_is_left_undone(
    runtime: CallsRuntime, context: AttemptContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(worker_calls, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def doze(seconds: float) -> None:
        now[0] += seconds

    runtime._functions[b"doze"] = doze  # the very function, with its clock: no copy of it
    seconds = 0.6 * worker_calls.GIVE_UP_S
    for body, done in ((single(*[(seconds,)] * 10), 2), (chunk([seconds] * 10), 3)):
        result = runtime.run("calls", (4).to_bytes(4, "little") + b"doze" + body, (), context)
        assert calls_results.unpack_done(result.value).calls == done


def test_what_cannot_be_pickled_is_said(runtime: CallsRuntime, context: AttemptContext) -> None:
    values, raised = answers(runtime.run("calls", params(lambda: Unsendable(), single(())), (), context))
    assert raised == [0]
    assert "not by mail" in str(values[0])
    result = runtime.run("calls", params(lambda x: x or Unsendable(), chunk([1, 0, 2])), (), context)
    done = calls_results.unpack_done(result.value)
    assert done.calls == 1, "what comes before it is kept"
    assert "not by mail" in str(exception(calls_results.unpack_chunk(done.data)[1]))


def test_an_exception_that_cannot_be_made_again_is_told_in_words(
    runtime: CallsRuntime, context: AttemptContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where dask is imported, tblib has had every exception known by then made again without its arguments
    monkeypatch.delitem(copyreg.dispatch_table, Peculiar, raising=False)

    def fail() -> None:
        raise Peculiar(1, 2)

    (error,), _ = answers(runtime.run("calls", params(fail, single(())), (), context))
    assert isinstance(error, CallFailed)
    assert "Peculiar: 3" in str(error)
    assert "raise Peculiar(1, 2)" in error.detail


def test_what_the_program_defines_travels_by_value(runtime: CallsRuntime, context: AttemptContext) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Point:\n    pass\ndef make():\n    return Point()\n", namespace)
    (value,), raised = answers(runtime.run("calls", params(namespace["make"], single(())), (), context))
    assert not raised
    assert type(value).__name__ == "Point"


def test_large_results_are_blobs(runtime: CallsRuntime, context: AttemptContext, tmp_path: Path) -> None:
    result = runtime.run("calls", params(bytes, single((100_000,))), (), context)
    (blob,) = result.blobs
    done = calls_results.unpack_done(result.value)
    assert done.flags & calls.BLOB
    data = memoryview(BlobStore(tmp_path / "b").get(blob.digest))
    assert pickle.loads(calls_results.unpack_answers(data, done.calls)[0][0]) == bytes(100_000)


def test_large_arrays_stand_beside_the_pickles_and_are_written_before_the_next_call(
    runtime: CallsRuntime, context: AttemptContext, tmp_path: Path
) -> None:
    numpy = pytest.importorskip("numpy")
    kept = numpy.zeros(20_000)

    def count() -> Any:
        kept[:] += 1
        return kept if kept[0] > 1 else "few"

    code = calls.pack_calls([pickle.dumps(((), {}))] * 4)
    function = calls.pack_body(0, 0, code)
    runtime._functions[b"count"] = count  # the very function, with its array: no copy of it
    result = runtime.run("calls", (5).to_bytes(4, "little") + b"count" + function, (), context)
    done = calls_results.unpack_done(result.value)
    assert done.flags & (calls.BLOB | calls.VALUES) == calls.BLOB | calls.VALUES
    assert done.calls == 2, "the others are given back"
    data = memoryview(bytearray(BlobStore(tmp_path / "b").get(result.blobs[0].digest)))
    (few, first), (many, second) = unpack_values(data)
    assert not first
    assert not second
    assert unpack_value(few) == "few"
    array = unpack_value(many)
    assert array.flags.writeable
    assert array.sum() == 40_000
    array[0] = 7
    assert unpack_value(many)[0] == 7, "it is where the blob is"


def test_arrays_of_a_chunk_stand_beside_it(runtime: CallsRuntime, context: AttemptContext, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    result = runtime.run("calls", params(numpy.ones, chunk([20_000, 10, 30_000])), (), context)
    done = calls_results.unpack_done(result.value)
    assert done.flags & calls.VALUES
    ((every, raised),) = unpack_values(memoryview(BlobStore(tmp_path / "b").get(result.blobs[0].digest)))
    assert not raised
    assert [array.sum() for array in unpack_value(every)][: done.calls] == [20_000, 10, 30_000][: done.calls]


def test_an_array_that_cannot_be_sent_leaves_nothing_beside(runtime: CallsRuntime, context: AttemptContext) -> None:
    numpy = pytest.importorskip("numpy")
    values, raised = answers(
        runtime.run("calls", params(lambda: (numpy.ones(20_000), Unsendable()), single(())), (), context)
    )
    assert raised == [0]
    assert isinstance(values[0], ValueError)


def test_a_function_that_cannot_be_loaded_is_each_calls_answer(runtime: CallsRuntime, context: AttemptContext) -> None:
    code = b"cno_such_module\nfunction\n."
    bad = len(code).to_bytes(4, "little") + code
    values, raised = answers(runtime.run("calls", bad + single((1,), (2,)), (), context))
    assert raised == [0, 1]
    assert all(isinstance(value, ModuleNotFoundError) for value in values)
    done = calls_results.unpack_done(runtime.run("calls", bad + chunk([1, 2]), (), context).value)
    assert isinstance(exception(calls_results.unpack_chunk(done.data)[1]), ModuleNotFoundError)


def test_a_void_pack_does_nothing(runtime: CallsRuntime, context: AttemptContext) -> None:
    body = bytes(4) + calls.pack_body(calls.VOID, 0, b"")
    assert calls_results.unpack_done(runtime.run("calls", body, (), context).value).calls == 0


@pytest.mark.parametrize("form", [single((1,)), chunk([1])])
def test_being_stopped_is_no_answer(runtime: CallsRuntime, context: AttemptContext, form: bytes) -> None:
    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        runtime.run("calls", params(stop, form), (), context)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_is_an_answer(runtime: CallsRuntime, context: AttemptContext, error: BaseException) -> None:
    def leave() -> None:
        raise error

    (value,), _ = answers(runtime.run("calls", params(leave, single(())), (), context))
    assert type(value) is type(error)


def test_a_lost_source_ends_the_attempt(runtime: CallsRuntime, context: AttemptContext, tmp_path: Path) -> None:
    blob = calls.BlobAt(b"d" * 32, 10, b"n" * 16)
    lost = Segment(str(tmp_path / "gone"), 0, 10, blob.digest, False, "")
    with pytest.raises(InputLost):
        runtime.run("calls", params(len, calls.pack_body(0, 0, blob)), (lost,), context)
