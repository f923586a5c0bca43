"""Plans between partitions: the smaller one is taken, and what goes over it does not depend on how it is written."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.worker.vertex.exchange import DENSE, SPARSE, Exchange, pack, unpack
from p2premap.worker.vertex.kernels import reducer
from p2premap.worker.vertex.owners import owner

Edge = tuple[int, int]


def exchanges(
    edges: list[Edge], vertices: int, partitions: int, combine: str, dtype: str, told: list[int] | None = None
) -> list[Exchange]:
    """All partitions of a graph, agreed. `told` is given the size of each request."""
    keys = np.arange(vertices, dtype=np.int64)
    owners = owner(keys, partitions)
    by_source = defaultdict(list)
    for source, target in edges:
        by_source[source].append(target)
    result = []
    for number in range(partitions):
        mine = keys[owners == number]
        rows = [by_source[key] for key in mine.tolist()]
        result.append(
            Exchange(
                mine,
                np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64),
                np.array([target for row in rows for target in row], np.int64),
                None,
                partitions=partitions,
                dtype=np.dtype(dtype),
                how=reducer(combine, np.dtype(dtype)) if combine else None,
            )
        )
    for (number, source), target in itertools.product(enumerate(result), range(partitions)):
        request = b"".join(source.request(target))
        result[target].agree(number, memoryview(request))
        if told is not None:
            told.append(len(request))
    for exchange in result:
        exchange.settle()
    return result


def carry(parts: list[Exchange], values: np.ndarray, mask: np.ndarray | None, kinds: list[int] | None = None) -> int:
    """One superstep's mail; how many bytes it was."""
    total = 0
    for part in parts:
        part.still()
        part.put(values[part.keys].copy(), None if mask is None else mask[part.keys])
    for (number, source), (place, target) in itertools.product(enumerate(parts), enumerate(parts)):
        mail = b"".join(source.mail(place))
        total += len(mail)
        for kind, arrays in unpack(memoryview(mail)):
            target.take(number, kind, arrays)
            if kinds is not None:
                kinds.append(kind)
    return total


@settings(max_examples=50)
@given(
    edges=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=60),
    active=st.one_of(st.none(), st.sets(st.integers(0, 14))),
    partitions=st.integers(1, 4),
    how=st.sampled_from([("sum", "int64"), ("min", "int64"), ("max", "uint8"), ("min", "float64")]),
)
def test_what_arrives_is_what_was_sent_along_the_edges(
    edges: list[Edge], active: set[int] | None, partitions: int, how: tuple[str, str]
) -> None:
    parts = exchanges(edges, 15, partitions, *how)
    combine = reducer(how[0], np.dtype(how[1]))
    values = np.arange(3, 18).astype(how[1])
    mask = None if active is None else np.isin(np.arange(15), list(active))
    for _ in range(2):
        carry(parts, values, mask)
        expected = np.full(15, combine.identity, how[1])
        for source, target in edges:
            if mask is None or mask[source]:
                expected[target] = combine.ufunc(expected[target], values[source])
        for part in parts:
            got = part.reduce()
            assert (expected[part.keys] if got is None else got).tolist() == expected[part.keys].tolist()


@settings(max_examples=50)
@given(
    edges=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=60),
    active=st.one_of(st.none(), st.sets(st.integers(0, 14))),
    partitions=st.integers(1, 4),
)
def test_without_a_combiner_every_edge_brings_its_value(
    edges: list[Edge], active: set[int] | None, partitions: int
) -> None:
    parts = exchanges(edges, 15, partitions, "", "int64")
    mask = None if active is None else np.isin(np.arange(15), list(active))
    carry(parts, np.arange(15), mask)
    for part in parts:
        columns, there = part.columns()
        for slot, key in enumerate(part.keys.tolist()):
            starts, counts = part.pulled.spans()
            along = part.pulled.columns[starts[slot] : starts[slot] + counts[slot]]
            got = sorted(columns[column] for column in along if there is None or there[column])
            assert got == sorted(s for s, t in edges if t == key and (mask is None or mask[s]))


@pytest.mark.parametrize("inwards", [True, False])
def test_a_hub_costs_one_value_whichever_way_its_edges_lead(inwards: bool) -> None:
    edges = [(leaf, 0) if inwards else (0, leaf) for leaf in range(1, 5000)]
    told: list[int] = []
    parts = exchanges(edges, 5000, 2, "sum", "float64", told)
    assert carry(parts, np.ones(5000), None) < 400
    total = sum(float(got.sum()) for part in parts if (got := part.reduce()) is not None)
    assert total == 4999.0
    if inwards:
        assert max(told) < 200, "edges that are added up here are not told"


def test_few_values_are_sent_with_their_places_and_many_without() -> None:
    edges = [(s, (s * 7 + d) % 2000) for s in range(2000) for d in range(8)]
    parts = exchanges(edges, 2000, 2, "min", "float64")
    few, most = np.zeros(2000, np.bool_), np.ones(2000, np.bool_)
    few[:20] = True
    most[:20] = False
    kinds: list[int] = []
    assert carry(parts, np.arange(2000.0), few, kinds) < 2000
    assert set(kinds) == {SPARSE}
    sparse = [part.reduce() for part in parts]
    kinds.clear()
    carry(parts, np.arange(2000.0), most, kinds)
    assert set(kinds) == {DENSE}
    expected = np.full(2000, np.inf)
    for s, t in edges:
        expected[t] = min(expected[t], s if few[s] else np.inf)
    for part, after in zip(parts, sparse, strict=True):
        assert after is not None
        assert after.tolist() == expected[part.keys].tolist()


def test_sections_are_read_as_they_were_written() -> None:
    first, second = np.array([1, 2, 3], np.uint8), np.array([1.5, np.nan])
    mail = b"".join([*pack(7, first, second), *pack(9), *pack(8, second[:0])])
    assert len(mail) % 8 == 0
    (kind, arrays), (nothing, none), (empty, (last,)) = unpack(memoryview(mail))
    assert (kind, nothing, empty) == (7, 9, 8)
    assert none == []
    assert last.size == 0
    assert arrays[0].tolist() == [1, 2, 3]
    assert arrays[1].tobytes() == second.tobytes()
    with pytest.raises(ValueError, match="mail of type"):
        list(unpack(memoryview(mail.replace(b"<f8", b"<c8"))))
