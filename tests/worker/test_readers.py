"""Splits as records: every byte once, with its place, whatever the text looks like."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker import readers
from p2premap.worker.jobfile import JobFile
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.readers import read_pieces, read_records
from p2premap.worker.runtime import InputLost, Segment
from tests.worker.jobs import settings, whole


def records(segment: Segment, job: JobFile) -> list[tuple[tuple[str, int], object]]:
    found: list[tuple[tuple[str, int], object]] = []
    for group in read_records(segment, "name", job):
        keys = list(islice(group.keys(), len(group.values)))
        found += zip(keys, group.values, strict=True)
    return found


def expected(data: bytes, encoding: str = "utf-8", errors: str = "strict") -> list[tuple[tuple[str, int], str]]:
    """Line by line, the slow way."""
    found, offset = [], 0
    for line in data.split(b"\n"):
        start = offset
        offset += len(line) + 1
        if start == len(data):
            break
        if start == 0 and encoding == "utf-8" and line.startswith(b"\xef\xbb\xbf"):
            line, start = line[3:], 3
            if start == len(data):
                break
        found.append((("name", start), line.removesuffix(b"\r").decode(encoding, errors)))
    return found


texts = st.text(st.sampled_from("ab é€\U0001f433\r\n\n\n\u2028\x0b\x85"), max_size=200)


@given(texts, st.integers(1, 64))
def test_lines(tmp_path_factory: pytest.TempPathFactory, text: str, piece_bytes: int) -> None:
    path = tmp_path_factory.mktemp("lines") / "t"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "LINES_PIECE_BYTES", piece_bytes)
        assert records(whole(path), settings()) == expected(text.encode())


def test_a_copy_of_a_range_has_the_keys_of_the_file(tmp_path: Path) -> None:
    """A node that has fetched a split has a file that begins where the split did."""
    (tmp_path / "t").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "copy").write_bytes(b"two\nthree\n")
    there = Segment(str(tmp_path / "t"), 4, 14, b"", True, "t")
    copy = Segment(str(tmp_path / "copy"), 0, 10, b"", True, "t", 4)
    assert records(copy, settings()) == records(there, settings()) == [(("name", 4), "two"), (("name", 8), "three")]


@given(st.binary(max_size=100), st.integers(1, 30), st.sampled_from(["latin-1", "cp1252", "utf-8", "shift_jis"]))
def test_lines_of_any_bytes_and_encoding(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, piece_bytes: int, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "t"
    path.write_bytes(data)
    job = settings(encoding=encoding, errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "LINES_PIECE_BYTES", piece_bytes)
        assert records(whole(path), job) == expected(data, encoding, "replace")


@given(texts, st.integers(1, 64))
def test_blocks_are_complete_lines(tmp_path_factory: pytest.TempPathFactory, text: str, piece_bytes: int) -> None:
    path = tmp_path_factory.mktemp("blocks") / "t"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_PIECE_BYTES", piece_bytes)
        found = records(whole(path), settings(reader="blocks"))
    assert "".join(block for _, block in found) == text  # type: ignore[misc]
    offset = 0
    for number, ((name, start), block) in enumerate(found):
        assert isinstance(block, str)
        assert (name, start) == ("name", offset)
        assert block.endswith("\n") or number == len(found) - 1
        offset += len(block.encode())


def test_bytes(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\xff\r\n\0b")
    assert records(whole(tmp_path / "t"), settings(encoding=None)) == [(("name", 0), b"a\xff"), (("name", 4), b"\0b")]
    assert records(whole(tmp_path / "t"), settings(encoding=None, reader="blocks")) == [(("name", 0), b"a\xff\r\n\0b")]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbffirst\nsecond\n")
    assert records(whole(tmp_path / "t"), settings()) == [(("name", 3), "first"), (("name", 9), "second")]
    assert records(whole(tmp_path / "t"), settings(reader="blocks")) == [(("name", 3), "first\nsecond\n")]


def test_a_line_longer_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LINES_PIECE_BYTES", 16)
    text = "a\n" + "long" * 10_000 + "\nb\n" + "é" * 999
    (tmp_path / "t").write_text(text)
    assert [line for _, line in records(whole(tmp_path / "t"), settings())] == text.split("\n")


def test_a_middle_range_only(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"one\ntwo\nthree\n")
    segment = whole(tmp_path / "t")._replace(start=4, end=8)
    assert records(segment, settings()) == [(("name", 4), "two")]


def test_undecodable_bytes_are_named_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LINES_PIECE_BYTES", 8)
    (tmp_path / "t").write_bytes("é\nok\nfour\n".encode() + b"caf\xe9\n")
    for job in (settings(), settings(reader="blocks"), settings(encoding="ascii")):
        with pytest.raises(JobCodeError, match=r"name is not .* text: byte \d+ is 0x") as caught:
            records(whole(tmp_path / "t"), job)
        assert 'errors = "replace"' in str(caught.value)
    with pytest.raises(JobCodeError, match="byte 14 is 0xe9"):
        records(whole(tmp_path / "t"), settings())


@pytest.mark.parametrize("piece_bytes", [4, 1_000])
def test_a_changed_file_is_noticed_at_the_end(tmp_path: Path, piece_bytes: int) -> None:
    data = b"one\ntwo\nthree\n"
    (tmp_path / "t").write_bytes(data)
    segment = whole(tmp_path / "t", verified=False, digest=blake3(data).digest())
    assert b"".join(bytes(piece) for _, piece in read_pieces(segment, "name", piece_bytes)) == data
    (tmp_path / "t").write_bytes(data.replace(b"two", b"TWO"))
    with pytest.raises(InputLost, match="name has changed") as caught:
        list(read_pieces(segment, "name", piece_bytes))
    assert caught.value.digest == segment.digest
    (tmp_path / "t").write_bytes(data[:-1])
    with pytest.raises(InputLost, match="name ends before byte 14"):
        list(read_pieces(segment, "name", piece_bytes))
    (tmp_path / "t").unlink()
    with pytest.raises(InputLost, match="name cannot be read"):
        list(read_pieces(segment, "name", piece_bytes))
