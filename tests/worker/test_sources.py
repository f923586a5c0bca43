"""Datasources: what each kind gives to map, shared out to tasks, and what is said of those that are none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from bench.direct import Outcome, run_direct
from p2premap.client.plan import plan_mapreduce
from p2premap.errors import JobRejected
from p2premap.worker import sources
from p2premap.worker.pairs import JobCodeError
from tests.worker.jobs import forgotten, lines


def run(directory: Path, source: str, *inputs: str, **options: object) -> Outcome:
    (directory / "job.py").write_text(dedent(source))
    given = {"slots": 2, **options}
    with forgotten():
        return run_direct(plan_mapreduce(str(directory / "job.py"), list(inputs), **given), directory / "work")  # type: ignore[arg-type]


KINDS = {
    "a dict": ("{'a': 1, 'b': 2}", ["a\t1", "b\t2"]),
    "a list": ("['x', 'y', 'z']", ["0\tx", "1\ty", "2\tz"]),
    "a range": ("range(5, 8)", ["0\t5", "1\t6", "2\t7"]),
    "a generator": ("(n * n for n in range(3))", ["0\t0", "1\t1", "2\t4"]),
    "a set": ("{'only'}", ["0\tonly"]),
    "a function": ("lambda: {'made': 'late'}", ["made\tlate"]),
    "a class": ("Lazy()", ["1\tvalue of 1", "2\tvalue of 2"]),
}
LAZY = """
class Lazy:
    def __iter__(self):
        return iter((1, 2))

    def __getitem__(self, key):
        return f"value of {key}"
"""


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_datasource_gives(tmp_path: Path, kind: str) -> None:
    text, expected = KINDS[kind]
    outcome = run(tmp_path, f"{LAZY}\ndatasource = {text}\ndef map(key, value): yield key, value\n")
    assert lines(outcome) == expected
    assert list(outcome.seconds) == ["keys", "map"]


def test_a_datasource_is_shared_out_and_reduced(tmp_path: Path) -> None:
    source = """
        datasource = range(1_000)

        def map(key, value):
            yield value % 7, value

        def reduce(key, values):
            return sum(values)

        def finish(pairs):
            yield "total", sum(value for _, value in pairs)
    """
    outcome = run(tmp_path, source, slots=3)
    assert lines(outcome) == ["total\t499500"]
    assert list(outcome.seconds) == ["keys", "map", "reduce", "finish"]


def test_only_reduce_over_a_datasource(tmp_path: Path) -> None:
    source = """
        datasource = {("a", 1): 1, ("a", 2): 5}

        def reduce(key, values):
            return sum(values)
    """
    assert lines(run(tmp_path, source, partitions=1)) == ['["a",1]\t1', '["a",2]\t5']


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("5", "datasource must be something that can be iterated: 'int' object is not iterable"),
        ("[]", "datasource is empty"),
        ("{}", "datasource is empty"),
        ("itertools.count()", "datasource has more than 1000 keys; say endless = True"),
        ("Broken()", r"datasource has no value for its key 2: KeyError: 'gone'"),
    ],
)
def test_what_is_no_datasource_is_said(
    tmp_path: Path, text: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "KEYS_MAX", 1_000)
    source = f"""
import itertools
class Broken(dict):
    def __iter__(self): return iter((1, 2))
    def __getitem__(self, key): return 1 if key == 1 else {{}}["gone"]

datasource = {text}
def map(key, value): yield key, value
"""
    with pytest.raises(JobCodeError, match=sentence):
        run(tmp_path, source)


def test_what_map_raises_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path, "datasource = {'a': 1, 'b': 0}\ndef map(key, value): yield key, 1 / value\n")
    assert caught.value.__notes__ == ["map was given the record 'b', 0."]


def test_a_datasource_and_files_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match=r"has a datasource or each_node, and reads no files: leave in\.txt out"):
        run(tmp_path, "datasource = [1]\ndef map(key, value): pass\n", "in.txt")


# --- keys by their numbers ------------------------------------------------------------------------------------------


def numbered(source: sources.Source, first: int, count: int) -> list[tuple[object, object]]:
    groups = source.numbered(first, count)
    return [pair for records in groups for pair in zip(records.keys(), records.values, strict=True)]


class Squares:
    def __iter__(self) -> Iterator[int]:
        return itertools.count(1)

    def __getitem__(self, key: int) -> int:
        return key * key


class Odd:
    def __iter__(self) -> Iterator[int]:
        return iter((2,))

    def __getitem__(self, key: int) -> int:
        raise IndexError("nothing there")


ENDLESS = {
    "an iterator": (itertools.count(7), lambda n: (n, n + 7)),
    "a generator function": (lambda: (n + 7 for n in itertools.count()), lambda n: (n, n + 7)),
    "keys with values": (Squares(), lambda n: (n + 1, (n + 1) ** 2)),
    "a range": (range(7, 10**9), lambda n: (n, n + 7)),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_keys_of_what_never_ends_are_counted_off(kind: str) -> None:
    given, expected = ENDLESS[kind]
    source = sources.Source(given, again=lambda: itertools.count(7))
    for first, count in ((0, 3), (3, 40), (1_000, 5), (2, 2), (1_005, 1)):  # an earlier one comes again, too
        assert numbered(source, first, count) == [expected(n) for n in range(first, first + count)]


def test_what_ends_gives_fewer() -> None:
    source = sources.Source(["a", "b", "c"])
    assert numbered(source, 1, 5) == [(1, "b"), (2, "c")]
    assert numbered(source, 5, 5) == []
    assert numbered(sources.Source({"a": 1}), 0, 2) == [("a", 1)]


def test_what_cannot_be_iterated_is_said() -> None:
    with pytest.raises(JobCodeError, match="something that can be iterated"):
        numbered(sources.Source(7), 0, 1)
    with pytest.raises(JobCodeError, match="no value for its key 2: IndexError"):
        numbered(sources.Source(Odd()), 0, 1)
