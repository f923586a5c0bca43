"""Whole map/reduce jobs on the real data path in one process: equal to a plain count, whatever the text."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.direct import run_direct
from p2premap.client import splits
from p2premap.client.plan import plan_mapreduce
from p2premap.errors import JobRejected
from p2premap.worker import mapreduce, readers, shuffle
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.runtime import InputLost
from p2premap.worker.vocabulary import Vocabulary
from tests.worker.jobs import forgotten, lines, pairs, run_source

EXAMPLES = Path(__file__).parents[2] / "examples"

COUNT = """
    def map(key, line):
        for word in line.split():
            yield word, 1

    def reduce(word, counts):
        return sum(counts)
"""
COMBINE = """
    def combine(word, counts):
        return sum(counts)
"""


def reference(texts: dict[str, bytes]) -> dict[str, str]:
    """The count of a single process that reads the files as text."""
    counts: Counter[str] = Counter()
    for data in texts.values():
        counts.update(data.decode("utf-8-sig", "replace").split())
    return {word: str(count) for word, count in counts.items()}


def corpus(seed: int = 3) -> dict[str, bytes]:
    """Files of all shapes: several line ends, none at the end, empty, one very long line, multibyte, a mark."""
    drawing = random.Random(seed)
    words = [
        "the",
        "whale",
        "Æsir",
        "naïve",
        "🐳",
        "“quoted”",
        "日本",
        "e\u0301",
        "\ufeffinside",
        *map(str, range(300)),
    ]

    def text(count: int, ends: tuple[str, ...]) -> str:
        return "".join(drawing.choice(words) + drawing.choice((" ", "\t", "  ", *ends)) for _ in range(count))

    return {
        "a_unix.txt": text(5_000, ("\n",)).encode(),
        "b_dos.txt": text(5_000, ("\r\n",)).encode(),
        "c_mixed.txt": text(2_000, ("\n", "\r\n", "\n\n", "\u2028", "\x0b")).encode(),
        "d_no_end.txt": b"first\nlast words",
        "e_empty.txt": b"",
        "f_long_line.txt": text(20_000, ()).encode(),
        "g_mark.txt": b"\xef\xbb\xbffirst line\nsecond\n",
        "h_newlines.txt": b"\n\n\n",
    }


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks and many pieces out of little text."""
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 7_001)
    monkeypatch.setattr(readers, "LINES_PIECE_BYTES", 1_009)
    monkeypatch.setattr(readers, "BLOCK_PIECE_BYTES", 2_003)
    monkeypatch.setattr(readers, "TASK_PIECE_BYTES", 1_501)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("example", ["wordcount.py", "wordcount_blocks.py"])
@pytest.mark.parametrize("partitions", [1, 3])
def test_the_examples_count_like_a_single_process(tmp_path: Path, example: str, partitions: int) -> None:
    texts = corpus()
    outcome = run_source(tmp_path, (EXAMPLES / example).read_text(), texts, partitions=partitions)
    assert len(outcome.parts) == partitions
    assert pairs(outcome) == reference(texts)
    for part in outcome.parts:
        keys = [line.split("\t")[0] for line in part.decode().split("\n")[:-1]]
        assert keys == sorted(keys)
        assert keys


@pytest.mark.usefixtures("small_pieces")
def test_blocks_one_by_one_count_like_a_single_process(tmp_path: Path) -> None:
    source = (EXAMPLES / "wordcount_blocks.py").read_text()
    source = source.replace('reader = "task"', 'reader = "blocks"').replace(
        "for block in blocks", "for block in [blocks]"
    )
    assert pairs(run_source(tmp_path, source, corpus())) == reference(corpus())


A_TASK = """
reader = "task"

def map(key, blocks):
    assert key is None
    yield "blocks", sum(1 for block in blocks if block.endswith("\\n"))

def reduce(key, values):
    return list(values)
"""


def test_map_is_called_once_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "TASK_PIECE_BYTES", 8)
    texts = {"a.txt": b"one\ntwo\nthree\n", "b.txt": b"four\n", "c.txt": b""}
    assert [part for part in run_source(tmp_path, A_TASK, texts, slots=1).parts if part] == [b"blocks\t[3]\n"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("next(blocks); next(blocks); 1 / 0", "the block at byte 8 of .*a.txt"),
        ("1 / 0", "no block yet"),
    ],
)
def test_the_block_that_map_stumbled_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr(readers, "TASK_PIECE_BYTES", 8)
    source = f'reader = "task"\ndef map(key, blocks):\n    {body}\n'
    with pytest.raises(ZeroDivisionError) as caught:
        run_source(tmp_path, source, {"a.txt": b"one\ntwo\nthree\n"}, slots=1)
    assert re.search(said, caught.value.__notes__[0])


@pytest.mark.parametrize("body", ["next(blocks)", "next(blocks); 1 / 0", "list(blocks)"])
def test_a_change_is_noticed_whatever_map_does_with_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """It is not missed where blocks are left over, explains any error, and cannot be caught and forgotten."""
    monkeypatch.setattr(readers, "TASK_PIECE_BYTES", 8)
    job, text = tmp_path / "job.py", tmp_path / "in.txt"
    job.write_text(
        f'reader = "task"\ndef map(key, blocks):\n    try:\n        {body}\n    except Exception:\n        pass\n'
    )
    text.write_bytes(b"one\ntwo\nthree\n")
    submission = plan_mapreduce(str(job), [str(text)], slots=2)
    text.write_bytes(b"one\ntwo\nother\n")
    with forgotten(), pytest.raises(InputLost, match="has changed"):
        run_direct(submission, tmp_path / "work")


@given(
    texts=st.lists(st.text(st.sampled_from("ab é\r\n\n 🐳\t"), max_size=80), min_size=1, max_size=4),
    slots=st.integers(1, 4),
    smallest=st.integers(1, 40),
    piece=st.integers(1, 40),
)
@settings(max_examples=40)
def test_any_text_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], slots: int, smallest: int, piece: int
) -> None:
    files = {f"{number}.txt": text.encode() for number, text in enumerate(texts)}
    if not any(files.values()):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "TASK_BYTES_MIN", smallest)
        patch.setattr(readers, "LINES_PIECE_BYTES", piece)
        outcome = run_source(tmp_path_factory.mktemp("any"), COUNT + COMBINE, files, slots=slots, partitions=2)
    assert pairs(outcome) == reference(files)


@pytest.mark.parametrize("extra", ["", COMBINE])
@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_spilling_changes_nothing(
    tmp_path: Path, extra: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = corpus()
    monkeypatch.setattr(shuffle, "CHUNK_PAIRS", 500)
    spills: list[int] = []
    spill = shuffle.MapOutput._spill

    def counted(output: shuffle.MapOutput) -> None:
        spills.append(1)
        spill(output)

    monkeypatch.setattr(shuffle.MapOutput, "_spill", counted)
    init = shuffle.MapOutput.__init__
    monkeypatch.setattr(shuffle.MapOutput, "__init__", lambda self, *args: init(self, *args, memory_bytes=40_000))
    outcome = run_source(tmp_path, COUNT + extra, texts, partitions=2, compression=compression)
    assert pairs(outcome) == reference(texts)
    assert len(spills) > 3


def test_memory_is_bounded_by_spilling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    look = shuffle.MapOutput._take_stock

    def watched(output: shuffle.MapOutput) -> None:
        held.append(output._grouping.bytes_held())
        look(output)

    monkeypatch.setattr(shuffle.MapOutput, "_take_stock", watched)
    monkeypatch.setattr(shuffle, "CHUNK_PAIRS", 1_000)
    init = shuffle.MapOutput.__init__
    monkeypatch.setattr(shuffle.MapOutput, "__init__", lambda self, *args: init(self, *args, memory_bytes=1 << 20))
    source = """
        def map(key, line):
            for number in range(1000):
                yield (line, number), f"a value of some length {number}"

        def reduce(key, values):
            return len(list(values))
    """
    outcome = run_source(tmp_path, source, b"".join(b"%d\n" % n for n in range(50)))
    assert len(lines(outcome)) == 50_000
    assert max(held) < 3 << 19


def test_an_attempt_does_not_depend_on_what_ran_before_it(tmp_path: Path) -> None:
    """The keys that a worker remembers from earlier attempts neither appear nor change anything."""
    texts = corpus()
    (tmp_path / "in").mkdir()
    for name, data in texts.items():
        (tmp_path / "in" / name).write_bytes(data)
    submission = plan_mapreduce(str(EXAMPLES / "wordcount.py"), [str(tmp_path / "in")], slots=2, partitions=2)
    kept = Vocabulary()
    results = []
    with forgotten(), pytest.MonkeyPatch.context() as patch:
        for number in range(3):
            patch.setattr(mapreduce, "Vocabulary", (lambda: kept) if number else Vocabulary)
            results.append(run_direct(submission, tmp_path / f"work{number}").parts)
    assert results[0] == results[1] == results[2]


def test_remembered_keys_of_other_words_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 1)
    texts = {f"{n}.txt": f"only{n} both{n % 2} 1\n".encode() * (9 - n) for n in range(8)}
    assert pairs(run_source(tmp_path, COUNT + COMBINE, texts, partitions=3)) == reference(texts)


def test_equal_keys_of_different_types_are_one_and_none_is_remembered(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield 1, "int"
            yield 1.0, "float"
            yield True, "bool"

        def reduce(key, values):
            return sorted(values)
    """
    assert lines(run_source(tmp_path, source, b"x\n", partitions=3)) == ['1\t["bool","float","int"]']


def test_map_only(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            name, offset = key
            if line:
                yield offset, line.upper()
    """
    outcome = run_source(tmp_path, source, "a\n\nbé\r\nc".encode())
    assert lines(outcome) == ["0\tA", "3\tBÉ", "8\tC"]


def test_keys_are_file_name_and_offset(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield key, line

        def reduce(key, values):
            return list(values)
    """
    outcome = run_source(tmp_path, source, {"é.txt": "é1\nb\n".encode(), "z.txt": b"c\n"}, partitions=1)
    top = tmp_path / "inputs"
    assert lines(outcome) == [f'["{top}/z.txt",0]\t["c"]', f'["{top}/é.txt",0]\t["é1"]', f'["{top}/é.txt",4]\t["b"]']


FORMS = {
    "yields": "def map(key, line):\n    for w in line.split(): yield w, 1\n",
    "a list": "def map(key, line):\n    return [(w, 1) for w in line.split()]\n",
    "lists": "def map(key, line):\n    return [[w, 1] for w in line.split()]\n",
    "a dict": "from collections import Counter\ndef map(key, line):\n    return Counter(line.split())\n",
    "zip": "def map(key, line):\n    words = line.split()\n    return zip(words, [1] * len(words))\n",
    "none": "def map(key, line):\n    if line: return ((w, 1) for w in line.split())\n",
    "lambda": "map = lambda key, line: [(w, 1) for w in line.split()]\n",
    "object": "class M:\n    def __call__(self, key, line): return [(w, 1) for w in line.split()]\nmap = M()\n",
}
REDUCES = {
    "returns": "def reduce(word, counts):\n    return sum(counts)\n",
    "yields": "def reduce(word, counts):\n    yield word, sum(counts)\n",
    "takes few": "def reduce(word, counts):\n    first = next(counts)\n    return first + sum(counts)\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_each_form_of_map_and_reduce(tmp_path: Path, form: str, reduce: str) -> None:
    texts = {"t.txt": b"a b a\n\nb c\na\n"}
    assert pairs(run_source(tmp_path, FORMS[form] + REDUCES[reduce], texts)) == reference(texts)


def test_reduce_may_leave_keys_out_and_yield_many(tmp_path: Path) -> None:
    some = COUNT.replace("return sum(counts)", "total = sum(counts); return total if total > 1 else None")
    assert pairs(run_source(tmp_path / "1", some, b"a b a\n")) == {"a": "2"}
    many = COUNT.replace("return sum(counts)", "yield from [(word, n) for n in counts]; yield word + '!', 0")
    assert lines(run_source(tmp_path / "2", many, b"a b a\n", partitions=1)) == [
        "a\t1", "a\t1", "a!\t0", "b\t1", "b!\t0",
    ]  # fmt: skip


def test_values_of_a_key_come_in_order_of_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 50)
    source = """
        def map(key, line):
            yield "all", int(line)

        def reduce(key, values):
            values = list(values)
            return values == sorted(values), len(values)
    """
    data = b"".join(b"%d\n" % n for n in range(20_000))
    assert lines(run_source(tmp_path, source, data, slots=4)) == ["all\t[true,20000]"]


def test_objects_as_values_and_own_partition(tmp_path: Path) -> None:
    source = """
        import collections, datetime
        Seen = collections.namedtuple("Seen", "first last")

        def map(key, line):
            yield datetime.date.fromisoformat(line), Seen({line}, (1, [2]))

        def combine(key, values):
            return max(values)

        def partition(key, n):
            return key.year % n

        def reduce(key, values):
            (seen,) = set(map_types(values))
            return seen

        def map_types(values):
            for v in values:
                yield type(v).__name__, type(v.first).__name__, type(v.last).__name__, type(v.last[1]).__name__
    """
    outcome = run_source(tmp_path, source, b"2020-01-02\n2021-05-06\n2020-01-02\n", partitions=2)
    shown = '["Seen","set","tuple","list"]'
    assert [part.decode() for part in outcome.parts] == [f'"2020-01-02"\t{shown}\n', f'"2021-05-06"\t{shown}\n']


def test_keys_with_tabs_and_line_ends_stay_on_their_line(tmp_path: Path) -> None:
    source = """
        def map(key, line):
            yield "a\\tb", 1
            yield "c\\nd", "e\\nf"
            yield "plain", "tab\\tin value"
            yield "quote\\"", None
            yield b"bytes", 1.5
            yield ("t", 1), {"d": 1}

        def partition(key, n):
            return ["a\\tb", "c\\nd", "plain", "quote\\"", b"bytes", ("t", 1)].index(key)

        def reduce(key, values):
            yield key, next(values)
    """
    outcome = run_source(tmp_path, source, b"x\n", partitions=6)
    assert [part.decode() for part in outcome.parts][:4] == [
        '"a\\tb"\t1\n',
        '"c\\nd"\t"e\\nf"\n',
        "plain\ttab\tin value\n",
        'quote"\tnull\n',
    ]


BAD = [
    ("def map(key, line): yield line", r"map must give \(key, value\) pairs.*at byte 0 of .*in\.txt, 'ab'.*'ab' is"),
    ("def map(key, line): yield line, 1, 2", r"map must give \(key, value\) pairs"),
    ("def map(key, line): yield 5", r"map must give \(key, value\) pairs"),
    ("def map(key, line): return 5", r"map must give \(key, value\) pairs.*'int' object is not iterable"),
    ("def map(key, line): return line", r"map must give \(key, value\) pairs"),
    ("def map(key, line):\n    return [('x', 1)] if line == 'ab' else ['lo']", r""),
    ("def map(key, line): yield [line], 1", r"a key that cannot be one \(unhashable type: 'list'\) for the record"),
    ("def map(key, line): yield {1}, 1", r"map gave a key that cannot be one"),
    ("def map(key, line): yield line, lambda: 1", r"A value cannot travel .* for the key 'cdef'"),
    ("def map(key, line): yield (1 if line == 'ab' else 'x'), 1", r"not compare with each other, such as 1 \(int\)"),
    ("def map(key, line): yield frozenset(line), 1", r"map gave the key frozenset.*keys are strings"),
    ("def map(key, line): yield 1, 1\ndef partition(key, n): return n", r"partition gave 2 for the key 1"),
    ("def map(key, line): yield 1, 1\nencoding = 'klingon'", r"no encoding 'klingon'"),
    ("def map(key, line): yield 1, 1\nencoding = 'utf-16'", r"cannot be cut at line ends"),
    ("def map(key, line): yield 1, 1\nreader = str('words')", r"reader is 'words'"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "sentence"), BAD)
def test_what_user_code_must_not_do_is_one_sentence(tmp_path: Path, source: str, sentence: str) -> None:
    source += "\ndef reduce(key, values): return 1\n"
    if not sentence:
        assert run_source(tmp_path, source, b"ab\ncdef\n")  # a two-letter string unpacks like a pair: a known limit
        return
    with pytest.raises(JobCodeError, match=sentence) as caught:
        run_source(tmp_path, source, b"ab\ncdef\n", partitions=2)
    assert "\n" not in str(caught.value)


def test_reduce_that_yields_no_pairs(tmp_path: Path) -> None:
    source = "def map(key, line): yield line, 1\ndef reduce(key, values): yield sum(values)\n"
    with pytest.raises(JobCodeError, match=r"reduce must give \(key, value\) pairs, but for the key 'ab'"):
        run_source(tmp_path, source, b"ab\n")


KEY_NOTE = "{} was given the key 'two'"


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("def map(key, line): return [(1 / (line != 'two'), 1)]", "map was given the record at byte 4 of .*, 'two'"),
        ("def map(key, line):\n    yield line, 1\n    yield 1 / (line != 'two'), 1", "record at byte 4 of .*, 'two'"),
        ("def map(key, line): yield line, 1\ndef combine(k, v): return 1 / (k != 'two')", KEY_NOTE.format("combine")),
        ("def map(key, line): yield line, 1\ndef reduce(k, v): return 1 / (k != 'two')", KEY_NOTE.format("reduce")),
        ("def map(key, line): yield line, 1\ndef reduce(k, v): yield k, 1 / (k != 'two')", KEY_NOTE.format("reduce")),
    ],
)  # fmt: skip
def test_what_user_code_raises_stays_and_tells_for_what(tmp_path: Path, source: str, note: str) -> None:
    if "def reduce" not in source:
        source += "\ndef reduce(key, values): return 1"
    with pytest.raises(ZeroDivisionError) as caught:
        run_source(tmp_path, source, b"one\ntwo\nthree\ntwo\n")
    assert len(caught.value.__notes__) == 1
    assert caught.match("division by zero")
    import re

    assert re.search(note, caught.value.__notes__[0])


def test_a_changed_input_is_lost_even_where_user_code_stumbles_over_it(tmp_path: Path) -> None:
    source = "def map(key, line): return [(int(line), 1)]\ndef reduce(key, values): return 1\n"
    (tmp_path / "job.py").write_text(source)
    (tmp_path / "in.txt").write_bytes(b"1\n2\n3\n")
    submission = plan_mapreduce(str(tmp_path / "job.py"), [str(tmp_path / "in.txt")], slots=2)
    (tmp_path / "in.txt").write_bytes(b"1\nx\n3\n")
    with forgotten(), pytest.raises(InputLost):
        run_direct(submission, tmp_path / "work")


def test_a_function_that_vanishes_when_it_runs(tmp_path: Path) -> None:
    source = "def map(key, line): yield line, 1\ndef reduce(k, v): return 1\ndel reduce\n"
    with pytest.raises(JobCodeError, match="no function reduce"):
        run_source(tmp_path, source, b"ab\n")
    with pytest.raises(JobRejected):
        run_source(tmp_path, "x = 1", b"ab\n")


def test_whether_a_function_looks_at_its_key() -> None:
    def never(key, value):
        yield value, 1

    def always(key, value):
        return [(key, value)]

    def nested(key, value):
        return [(k, value) for k in (1,) if (lambda: key)()]

    def reflects(key, value):
        return [tuple(locals().items())]

    def replaces(key, value):
        key = value
        return [(key, 1)]

    assert mapreduce.ignores_first(never)
    for function in (always, nested, reflects, replaces, lambda *both: both, defaultdict(list).get, len):
        assert not mapreduce.ignores_first(function)
