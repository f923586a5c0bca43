"""Writers: parts in each format, read again by what others use for it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from p2premap.worker import output, writers
from p2premap.worker.pairs import JobCodeError
from tests.worker.jobs import run_source

COUNT = (
    "def map(key, line):\n    for word in line.split(): yield word, 1\ndef reduce(word, counts): return sum(counts)\n"
)


def test_json_lines(tmp_path: Path) -> None:
    source = 'writer = "jsonl"\n' + COUNT
    outcome = run_source(tmp_path, source, b"a b a\n\xc3\xa9\tb\n", partitions=2)
    assert outcome.names == ["part-00000.jsonl", "part-00001.jsonl"]
    found = [json.loads(line) for part in outcome.parts for line in part.splitlines()]
    assert sorted(found, key=lambda row: row["key"]) == [
        {"key": "a", "value": 2}, {"key": "b", "value": 2}, {"key": "é", "value": 1},
    ]  # fmt: skip


def test_what_json_cannot_say_is_one_sentence(tmp_path: Path) -> None:
    source = 'writer = "jsonl"\ndef map(key, line): yield line, (1 if line == "a" else object())\n'
    with pytest.raises(JobCodeError, match=r"JSON has no way to say the result of the key 'b', <object"):
        run_source(tmp_path, source, b"a\nb\n")


def test_what_numpy_has_is_written_as_pythons_own(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    source = "import numpy\ndef map(key, line): yield numpy.int64(3), {'n': numpy.ones(2), 'x': numpy.float32(0.5)}\n"
    for writer, said in (
        ("text", b'3\t{"n":[1.0,1.0],"x":0.5}\n'),
        ("jsonl", b'{"key":3,"value":{"n":[1.0,1.0],"x":0.5}}\n'),
    ):
        outcome = run_source(tmp_path / writer, f"writer = {writer!r}\n{source}", b"a\n")
        assert outcome.parts == [said]


@pytest.mark.parametrize("rows", [10, 1_000])
def test_parquet(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(writers, "_ROW_GROUP_ROWS", 100)
    data = b"".join(b"%d\n" % n for n in range(rows))
    plain = 'writer = "parquet"\ndef map(key, line): yield int(line), line\n'
    (part,) = run_source(tmp_path / "1", plain, data, slots=1).parts[:1]
    table = parquet.read_table(io.BytesIO(part))
    assert table.column_names == ["key", "value"]
    fields = 'writer = "parquet"\ndef map(key, line): yield int(line), {"half": int(line) / 2, "text": line}\n'
    outcome = run_source(tmp_path / "2", fields, data, slots=1)
    found = [row for part in outcome.parts for row in parquet.read_table(io.BytesIO(part)).to_pylist()]
    assert found == [{"key": n, "half": n / 2, "text": str(n)} for n in range(rows)]
    assert all(name.endswith(".parquet") for name in outcome.names)


@pytest.mark.parametrize("value", ["{'n': 1, 'late': 2} if key[1] > 8 else {'n': 1}", "{'key': 1}"])
def test_no_field_is_left_out_of_a_table_in_silence(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(writers, "_ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(output, "_CHUNK_PAIRS", 2)
    source = f'writer = "parquet"\ndef map(key, line): yield line, {value}\n'
    with pytest.raises(JobCodeError, match=r"the field '(late|key)'"):
        run_source(tmp_path, source, b"a\n" * 9, slots=1)


@pytest.mark.parametrize("value", ["object()", "(1 if key[1] else 'x')"])
def test_what_does_not_fit_into_a_table_is_one_sentence(tmp_path: Path, value: str) -> None:
    pytest.importorskip("pyarrow")
    source = f'writer = "parquet"\ndef map(key, line): yield line, {value}\n'
    with pytest.raises(JobCodeError, match="do not fit into columns of a Parquet file") as caught:
        run_source(tmp_path, source, b"a\nb\n", slots=1)
    assert "\n" not in str(caught.value)


def test_an_empty_parquet_part_is_a_table_all_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    outcome = run_source(tmp_path, 'writer = "parquet"\n' + COUNT, b"a\n", partitions=2)
    assert sorted(parquet.read_table(io.BytesIO(part)).num_rows for part in outcome.parts) == [0, 1]


def test_an_own_writer_is_given_all_pairs_of_a_part_and_a_file(tmp_path: Path) -> None:
    source = (
        COUNT
        + """
suffix = ".html"

def writer(pairs, stream):
    stream.write(b"<table>")
    for word, count in pairs:
        assert type(count) is int
        stream.write(f"<tr><td>{word}<td>{count}".encode())
    end = stream.tell()
    stream.write(b"</table>")
    stream.seek(0)
    stream.write(b"<TABLE>")
    assert end
"""
    )
    outcome = run_source(tmp_path, source, b"b a b\n", partitions=1)
    assert outcome.parts == [b"<TABLE><tr><td>a<td>1<tr><td>b<td>2</table>"]
    assert outcome.names == ["part-00000.html"]


def test_what_an_own_writer_raises_stays(tmp_path: Path) -> None:
    source = COUNT + "def writer(pairs, stream): raise KeyError('x')\n"
    with pytest.raises(KeyError):
        run_source(tmp_path, source, b"a\n")
