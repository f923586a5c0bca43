"""Blocks give back exactly what went in, types included."""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker.blocks import HEAD, Columns, decode_block, encode_block
from p2premap.worker.pairs import JobCodeError


class Colour(enum.IntEnum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int


def there_and_back(columns: Columns, compression: str = "zlib") -> Columns:
    data, size = encode_block(columns, compression)
    head, stored = data[: HEAD.size], data[HEAD.size :]
    assert HEAD.unpack(head)[2:] == (len(stored), size)
    return decode_block(head, stored)


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple))
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other if isinstance(one, (set, frozenset)) else repr(one) == repr(other)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.sets(st.integers()),
    max_leaves=8,
)
keys = scalars | st.tuples(scalars, scalars)


@given(st.lists(st.tuples(keys, values)), st.sampled_from(["none", "zlib", "zstd"]))
def test_single_values(some: list[tuple[object, object]], compression: str) -> None:
    columns = Columns([k for k, _ in some], [v for _, v in some], False)
    back = there_and_back(columns, compression)
    assert same(list(back.keys), list(columns.keys))
    assert same(list(back.values), list(columns.values))
    assert not back.grouped


@given(st.lists(st.tuples(keys, st.lists(values, min_size=1, max_size=4))))
def test_grouped_values(some: list[tuple[object, list[object]]]) -> None:
    columns = Columns([k for k, _ in some], [v for _, v in some], True)
    back = there_and_back(columns)
    assert same(list(back.keys), list(columns.keys))
    assert same(list(back.values), list(columns.values))
    assert back.grouped


@pytest.mark.parametrize(
    "value",
    [
        1,
        "é",
        b"\xff",
        None,
        True,
        1.5,
        float("inf"),
        2**64,
        -(2**63) - 1,
        "\ud800",
        (1, "a"),
        [1, "a"],
        (1, [2]),
        [(1, 2)],
        (),
        {"a": (1,)},
        frozenset({1}),
        Colour.RED,
        Point(3),
        bytearray(b"x"),
        OrderedDict(a=1),
        1j,
    ],
    ids=repr,
)
def test_each_kind_of_value(value: object) -> None:
    for columns in (Columns(["k"], [value], False), Columns(["k"], [[value, value]], True)):
        assert same(there_and_back(columns).values, columns.values)
    for mixed in (Columns(["k", "l"], [value, 1], False), Columns(["k"], [["a", value]], True)):
        assert same(there_and_back(mixed).values, mixed.values)


def test_plain_columns_do_not_need_pickle() -> None:
    for columns in (
        Columns(["a", "b"], [1, 2.5], False),
        Columns([("a", 1), ("b", 2)], [(1, 2), (3, "x")], False),
        Columns(["a"], [[[1, 2], [3]]], True),
    ):
        data, _ = encode_block(columns, "none")
        assert b"\x80\x05" not in data[HEAD.size : HEAD.size + 2]


def test_what_cannot_be_pickled_is_named_with_its_key() -> None:
    with pytest.raises(JobCodeError, match="for the key 'bad': lock cannot be pickled"):
        encode_block(Columns(["good", "bad"], [1, threading.Lock()], False), "none")
    with pytest.raises(JobCodeError, match=r"A value cannot .* for the key 'bad': function cannot be pickled"):
        encode_block(Columns(["bad"], [[1, lambda: 0]], True), "none")
