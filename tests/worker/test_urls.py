"""Files at URLs: on the web, on disks, and in what fsspec knows."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap.worker import urls, web
from p2premap.worker.places import Changed, Found, Missing, Unlisted, UrlError
from tests.webserver import WebServer, serving

DATA = bytes(range(256)) * 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "AGAIN_S", 0.0)
    monkeypatch.setattr(web, "PIECE_BYTES", 1000)
    with serving(a=DATA) as server:
        yield server


def content(found: Found, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(urls.read(found, start, end))


# --- the web ------------------------------------------------------------------------------------------------------


def test_a_file_on_the_web_is_looked_at_and_read_in_ranges(server: WebServer) -> None:
    (found,) = urls.find(f"{server.url}/a")
    assert (found.size, found.ranges, found.identity != "") == (len(DATA), True, True)
    assert content(found, 100, 3100) == DATA[100:3100]
    assert server.asked == [("GET", "/a", "bytes=0-0"), ("GET", "/a", "bytes=100-3099")]
    assert content(found) == DATA


def test_a_server_without_ranges_or_sizes_is_read_from_the_beginning(server: WebServer) -> None:
    server.ranges = False
    (found,) = urls.find(f"{server.url}/a")
    assert (found.size, found.ranges) == (len(DATA), False)
    assert content(found, 100, 3100) == DATA[100:3100]
    server.sized = False
    (found,) = urls.find(f"{server.url}/a")
    assert found.size is None
    assert content(found) == DATA


def test_an_empty_file_is_none_to_be_refused(server: WebServer) -> None:
    server.files["/empty"] = b""
    (found,) = urls.find(f"{server.url}/empty")
    assert (found.size, content(found)) == (0, b"")


def test_a_server_that_fails_for_a_moment_is_asked_again_from_the_last_byte_on(server: WebServer) -> None:
    (found,) = urls.find(f"{server.url}/a")
    server.asked.clear()
    server.faults = [503, -2000, 500]
    assert content(found, 0, 4000) == DATA[:4000]
    assert [asked for _, _, asked in server.asked] == ["bytes=0-3999"] * 2 + ["bytes=2000-3999"] * 2
    server.faults = [503] * 10
    with pytest.raises(UrlError, match="cannot be read: the server says 503"):
        content(found)


def test_a_file_that_changes_is_never_mixed(server: WebServer) -> None:
    (found,) = urls.find(f"{server.url}/a")
    pieces = urls.read(found)
    assert next(pieces) == DATA[:1000]
    server.files["/a"] = bytes(len(DATA))
    with pytest.raises(Changed, match="has changed since the job was submitted"):
        content(found)
    server.ranges = False
    with pytest.raises(Changed):
        content(found, 10, 20)


@pytest.mark.parametrize(
    ("path", "kind", "sentence"),
    [("/none", Missing, "There is nothing at .*404"), ("/a b", UrlError, "cannot be read: .*control characters")],
)
def test_what_is_not_there_is_one_sentence(server: WebServer, path: str, kind: type[UrlError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        urls.find(server.url + path)


def test_files_are_put_onto_the_web_and_removed_and_what_the_url_asks_stays(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"part")
    target = urls.below(f"{server.url}/out?token=1", "a b/part-00000")
    assert target == f"{server.url}/out/a%20b/part-00000?token=1"
    urls.send(tmp_path / "f", target)
    assert server.files["/out/a%20b/part-00000"] == b"part"
    urls.remove(target)
    urls.remove(target)
    assert "/out/a%20b/part-00000" not in server.files
    with pytest.raises(Unlisted):
        urls.parts_in(server.url)


def test_nobody_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "AGAIN_S", 0.0)
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UrlError, match="cannot be read: Connection refused"):
            urls.find(f"http://127.0.0.1:{taken.getsockname()[1]}/a")


# --- disks, by the standard library and by fsspec -----------------------------------------------------------------


@pytest.fixture(params=["file", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory that both see: file:// by ourselves, local:// by fsspec, which writes and moves."""
    if request.param == "local":
        pytest.importorskip("fsspec")
    return f"{request.param}://{tmp_path}"


def test_directories_and_patterns_name_files(place: str, tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.md", ".hidden/d.txt", "sub/.e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [found.url[len(place) + 1 :] for found in urls.find(place)] == ["a.txt", "b.txt", "sub/c.md"]
    assert [found.url[len(place) + 1 :] for found in urls.find(f"{place}/*.txt")] == ["a.txt", "b.txt"]
    for nothing in ("*.none", "none"):
        with pytest.raises(Missing):
            urls.find(f"{place}/{nothing}")


def test_ranges_are_read_and_changes_seen(place: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    (found,) = urls.find(f"{place}/f")
    assert (found.size, content(found, 7, 300), content(found)) == (len(DATA), DATA[7:300], DATA)
    os.utime(tmp_path / "f", (1, 1))
    with pytest.raises(Changed):
        content(found, 0, 10)


def test_a_file_is_written_whole_in_place_of_another(place: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(DATA)
    urls.send(tmp_path / "new", urls.below(place, "out/sub/part-00001"))
    urls.send(tmp_path / "new", urls.below(place, "out/part-00000"))
    (tmp_path / "new").write_bytes(b"other")
    urls.send(tmp_path / "new", urls.below(place, "out/part-00000"))
    assert (tmp_path / "out/part-00000").read_bytes() == b"other"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["part-00000", "sub"], "nothing is left behind"
    assert urls.parts_in(f"{place}/out") == ["part-00000", "sub/part-00001"]
    urls.remove_others(f"{place}/out", {"part-00000"})
    assert urls.parts_in(f"{place}/out") == ["part-00000"]
    assert urls.parts_in(f"{place}/none") == []


def test_a_file_that_cannot_be_written_leaves_nothing(place: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(DATA)
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(UrlError, match="cannot be written"):
        urls.send(tmp_path / "new", f"{place}/taken/part-00000")


# --- what is missing ----------------------------------------------------------------------------------------------


def test_paths_of_file_urls_begin_at_the_root_and_may_be_patterns(tmp_path: Path) -> None:
    for name in ("a1", "b1", "what?#"):
        (tmp_path / name).write_text(name)
    assert [Path(found.url).name for found in urls.find(f"file://{tmp_path}/?1")] == ["a1", "b1"]
    for url in (f"file://{tmp_path}/what%3F%23", f"file://localhost{tmp_path}/what?#"):
        assert content(urls.find(url)[0]) == b"what?#"
    for url in ("file://out", "file://out/part", f"file://ada{tmp_path}/a1"):
        with pytest.raises(UrlError, match="write file:///"):
            urls.find(url)
        with pytest.raises(UrlError, match="write file:///"):
            urls.send(tmp_path / "a1", urls.below(url, "part"))


def test_a_missing_package_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_places", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UrlError, match=r"need the package s3fs on every node: pip install 'p2premap\[s3\]'"):
        urls.find("s3://bucket/a")
    with pytest.raises(UrlError, match="need the package gcsfs on every node: pip install fsspec gcsfs"):
        urls.find("gs://bucket/a")
    assert [urls.needs(url) for url in ("s3://a", "http://a", "file:///a", "sftp://a")] == ["s3fs", "", "", "fsspec"]


def test_an_unknown_scheme_is_one_sentence() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(UrlError, match="nonesuch://x cannot be read: Protocol not known: nonesuch"):
        urls.find("nonesuch://x")
