"""Values as blobs: arrays beside the pickle, several in one blob, and blobs that are none."""

from __future__ import annotations

import pickle
import sys
import types
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.worker.values import (
    ALIGNMENT,
    Apart,
    Pickled,
    pack_value,
    pack_values,
    size_of,
    unpack_value,
    unpack_values,
)


def blob(pieces: list[Any]) -> memoryview:
    data = bytearray().join(pieces)
    assert len(data) == size_of(pieces)
    return memoryview(data)


@given(st.recursive(st.none() | st.binary() | st.text(), lambda inner: st.lists(inner) | st.tuples(inner, inner)))
def test_a_value_comes_back(value: object) -> None:
    assert unpack_value(blob(pack_value(value))) == value


def test_arrays_are_where_the_blob_is() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.arange(10), "b": [numpy.ones((3, 5), order="F"), numpy.zeros(0)], "c": "text"}
    data = blob(pack_value(value))
    made = unpack_value(data)
    assert (made["a"] == value["a"]).all()
    assert (made["b"][0] == value["b"][0]).all()
    assert made["b"][1].size == 0
    assert made["a"].ctypes.data % ALIGNMENT == numpy.frombuffer(data, numpy.uint8).ctypes.data % ALIGNMENT
    made["a"][0] = 99
    assert unpack_value(data)["a"][0] == 99
    assert not unpack_value(data.toreadonly())["a"].flags.writeable


def test_the_first_piece_differs_where_lengths_do() -> None:
    assert pack_value(b"abc")[0] != pack_value(b"abcd")[0]
    assert pack_value(b"abc")[0] == pack_value(b"abd")[0]


def test_what_a_script_defines_travels_by_value() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Point:\n    x = 3\n", namespace)
    assert unpack_value(blob(pack_value(namespace["Point"]()))).x == 3


def test_what_cannot_be_imported_elsewhere_travels_by_value_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("class Point:\n    x = 4\n", module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "only_here", module)
        cloudpickle.register_pickle_by_value(module)
        by_value = blob(pack_value(module.Point(), lambda data: b"only_here" in data))
        by_name = blob(pack_value(module.Point()))
        cloudpickle.unregister_pickle_by_value(module)
    assert unpack_value(by_value).x == 4
    with pytest.raises(ModuleNotFoundError):
        unpack_value(by_name)


@given(st.lists(st.tuples(st.binary(), st.lists(st.binary(min_size=1)), st.booleans())))
def test_several_values_in_a_blob(several: list[tuple[bytes, list[bytes], bool]]) -> None:
    values = [
        Pickled(
            pickle.dumps((data, [*map(pickle.PickleBuffer, buffers)]), 5, buffer_callback=lambda _: False),
            [*map(memoryview, buffers)],
        )
        for data, buffers, _ in several
    ]
    found = unpack_values(blob(pack_values(values, [n for n, (_, _, raised) in enumerate(several) if raised])))
    assert [raised for _, raised in found] == [raised for _, _, raised in several]
    for (data, buffers, _), value, (piece, raised) in zip(several, values, found, strict=True):
        if raised:
            assert piece == value.data
        else:
            made, views = unpack_value(piece)
            assert (made, [bytes(view) for view in views]) == (data, buffers)


def test_only_large_arrays_stay_out_of_a_pickle() -> None:
    numpy = pytest.importorskip("numpy")
    apart = Apart()
    data = pickle.dumps([numpy.ones(100), numpy.ones(100_000)], 5, buffer_callback=apart)
    assert [view.nbytes for view in apart.buffers] == [800_000]
    assert len(data) < 2_000


@given(st.data())
def test_a_blob_that_was_cut_or_is_something_else_is_refused(draw: st.DataObject) -> None:
    data = blob(pack_values([Pickled(pickle.dumps("text"), [memoryview(b"buffer")])]))
    cut = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(RemoteProtocolError):
        [unpack_value(value) for value, _ in unpack_values(data[:cut])]
    for garbage in (b"", b"\xff" * 8, b"\xff" * 64):
        with pytest.raises(RemoteProtocolError):
            unpack_value(memoryview(garbage))
        with pytest.raises(RemoteProtocolError):
            unpack_values(memoryview(garbage))
