"""Which combiners are done as sums, and that it makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker.blocks import Columns
from p2premap.worker.grouping import Grouping, Lists, Sums, adds_up, combined, grouping_for
from tests.worker.jobs import lines, pairs, run_source


def adds(key, values):
    """It has a docstring."""
    return sum(values)


def renamed(word, counts):
    return sum(counts)


def starts(key, values):
    return sum(values, 1)


def other(key, values):
    return max(values)


def sums_keys(key, values):
    return sum(key)


def gathers(key, *values):
    return sum(values)


def defined(source: str) -> Callable[..., object]:
    names: dict[str, Callable[..., object]] = {}
    exec(source, names)
    return names["combine"]


def test_adding_up_is_recognised_and_nothing_else() -> None:
    assert adds_up(adds)
    assert adds_up(renamed)
    assert adds_up(lambda key, values: sum(values))
    assert adds_up(defined("def combine(w, c):\n    return sum(c)\n"))
    for function in (starts, other, sums_keys, gathers, sum, None, lambda key, values: len(values)):
        assert not adds_up(function)
    assert not adds_up(defined("def sum(values): return 0\ndef combine(w, c):\n    return sum(c)\n"))
    assert not adds_up(defined("def combine(w, c):\n    sum = max\n    return sum(c)\n"))
    assert isinstance(grouping_for(adds), Sums)
    assert isinstance(grouping_for(other), Lists)
    assert isinstance(grouping_for(None), Lists)


def columns(grouping: Grouping) -> Columns:
    keys = sorted(grouping.groups)
    return grouping.columns(keys, [grouping.groups[key] for key in keys])


numbers = st.integers() | st.booleans() | st.fractions()


@given(st.lists(st.tuples(st.sampled_from("abc"), numbers)))
def test_sums_are_what_the_combiner_gives(some: list[tuple[str, object]]) -> None:
    sums, plain = Sums(), Lists(lambda key, values: sum(values))  # type: ignore[arg-type, call-overload]
    for grouping in (sums, plain):
        assert grouping.add(iter(some)) is None
    assert columns(sums) == columns(plain)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), numbers | st.floats(0, 1)), max_size=4))
def test_mappings_are_pairs(some: list[dict[str, object]]) -> None:
    for kind in (Sums, lambda: Lists(None)):
        by_mapping, by_pair = kind(), kind()
        for mapping in some:
            by_mapping.add_mapping(mapping)
            assert by_pair.add(iter(mapping.items())) is None
        assert repr(columns(by_mapping)) == repr(columns(by_pair))


def test_values_that_do_not_add_up_are_refused_as_sum_does(tmp_path: Path) -> None:
    source = "def map(k, v): yield v, 'text'\ndef combine(k, v): return sum(v)\ndef reduce(k, v): return 1\n"
    with pytest.raises(TypeError, match="unsupported operand"):
        run_source(tmp_path, source, b"a\na\n")
    with pytest.raises(TypeError, match="unsupported operand"):
        run_source(tmp_path, source.replace("yield v, 'text'", "return {v: 'text'}"), b"a\na\n")


def test_values_whose_equality_is_no_answer(tmp_path: Path) -> None:
    source = """
        class Vector:
            def __init__(self, x): self.x = x
            def __add__(self, other): return Vector(self.x + other.x)
            def __radd__(self, zero): return self
            def __eq__(self, other): raise ValueError("the truth of an array is ambiguous")

        def map(key, line):
            yield line, Vector(1)

        def combine(key, values):
            return sum(values)

        def reduce(key, values):
            return sum(values).x
    """
    assert pairs(run_source(tmp_path, source, b"a\nb\na\n", partitions=2)) == {"a": "2", "b": "1"}


def test_a_group_is_combined_for_its_own_key_and_single_values_are_left_alone() -> None:
    calls: list[tuple[object, list[object]]] = []

    def combine(key, values):
        calls.append((key, list(values)))
        return "combined"

    assert combined(combine, ["a", "b", "c"], [[1, 2], [3], iter([4])]) == ["combined", 3, "combined"]
    assert calls == [("a", [1, 2]), ("c", [4])]


def test_sums_of_what_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sums, "bytes_held", lambda self: 1 << 30 if len(self.groups) > 9 else 0)
    monkeypatch.setattr("p2premap.worker.shuffle.CHUNK_PAIRS", 10)
    source = """
        def map(key, line):
            for n in range(100):
                yield n % 50, n

        def combine(key, values):
            return sum(values)

        def reduce(key, values):
            return sum(values)
    """
    found = lines(run_source(tmp_path, source, b"x\ny\n", partitions=1))
    assert found == [f"{n}\t{2 * (n + n + 50)}" for n in range(50)]
