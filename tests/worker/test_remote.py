"""Map/reduce over URLs gives what it gives over files."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from bench.direct import Outcome, run_direct
from p2premap.client import splits
from p2premap.client.plan import Submission, plan_mapreduce
from p2premap.errors import JobRejected
from p2premap.tasks.mapreduce_plan import unpack_plan
from p2premap.worker import web
from p2premap.worker.places import Changed, UrlError
from tests.webserver import WebServer, serving
from tests.worker.jobs import forgotten, lines

OFFSETS = "def map(key, line): yield key[1], line"
TEXT = "".join(f"line {number} of many\n" for number in range(400)).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "AGAIN_S", 0.0)
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 64)
    with serving(**{"t.txt": TEXT}) as server:
        yield server


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Submission]:
    def plan(source: str, *inputs: str) -> Submission:
        (tmp_path / "job.py").write_text(dedent(source))
        return plan_mapreduce(str(tmp_path / "job.py"), inputs, slots=4)

    return plan


def run(submission: Submission, tmp_path: Path) -> Outcome:
    with forgotten():
        return run_direct(submission, tmp_path / "work")


def offsets(data: bytes) -> list[str]:
    found, at = [], 0
    for line in data.splitlines(keepends=True):
        found.append(f"{at}\t{line.decode().rstrip()}")
        at += len(line)
    return found


def test_a_file_on_the_web_is_cut_at_line_ends(
    server: WebServer, planned: Callable[..., Submission], tmp_path: Path
) -> None:
    submission = planned(OFFSETS, f"{server.url}/t.txt")
    assert (submission.bytes_in, submission.files) == (len(TEXT), ())
    assert submission.tasks > 8
    assert lines(run(submission, tmp_path)) == offsets(TEXT)


def test_files_here_and_there_are_read_in_their_order(
    server: WebServer, planned: Callable[..., Submission], tmp_path: Path
) -> None:
    (tmp_path / "here.txt").write_bytes(b"first\nsecond\n")
    server.files["/last"] = b"last\n"
    given = (str(tmp_path / "here.txt"), f"{server.url}/last?x=1", f"{server.url}/t.txt", f"{server.url}/last?x=1")
    submission = planned("def map(key, line): yield key[0], line", *given)
    assert submission.files == (str(tmp_path / "here.txt"),)
    found = [line.split("\t") for line in lines(run(submission, tmp_path))]
    assert found[:3] == [[given[0], "first"], [given[0], "second"], [given[1], "last"]]
    assert [line for _, line in found[3:]] == TEXT.decode().splitlines()


def test_many_small_files_are_fetched_a_few_ahead_and_read_in_order(
    server: WebServer, planned: Callable[..., Submission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 1 << 20)
    given = [f"{server.url}/{number}" for number in range(30)]
    server.files.update({f"/{number}": f"file {number}\n".encode() for number in range(30)})
    submission = planned("def map(key, line): yield line, 1", *given)
    assert submission.tasks == 1
    assert [line.split("\t")[0] for line in lines(run(submission, tmp_path))] == [f"file {n}" for n in range(30)]


def test_a_server_without_ranges_or_sizes_gives_whole_files(
    server: WebServer, planned: Callable[..., Submission], tmp_path: Path
) -> None:
    server.ranges = server.sized = False
    submission = planned(OFFSETS, f"{server.url}/t.txt")
    assert submission.tasks == 1
    assert lines(run(submission, tmp_path)) == offsets(TEXT)


def test_packed_files_and_rows(server: WebServer, planned: Callable[..., Submission], tmp_path: Path) -> None:
    server.files["/t.txt.gz"] = gzip.compress(TEXT)
    submission = planned(OFFSETS, f"{server.url}/t.txt.gz?signature=a.b")
    assert submission.tasks == 1
    assert lines(run(submission, tmp_path)) == offsets(TEXT)
    text = io.StringIO(newline="")
    rows = [(str(number), "two\nlines") for number in range(60)]
    csv.writer(text).writerows([("x", "y"), *rows])
    server.files["/t.csv"] = text.getvalue().encode()
    submission = planned("reader = 'csv'\ndef map(key, row): yield 0, row\n", f"{server.url}/t.csv")
    assert submission.tasks > 4
    found = [json.loads(line.split("\t", 1)[1]) for line in lines(run(submission, tmp_path))]
    assert found == [dict(zip("xy", row, strict=True)) for row in rows]


def test_a_file_that_changes_fails_the_job_with_one_sentence(
    server: WebServer, planned: Callable[..., Submission], tmp_path: Path
) -> None:
    submission = planned(OFFSETS, f"{server.url}/t.txt")
    server.files["/t.txt"] = TEXT.replace(b"many", b"lots")
    with pytest.raises(Changed, match=r"t.txt has changed since the job was submitted; submit it again\."):
        run(submission, tmp_path)
    del server.files["/t.txt"]
    with pytest.raises(UrlError, match="There is nothing at"):
        run(submission, tmp_path / "again")


def test_what_cannot_be_had_is_no_job(server: WebServer, planned: Callable[..., Submission]) -> None:
    with pytest.raises(JobRejected, match=r"There is nothing at .*/none: the server says 404"):
        planned(OFFSETS, f"{server.url}/none")
    server.files["/empty"] = b""
    with pytest.raises(JobRejected, match="The input is empty"):
        planned(OFFSETS, f"{server.url}/empty")


def test_nodes_must_have_what_the_urls_need(planned: Callable[..., Submission], tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "f").write_bytes(TEXT)
    assert planned(OFFSETS, f"local://{tmp_path}/f").spec.options.requires == ("package fsspec",)
    assert planned(OFFSETS, f"file://{tmp_path}/f").spec.options.requires == ()


def test_plans_without_urls_are_read_by_those_who_know_none(planned: Callable[..., Submission], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(TEXT)
    assert unpack_plan(planned(OFFSETS, str(tmp_path / "f")).blobs[1][1]).version == 2
    assert unpack_plan(planned(OFFSETS, f"file://{tmp_path}/f").blobs[1][1]).version == 3
