"""Partitions: stable over processes and kinds of numbers, and evenly used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker.pairs import JobCodeError
from p2premap.worker.partition import partitions_of, stable_hash

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(keys, keys)
def test_equal_keys_get_the_same_hash(one: object, other: object) -> None:
    assert 0 <= stable_hash(one) < 2**32
    if one == other:
        assert stable_hash(one) == stable_hash(other)


def test_numbers_that_are_equal_in_a_dict_belong_together() -> None:
    assert len({stable_hash(k) for k in (1, 1.0, True)}) == 1
    assert len({stable_hash(k) for k in (0, 0.0, -0.0, False)}) == 1
    assert stable_hash((1, "a")) == stable_hash((1.0, "a"))
    assert stable_hash(2**70) == stable_hash(float(2**70))


def test_the_same_in_every_process() -> None:
    program = (
        "from p2premap.worker.partition import *;"
        "print(partitions_of(['the', 'whale', 'é', '\\ud800'], 97, None),"
        "[stable_hash(k) for k in (b'x', 12, -3.5, ('a', (1, None)), 10**30)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert told == {"[79, 28, 13, 81] [2363233923, 1330857165, 1391678165, 247554188, 4194119719]\n"}


@pytest.mark.parametrize(
    "some",
    [
        [f"word{n}" for n in range(10_000)],
        list(range(10_000)),
        list(range(0, 80_000, 8)),
        [(n, str(n)) for n in range(10_000)],
        [n / 8 for n in range(10_000)],
    ],
    ids=["strings", "integers", "multiples of 8", "tuples", "floats"],
)
@pytest.mark.parametrize("n", [2, 7, 8, 64])
def test_partitions_are_used_evenly(some: list[object], n: int) -> None:
    sizes = Counter(partitions_of(some, n, None))
    assert len(sizes) == n
    assert max(sizes.values()) < 1.6 * len(some) / n


@pytest.mark.parametrize("key", [[1], {1}, 1j, object(), ("a", [1])])
def test_keys_of_other_kinds_are_refused(key: object) -> None:
    with pytest.raises(JobCodeError, match="keys are strings, bytes, numbers"):
        partitions_of([key], 2, None)


def test_nan_is_refused() -> None:
    with pytest.raises(JobCodeError, match="nan"):
        partitions_of([float("nan")], 2, None)


def test_a_job_files_own_partition() -> None:
    assert partitions_of(["b", "a"], 3, lambda key, n: n - 1 if key == "b" else 0) == [2, 0]
    for wrong in (3, -1, None, 1.0, "0"):
        with pytest.raises(JobCodeError, match=r"partition gave .* for the key 'a': it must be one of 0 to 2"):
            partitions_of(["a"], 3, lambda key, n, wrong=wrong: wrong)  # type: ignore[misc]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("key", [float("nan"), ("a", float("nan")), frozenset("a"), ("a", ["b"])])
def test_what_cannot_be_a_key_is_none_whatever_the_number_of_partitions(n: int, key: object) -> None:
    with pytest.raises(JobCodeError, match="map gave the key"):
        partitions_of(["a", key], n, None)


def test_a_partition_of_ones_own_gets_no_key_that_is_not_equal_to_itself() -> None:
    assert partitions_of([frozenset("a"), 1.0], 2, lambda key, n: 1) == [1, 1]
    for key in (float("nan"), (1, (float("nan"), 2))):
        with pytest.raises(JobCodeError, match="not equal to itself"):
            partitions_of([key], 2, lambda key, n: 1)


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    for made in (numpy.int64(7), numpy.uint8(7), numpy.float64(7), numpy.float32(7), numpy.bool_(1)):
        assert stable_hash(made) == stable_hash(made.item())
    with pytest.raises(JobCodeError, match="a ndarray"):
        stable_hash(numpy.array([1]))
