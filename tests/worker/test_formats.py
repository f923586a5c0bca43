"""Readers: what each makes of its files, however they are cut and packed, and what it says of files that are wrong."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from p2premap.client import cutting, splits
from p2premap.worker.formats import records_of
from p2premap.worker.jobfile import JobFile
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.runtime import InputLost, Segment
from tests.worker.jobs import lines, run_source, settings, whole

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def read(path: Path, **fields: object) -> list[tuple[object, object]]:
    """All records of a file."""
    return records(path, settings(**fields))


def records(path: Path, job: JobFile) -> list[tuple[object, object]]:
    found: list[tuple[object, object]] = []
    for group in records_of(whole(path), path.name, b"", job):
        found += zip(group.keys(), group.values, strict=False)
    return found


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- packed files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("reader", ["lines", "blocks", "file"])
def test_packed_files_are_read_as_what_they_hold(
    tmp_path: Path, packing: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2premap.worker import readers

    monkeypatch.setattr(readers, "LINES_PIECE_BYTES", 100)
    monkeypatch.setattr(readers, "BLOCK_PIECE_BYTES", 100)
    text = "".join(f"line {n} é\r\n" for n in range(100)) + "long" * 100 + "\nno end"
    plain, packed = written(tmp_path / "t", text), written(tmp_path / f"t.{packing}", PACKINGS[packing](text.encode()))
    expected = read(plain, reader=reader)
    found = read(packed, reader=reader)
    if reader == "blocks":
        assert "".join(value for _, value in found) == "".join(value for _, value in expected) == text  # type: ignore[misc]
    else:
        assert [(key[1], value) for key, value in found] == [(key[1], value) for key, value in expected]  # type: ignore[index]


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files_are_one_split_each(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 100)
    text = b"".join(b"%d\n" % n for n in range(5_000))
    source = (
        "def map(key, line): yield int(line), key[0].rpartition('.')[2]\ndef reduce(key, names): return list(names)\n"
    )
    files = {"a.txt": text, f"b.{packing}": PACKINGS[packing](text)}
    assert lines(run_source(tmp_path, source, files, partitions=1)) == [
        f'{n}\t["txt","{packing}"]' for n in range(5_000)
    ]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("reader", ["lines", "file"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_packed_files_are_one_sentence(tmp_path: Path, packing: str, reader: str, damage: str) -> None:
    data = PACKINGS[packing](bytes(range(256)) * 4_000)
    path = written(tmp_path / f"t.{packing}", data[: len(data) // 2] if damage == "cut" else b"no such thing")
    with pytest.raises(JobCodeError, match=rf"t\.{packing} cannot be unpacked as ") as caught:
        read(path, reader=reader, encoding=None)
    assert "\n" not in str(caught.value)


def test_nothing_is_parsed_before_the_digest_is_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,b\n1,2\n")
    opened: list[object] = []
    segment = whole(path, verified=False, digest=blake3(b"else").digest())
    job = settings(reader=lambda stream: opened.append(stream) or [])
    with pytest.raises(InputLost, match=r"t\.csv has changed"):
        list(records_of(segment, "t.csv", b"", job))
    with pytest.raises(InputLost, match=r"t\.csv ends before byte"):
        list(records_of(segment._replace(end=100), "t.csv", b"", job))
    path.unlink()
    with pytest.raises(InputLost, match=r"t\.csv cannot be read"):
        list(records_of(segment, "t.csv", b"", job))
    assert not opened


# --- CSV ----------------------------------------------------------------------------------------------------------

CSV = 'name,note\nada,"one, two"\nbob,"says ""hi""\nand goes"\n\ncarl,\n'


def test_csv_rows_are_dicts_or_lists(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "\ufeff" + CSV)
    notes = ["one, two", 'says "hi"\nand goes', ""]
    assert [value for _, value in read(path, reader="csv")] == [
        {"name": name, "note": note} for name, note in zip(["ada", "bob", "carl"], notes, strict=True)
    ]
    assert [value for _, value in read(path, reader="csv", header=False)][:2] == [["name", "note"], ["ada", "one, two"]]
    path = written(tmp_path / "s.csv", "a;b\n1;2\n")
    assert read(path, reader="csv", delimiter=";") == [(("s.csv", 4), {"a": "1", "b": "2"})]


fields = st.text(st.sampled_from('ab,"\n\ré '), max_size=6)


@examples(max_examples=40)
@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=30), st.integers(1, 60), st.booleans())
def test_csv_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], smallest: int, header: bool
) -> None:
    """Cuts never fall into a quoted field, and each split knows the names of the fields."""
    directory = tmp_path_factory.mktemp("csv")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([("x", "y"), *rows])
    source = f"header = {header}\nreader = 'csv'\ndef map(key, row): yield key[1], row\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "TASK_BYTES_MIN", smallest)
        patch.setattr(cutting, "_SEEK_BYTES", 7)
        outcome = run_source(directory, source, {"t.csv": text.getvalue().encode()}, slots=4)
    found = [json.loads(line.split("\t", 1)[1]) for line in lines(outcome)]
    expected = [dict(zip("xy", row, strict=True)) for row in rows] if header else [["x", "y"], *map(list, rows)]
    assert found == expected
    if len(text.getvalue()) > 400:
        assert len(outcome.parts) > 1


def test_a_copy_of_some_rows_is_read_as_these_rows_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "copy.csv", "1,2\n3,4\n")
    copy = Segment(str(path), 0, 8, b"", True, "t.csv", 4)
    (group,) = records_of(copy, "t.csv", b"a,b\n", settings(reader="csv"))
    assert list(group.keys()) == [("t.csv", 4), ("t.csv", 8)]
    assert group.values == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_csv_that_is_wrong_is_one_sentence_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(JobCodeError, match=r"t\.csv: the row at byte 8 has 3 fields, and the first row names 2"):
        read(written(tmp_path / "t.csv", "a,b\n1,2\n1,2,3\n"), reader="csv")
    with pytest.raises(JobCodeError, match=r"The reader csv failed at record 1 .*after \('t.csv', 4\) of t\.csv: "):
        read(written(tmp_path / "t.csv", 'a,b\n1,2\n1,"2\n'), reader="csv")
    with pytest.raises(JobCodeError, match=r"t\.csv is not utf-8 text: byte 6 is 0xff"):
        read(written(tmp_path / "t.csv", b"a,b\n1,\xff\n"), reader="csv")


# --- JSON lines, documents ----------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", '{"a": 1}\n\n[2, "é"]\r\n"x"\n')
    assert read(path, reader="jsonl") == [
        (("t.jsonl", 0), {"a": 1}),
        (("t.jsonl", 10), [2, "é"]),
        (("t.jsonl", 21), "x"),
    ]
    with pytest.raises(JobCodeError, match=r"t\.jsonl: the line at byte 3, '\{\"a\": 1', is not JSON: "):
        read(written(tmp_path / "t.jsonl", '{}\n{"a": 1\n{}\n'), reader="jsonl")


def test_xml(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.xml",
        "<pages><page id='1'><t>one</t></page><other/><page id='2'><page id='3'/></page></pages>",
    )
    found = read(path, reader="xml")
    assert [(key, value.tag) for key, value in found] == [  # type: ignore[attr-defined]
        (("t.xml", 0), "page"), (("t.xml", 1), "other"), (("t.xml", 2), "page"),
    ]  # fmt: skip
    assert found[0][1].find("t").text == "one"  # type: ignore[attr-defined]
    assert [value.get("id") for _, value in read(path, reader="xml", element="page")] == ["1", "3", "2"]  # type: ignore[attr-defined]
    path = written(tmp_path / "n.xml", "<r xmlns='http://x'><a><b>1</b></a><a><b>2</b></a></r>")
    assert [value.text for _, value in read(path, reader="xml", element="b")] == ["1", "2"]  # type: ignore[attr-defined]
    with pytest.raises(
        JobCodeError, match=r"The reader xml failed at record 1 .* of t\.xml: ParseError: mismatched tag"
    ):
        read(written(tmp_path / "t.xml", "<r><a/><b></r>"), reader="xml")


def test_large_xml_is_not_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "t.xml", "<r>" + "<skip><x/></skip><a/>" * 2_000 + "</r>")
    parents: list[int] = []
    for group in records_of(whole(path), "t.xml", b"", settings(reader="xml", element="a")):
        parents.append(len(group.values))
    assert sum(parents) == 2_000


def test_html(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>A &amp; B</title><style>p {}</style></head>
    <body><h1>Head</h1><p>One <b>two</b>
    three.<script>var x = "<p>";</script><p>Four<br>five <a href="/x">six</a></body>"""
    ((key, value),) = read(written(tmp_path / "t.html", page), reader="html")
    assert key == ("t.html", 0)
    assert value == {"title": "A & B", "text": "Head\nOne two three.\nFour\nfive six", "links": ["/x"]}


# --- own readers --------------------------------------------------------------------------------------------------


def test_an_own_reader_is_given_a_stream_that_can_seek(tmp_path: Path) -> None:
    source = """
        import zipfile

        def reader(stream):
            assert stream.name.endswith(".zip")
            with zipfile.ZipFile(stream) as archive:
                for name in archive.namelist():
                    yield name, archive.read(name).decode()

        def map(key, member):
            name, text = member
            yield name, f"{key[1]} {text}"
    """
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", "one")
        archive.writestr("b", "two")
    assert lines(run_source(tmp_path, source, {"t.zip": packed.getvalue()})) == ["a\t0 one", "b\t1 two"]


def test_a_reader_that_raises_in_the_middle_is_one_sentence_with_file_and_record(tmp_path: Path) -> None:
    source = """
        def reader(stream):
            for number in range(100):
                if number == 42:
                    raise ValueError("bad header.")
                yield number

        def map(key, value):
            yield value, 1
    """
    with pytest.raises(
        JobCodeError, match=r"^reader failed at record 42 .* of .*in\.txt: ValueError: bad header\.$"
    ) as e:
        run_source(tmp_path, source, b"x\n")
    assert isinstance(e.value.__cause__, ValueError)
    with pytest.raises(JobCodeError, match=r"reader failed at record 0 .*NoneType"):
        run_source(tmp_path / "2", "def reader(stream): return None\ndef map(key, value): pass\n", b"x\n")


# --- tables -------------------------------------------------------------------------------------------------------


def test_parquet_and_arrow(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"n": list(range(10_000)), "t": [f"é{n}" for n in range(10_000)]})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=3_000)
    with pyarrow.ipc.new_file(tmp_path / "t.arrow", table.schema) as sink:
        sink.write_table(table)
    with pyarrow.ipc.new_stream(tmp_path / "t.arrows", table.schema) as sink:
        sink.write_table(table)
    for name, reader in (("t.parquet", "parquet"), ("t.arrow", "arrow"), ("t.arrows", "arrow")):
        found = read(tmp_path / name, reader=reader)
        assert len(found) == 10_000
        assert found[4_321] == ((name, 4_321), {"n": 4_321, "t": "é4321"})
    with pytest.raises(JobCodeError, match=r"The reader parquet failed at record 0 .* of t\.txt: ArrowInvalid"):
        read(written(tmp_path / "t.txt", "no table\n"), reader="parquet")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(JobCodeError, match=r"needs the package pyarrow on every node: pip install 'p2premap\[arrow\]'"):
        read(written(tmp_path / "t", b"x"), reader="parquet")
    with pytest.raises(JobCodeError, match=r"need the package zstandard on every node: pip install 'p2premap\[zstd\]'"):
        read(written(tmp_path / "t.zst", b"x"))


# --- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("part", b"no tab\n", r"part: line 1, 'no tab', has no tab, as parts of a job have"),
        ("part.jsonl", b'{"key": 1}\n', r'part\.jsonl: line 1 has no "key" and "value"'),
        ("part.jsonl", b"{\n", r"The reader parts failed at record 0 .* of part\.jsonl: DecodeError"),
        ("part.pairs", b"0123456789" * 10, r"part\.pairs holds no pairs of an earlier job"),
        ("part.pairs", b"\0\0\1\0\0\0\1\0\0\0", r"part\.pairs holds no pairs of an earlier job"),
        ("part.pairs.gz", b"x", r"part\.pairs\.gz is packed already when it is written"),
    ],
)
def test_what_is_no_part_is_said(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    with pytest.raises(JobCodeError, match=sentence):
        read(written(tmp_path / name, data), reader="parts")
