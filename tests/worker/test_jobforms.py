"""What a job file may ask for beyond map and reduce: orders, sets, generator forms, finish, jobs after jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2premap.client import splits
from p2premap.errors import JobRejected
from p2premap.worker import shuffle
from p2premap.worker.pairs import JobCodeError
from tests.worker.jobs import lines, pairs, run_source

YEARS = b"1950 22\n1949 111\n1950 0\n1949 78\n1950 -11\n1949 -3\n"


@pytest.fixture
def many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 8)


# --- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.parametrize("partitions", [1, 3])
def test_values_come_in_the_order_that_the_job_asks_for(tmp_path: Path, partitions: int) -> None:
    source = """
        def map(key, line):
            year, degrees = line.split()
            yield int(year), int(degrees)

        def sort_key(year, degrees):
            return -degrees

        def reduce(year, degrees):
            return list(degrees)
    """
    outcome = run_source(tmp_path, source, YEARS, slots=4, partitions=partitions)
    assert sorted(lines(outcome)) == ["1949\t[111,78,-3]", "1950\t[22,0,-11]"]


@pytest.mark.usefixtures("many_tasks")
def test_keys_come_in_the_order_that_the_job_asks_for(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield line.split()[1], 1

        def sort_key(degrees):
            return int(degrees)

        def reduce(degrees, counts):
            return sum(counts)
    """
    outcome = run_source(tmp_path, source, YEARS * 2, slots=4, partitions=1)
    assert lines(outcome) == ["-11\t2", "-3\t2", "0\t2", "22\t2", "78\t2", "111\t2"]


def test_an_order_makes_keys_of_several_kinds_comparable(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield (int(line) if line.isdigit() else line), 1

        def sort_key(key):
            return str(key), type(key).__name__

        def reduce(key, counts):
            return sum(counts)
    """
    assert lines(run_source(tmp_path, source, b"b\n7\na\n7\n10\n", partitions=1)) == ["10\t1", "7\t2", "a\t1", "b\t1"]


@pytest.mark.parametrize("combine", ["return sum(values)", "return 0 + sum(values)", "yield sum(values)"])
def test_an_order_of_values_and_a_combiner(tmp_path: Path, combine: str) -> None:
    """What is combined has one key and one place in the order."""
    source = f"""
        def map(key, line):
            yield "sum", int(line)

        def combine(key, values):
            {combine}

        def sort_key(key, value):
            return value % 2

        def reduce(key, values):
            return list(values)
    """
    data = b"".join(b"%d\n" % n for n in range(10))
    assert lines(run_source(tmp_path, source, data, slots=1)) == ["sum\t[20,25]"]


def test_an_order_without_reduce_sorts(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield line, key[1]

        def sort_key(line):
            return line

        def partition(line, n):
            return "abc".index(line[0])
    """
    outcome = run_source(tmp_path, source, b"b2\nc1\na1\nb1\na1\n", partitions=3)
    assert [part.decode() for part in outcome.parts] == ["a1\t6\na1\t12\n", "b1\t9\nb2\t0\n", "c1\t3\n"]


@pytest.mark.parametrize("left", [0, 1])
def test_reduce_may_leave_values_unread(tmp_path: Path, left: int) -> None:
    source = f"""
        def map(key, line):
            year, degrees = line.split()
            yield int(year), int(degrees)

        def sort_key(year, degrees):
            return degrees

        def reduce(year, degrees):
            return [next(degrees) for _ in range({left})]
    """
    expected = {0: ["1949\t[]", "1950\t[]"], 1: ["1949\t[-3]", "1950\t[-11]"]}
    assert lines(run_source(tmp_path, source, YEARS, partitions=1)) == expected[left]


# --- sets ---------------------------------------------------------------------------------------------------------

SETS = """
    sets = ["words", "lengths"]

    def map(key, line):
        for word in line.split():
            yield "words", word, 1
            yield "lengths", len(word), word

    def reduce(set, key, values):
        return sum(values) if set == "words" else sorted(values)
"""


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.parametrize("partitions", [1, 2])
def test_sets_are_outputs_of_their_own(tmp_path: Path, partitions: int) -> None:
    outcome = run_source(tmp_path, SETS, b"a bb a\ncc a\n", slots=2, partitions=partitions)
    assert outcome.names == [f"{name}/part-{n:05d}" for name in ("words", "lengths") for n in range(partitions)]
    made = ["".join(part.decode() for part in outcome.parts[n : n + partitions]) for n in (0, partitions)]
    assert sorted(made[0].splitlines()) == ["a\t3", "bb\t1", "cc\t1"]
    assert sorted(made[1].splitlines()) == ['1\t["a","a","a"]', '2\t["bb","cc"]']


def test_functions_are_given_the_set(tmp_path: Path) -> None:
    source = (
        SETS
        + """
    def combine(set, key, values):
        yield from values if set == "lengths" else [sum(values)]

    def partition(set, key, n):
        return key % n if set == "lengths" else 0

    def sort_key(set, key):
        return -key if set == "lengths" else key
"""
    )
    outcome = run_source(tmp_path, source, b"a bb a\ncc aaa\n", partitions=2)
    assert [part.decode() for part in outcome.parts] == [
        "a\t2\naaa\t1\nbb\t1\ncc\t1\n",
        "",
        '2\t["bb","cc"]\n',
        '3\t["aaa"]\n1\t["a","a"]\n',
    ]


def test_sets_without_reduce_and_with_an_order_of_values(tmp_path: Path) -> None:
    source = """
        sets = ("even", "odd")

        def map(key, line):
            return [("odd" if int(line) % 2 else "even", "n", int(line))]

        def sort_key(set, key, value):
            return value
    """
    outcome = run_source(tmp_path, source, b"4\n3\n1\n2\n", partitions=1)
    assert [part.decode() for part in outcome.parts] == ["n\t2\nn\t4\n", "n\t1\nn\t3\n"]


@pytest.mark.parametrize(
    ("gives", "sentence"),
    [
        ("[(line, 1)]", r"map must give \(set, key, value\) in a job with sets, and gave \('x', 1\)"),
        ("[('none', line, 1)]", r"map gave the set 'none'; the job file has a, b"),
        ("5", "map must give .* pairs"),
    ],
)
def test_wrong_sets_are_one_sentence(tmp_path: Path, gives: str, sentence: str) -> None:
    source = f"sets = ['a', 'b']\ndef map(key, line): return {gives}\ndef reduce(set, key, values): return 1\n"
    with pytest.raises(JobCodeError, match=sentence):
        run_source(tmp_path, source, b"x\n")


# --- combine that yields, and finish ------------------------------------------------------------------------------

TOP = """
    def map(key, line):
        for word in line.split():
            yield len(word), word

    def combine(length, words):
        yield from sorted(set(words))[:2]

    def reduce(length, words):
        return sorted(set(words))[:2]
"""


@pytest.mark.parametrize("spilling", [False, True])
def test_a_combiner_may_yield_several_values(tmp_path: Path, spilling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if spilling:
        monkeypatch.setattr(shuffle.MapOutput, "_take_stock", shuffle.MapOutput._spill)
    given: list[int] = []
    monkeypatch.setattr(shuffle.RunWriter, "end_segment", _counting(given, shuffle.RunWriter.end_segment))
    data = b"d c b a dd cc bb aa\n" * 50
    assert pairs(run_source(tmp_path, TOP, data, slots=1, partitions=1)) == {"1": '["a","b"]', "2": '["aa","bb"]'}
    assert given[-1] == 4


def _counting(given: list[int], end):
    def counting(self):
        given.append(self.records)
        return end(self)

    return counting


def test_a_combiner_may_yield_nothing(tmp_path: Path) -> None:
    source = TOP.replace("yield from sorted(set(words))[:2]", "yield from [word for word in words if word > 'b']")
    assert pairs(run_source(tmp_path, source, b"a b c dd aa\n", slots=1)) == {"1": '["c"]', "2": '["dd"]'}


FINISH = """
    def map(key, line):
        for word in line.split():
            yield word, 1

    def reduce(word, counts):
        return sum(counts)
"""
FINISHES = {
    "yields": "def finish(pairs):\n    yield from sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:2]\n",
    "a list": "def finish(pairs):\n    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:2]\n",
    "a dict": "def finish(pairs):\n    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:2])\n",
}


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.parametrize("form", FINISHES)
def test_finish_sees_everything_once(tmp_path: Path, form: str) -> None:
    from textwrap import dedent

    source = dedent(FINISH) + FINISHES[form]
    outcome = run_source(tmp_path, source, b"a b a c\nb a\nc b a\n", slots=2, partitions=2)
    assert lines(outcome) == ["a\t4", "b\t3"]
    assert outcome.seconds.keys() == {"map", "reduce", "finish"}


@pytest.mark.usefixtures("many_tasks")
def test_finish_may_replace_reduce_and_gets_every_type_as_it_was(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield (line, 1), {line}

        def finish(pairs):
            pairs = list(pairs)
            yield len(pairs), [[type(k).__name__, type(v).__name__] for k, v in pairs][0]
    """
    outcome = run_source(tmp_path, source, b"a long line\nb long line\nc long line\n", slots=2)
    assert lines(outcome) == ['3\t["tuple","set"]']
    assert outcome.seconds.keys() == {"map", "finish"}


@pytest.mark.parametrize(
    ("finish", "sentence"),
    [("return 5", r"finish must give \(key, value\) pairs"), ("yield 5", r"finish must give \(key, value\) pairs")],
)
def test_a_finish_that_gives_no_pairs(tmp_path: Path, finish: str, sentence: str) -> None:
    with pytest.raises(JobCodeError, match=sentence):
        run_source(tmp_path, f"def map(k, v): yield v, 1\ndef finish(pairs): {finish}\n", b"a\n")


# --- jobs after jobs ----------------------------------------------------------------------------------------------


def follow(directory: Path, first: str, second: str, data: bytes) -> list[str]:
    """Run a job, and another over its parts."""
    outcome = run_source(directory / "1", first, data, partitions=2)
    files = {
        name or f"part-{n:05d}": part for n, (name, part) in enumerate(zip(outcome.names, outcome.parts, strict=True))
    }
    return lines(run_source(directory / "2", second, files, partitions=1))


@pytest.mark.usefixtures("many_tasks")
def test_map_and_reduce_as_two_jobs(tmp_path: Path) -> None:
    """Only map, then only reduce: pairs travel as they are, sets and tuples too."""
    first = """
        writer = "pairs"

        def map(key, line):
            for word in line.split():
                yield (word, len(word)), {word}
    """
    second = """
        reader = "parts"

        def reduce(key, values):
            word, length = key
            assert all(value == {word} for value in values)
            return length
    """
    assert follow(tmp_path, first, second, b"a bb\nccc a\nbb bb\n") == ['["a",1]\t1', '["bb",2]\t2', '["ccc",3]\t3']


@pytest.mark.parametrize(("writer", "shown"), [("text", '"1"'), ("jsonl", "1"), ("pairs", "1")])
def test_parts_are_read_as_their_writer_wrote_them(tmp_path: Path, writer: str, shown: str) -> None:
    first = f"writer = '{writer}'\ndef map(key, line): yield line, 1\ndef reduce(key, values): return sum(values)\n"
    second = "import json\nreader = 'parts'\ndef map(key, value): yield key, json.dumps(value)\n"
    assert sorted(follow(tmp_path, first, second, b"a\nb\n")) == [f"a\t{shown}", f"b\t{shown}"]


REFUSED = [
    ("def reduce(key, values): return 1\n", r"no function map: .*say what the records are that reduce gets"),
    ("sets = list('ab')\ndef map(k, v): pass\n", r"sets must be a list of names"),
    ("sets = ['a/b']\ndef map(k, v): pass\n", r"the set 'a/b' cannot be a directory"),
    ("sets = ['..']\ndef map(k, v): pass\n", r"the set '\.\.' cannot be a directory"),
    ("sets = ['a', 'A']\ndef map(k, v): pass\n", r"must differ"),
    ("sets = ['a']\ndef map(k, v): pass\ndef finish(pairs): pass\n", r"sets and finish"),
    ("sets = ['a']\ndef map(k, v): pass\ndef reduce(k, v): pass\n", r"reduce must take three arguments, reduce\(set, "),
    ("def map(k, v): pass\ndef sort_key(a, b, c): pass\n", r"sort_key must take one or two arguments"),
    ("def map(k, v): pass\ndef finish(a, b): pass\n", r"finish must take one argument, finish\(pairs\)"),
    ("def map(k, v): pass\ndef reader(a, b): pass\n", r"reader must take one argument, reader\(stream\)"),
    ("def map(k, v): pass\nwriter = 'xls'\n", r"writer is 'xls'; say one of text, jsonl"),
    ("def map(k, v): pass\nsuffix = '/../x'\n", r"suffix is '/../x'"),
]


@pytest.mark.parametrize(("source", "sentence"), REFUSED)
def test_what_cannot_be_is_refused_before_there_is_a_job(tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(JobRejected, match=sentence) as caught:
        run_source(tmp_path, source, b"x\n")
    assert "\n" not in str(caught.value)
    assert json.dumps(str(caught.value))
