"""Loops over edges: right in every way they can be gone over, and for every odd shape."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.worker.vertex import kernels
from p2premap.worker.vertex.kernels import Block, commonest, distinct, places_of, ranges, reducer, simple

edges = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), max_size=60)
TYPES = [("sum", "float64"), ("sum", "int64"), ("min", "float64"), ("min", "int64"), ("max", "uint8"), ("max", "bool")]


def block_of(pairs: list[tuple[int, int]], weights: list[float] | None = None) -> Block:
    rows, columns = np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)
    return Block(rows, columns, 13, 10, None if weights is None else np.array(weights))


@settings(max_examples=50)
@given(pairs=edges, seed=st.integers(0, 99), how=st.sampled_from(TYPES), chunk=st.sampled_from([1, 7, 1 << 14]))
def test_pulling_and_pushing_reduce_what_a_loop_does(
    pairs: list[tuple[int, int]], seed: int, how: tuple[str, str], chunk: int
) -> None:
    name, dtype = how
    combine = reducer(name, np.dtype(dtype))
    values = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 200, 10).astype(dtype)
    expected = np.full(13, combine.identity, dtype)
    for row, column in pairs:
        expected[row] = combine.ufunc(expected[row], values[column])
    block = block_of(pairs)
    before = kernels.CHUNK_EDGES, kernels.PRODUCT_EDGES
    kernels.CHUNK_EDGES = kernels.PRODUCT_EDGES = chunk
    try:
        pulled = block.reduce(combine, values)
    finally:
        kernels.CHUNK_EDGES, kernels.PRODUCT_EDGES = before
    assert pulled.dtype == values.dtype
    assert pulled.tolist() == pytest.approx(expected.tolist())
    everything = np.arange(10)
    assert block.scatter(combine, everything, values).tolist() == pytest.approx(expected.tolist())


@settings(max_examples=50)
@given(pairs=edges, chosen=st.sets(st.integers(0, 9)), edge=st.sampled_from([None, np.add, np.multiply]))
def test_pushing_takes_some_columns_only(pairs: list[tuple[int, int]], chosen: set[int], edge: np.ufunc | None) -> None:
    weights = [0.5 + number % 5 for number in range(len(pairs))]
    block, combine = block_of(pairs, weights), reducer("min", np.dtype("float64"))
    values = np.arange(10) * 1.5
    columns = np.array(sorted(chosen), np.int64)
    expected = [np.inf] * 13
    for (row, column), weight in zip(pairs, weights, strict=True):
        if column in chosen:
            value = values[column] if edge is None else edge(values[column], weight)
            expected[row] = min(expected[row], value)
    assert block.scatter(combine, columns, values[columns], edge).tolist() == expected
    if len(chosen) == 10:
        assert block.reduce(combine, values, edge).tolist() == expected


@pytest.mark.parametrize("with_scipy", [True, False])
@pytest.mark.parametrize("edge", [None, np.multiply])
def test_repeated_edges_count_as_often_as_they_are_there(
    with_scipy: bool, edge: np.ufunc | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_scipy:
        monkeypatch.setattr(kernels, "matrices", lambda: None)
    block = block_of([(1, 2), (1, 2), (1, 3), (4, 2), (4, 2), (4, 2), (12, 9)], [1, 2, 3, 4, 5, 6, 7])
    summed = block.reduce(reducer("sum", np.dtype("float64")), np.arange(10.0), edge)
    expected = {1: 7.0, 4: 6.0, 12: 9.0} if edge is None else {1: 15.0, 4: 30.0, 12: 63.0}
    assert summed.tolist() == [expected.get(row, 0.0) for row in range(13)]


def test_a_nan_goes_on_its_way_and_no_further() -> None:
    values = np.array([np.nan, 1.0, *[2.0] * 8])
    block = block_of([(0, 0), (0, 1), (1, 1), (3, 2)])
    for name in ("sum", "min", "max"):
        combine = reducer(name, np.dtype("float64"))
        for result in (block.reduce(combine, values), block.scatter(combine, np.arange(10), values)):
            assert np.flatnonzero(np.isnan(result)).tolist() == [0]
            assert result[1] == 1.0
            assert result[3] == 2.0


def test_unknown_combiners_are_named() -> None:
    with pytest.raises(ValueError, match="No combiner is called 'mean': there are sum, min and max"):
        reducer("mean", np.dtype("float64"))


@given(keys=st.lists(st.one_of(st.integers(-50, 50), st.integers(-(2**62), 2**62)), max_size=40))
def test_distinct_keys_and_where_each_is(keys: list[int]) -> None:
    found, places = distinct(np.array(keys, np.int64))
    assert found.tolist() == sorted(set(keys))
    assert found[places].tolist() == keys


def test_places_of_keys_that_are_there_and_of_others() -> None:
    keys = np.array([-5, 2, 9], np.int64)
    assert places_of(keys, np.array([9, -6, 2, 10, -5], np.int64)).tolist() == [2, -1, 1, -1, 0]
    assert places_of(keys[:0], keys).tolist() == [-1, -1, -1]


def test_ranges_one_after_the_other() -> None:
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]
    assert ranges(np.array([], np.int64), np.array([], np.int64)).tolist() == []


@settings(max_examples=50)
@given(pairs=edges, labels=st.lists(st.integers(-3, 3), min_size=10, max_size=10), chunk=st.sampled_from([3, 1 << 14]))
def test_the_most_frequent_label_and_of_several_the_smallest(
    pairs: list[tuple[int, int]], labels: list[int], chunk: int
) -> None:
    expected = [-99] * 13
    for row in {row for row, _ in pairs}:
        seen = [labels[column] for r, column in pairs if r == row]
        expected[row] = min(seen, key=lambda label: (-seen.count(label), label))
    before = kernels.CHUNK_EDGES
    kernels.CHUNK_EDGES = chunk
    try:
        found = commonest(block_of(pairs), np.array(labels, np.int64), np.full(13, -99, np.int64))
    finally:
        kernels.CHUNK_EDGES = before
    assert found.tolist() == expected


def test_simple_graphs_have_no_loops_and_each_neighbour_once() -> None:
    keys = np.array([10, 20, 30], np.int64)
    indptr = np.array([0, 5, 7, 8], np.int64)
    targets = np.array([20, 20, 10, 20, 30, 10, 20, 10], np.int64)
    forward = np.array([1, 1, 1, 0, 0, 0, 1, 1], np.uint8)
    found = simple(keys, indptr, targets, forward)
    assert found.indptr.tolist() == [0, 2, 3, 4]
    assert found.targets.tolist() == [20, 30, 10, 10]
    assert found.directions is not None
    assert found.directions.tolist() == [2, 1, 1, 1]
    alike = simple(keys, indptr, targets, None).directions
    assert alike is not None
    assert alike.tolist() == [2, 2, 2, 2]
    nothing = simple(keys[:0], np.zeros(1, np.int64), keys[:0], None)
    assert nothing.indptr.tolist() == [0]


def test_what_a_block_holds_is_known() -> None:
    block = block_of([(row, row % 10) for row in range(13)])
    before = block.bytes_held()
    block.scatter(reducer("min", np.dtype("int64")), np.array([1]), np.array([5]))
    assert block.bytes_held() >= before + 13 * 4


def test_sums_need_no_memory_for_each_edge() -> None:
    pairs = [(row % 13, row % 10) for row in range(130)]
    block, combine = block_of(pairs), reducer("sum", np.dtype("float64"))
    before = block.bytes_held()
    block.reduce(combine, np.arange(10.0))
    assert block.bytes_held() - before < len(pairs)


@pytest.mark.parametrize(
    ("name", "dtype", "asks"), [("sum", "float64", True), ("min", "float64", False), ("min", "int64", False)]
)
def test_what_supersteps_go_through_is_made_before_them(
    name: str, dtype: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Mock(side_effect=kernels.matrices)
    monkeypatch.setattr(kernels, "matrices", looked)
    block, combine = block_of([(row, row % 10) for row in range(12)]), reducer(name, np.dtype(dtype))
    block.prepare(combine, np.dtype(dtype), None)
    assert looked.called is asks  # to import scipy takes a fifth of a second
    held = block.bytes_held()
    block.reduce(combine, np.arange(10).astype(dtype))
    if not asks:
        block.scatter(combine, np.array([1]), np.array([5]).astype(dtype))
    assert block.bytes_held() == held
