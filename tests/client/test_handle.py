"""`Cluster.map_reduce`, `Cluster.job` and what they give, on three nodes."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

import p2premap
import p2premap.aio
from p2premap.client.cluster import Cluster
from p2premap.client.private import PrivateCluster
from p2premap.errors import ConfigError, JobCancelled, JobError, JobFailed, JobLost, JobRejected
from tests.cluster import environment

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = "the cat and the dog\nand the bird\n"
COUNTED = Counter(TEXT.split())
SLOW = "import time\n\ndef map(key, line):\n    time.sleep(60)\n"


@pytest.fixture(scope="module")
def cluster(three_nodes: PrivateCluster) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PREMAP_HOME", three_nodes.home)
        with p2premap.connect(name="handles") as connected:
            yield connected


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    return path


def words(key: Any, line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


def total(word: str, counts: Iterator[int]) -> int:
    return sum(counts)


def test_a_job_file_gives_pairs_of_their_types(cluster: Cluster, text: Path) -> None:
    job = cluster.map_reduce(EXAMPLES / "wordcount.py", text)
    assert dict(job) == COUNTED
    assert sorted(job.result()) == sorted(COUNTED.items()), "again, and all at once"
    assert (job.state, job.progress, job.done()) == ("done", 1.0, True)
    status = job.status()
    assert (status.id, status.name, status.kind) == (job.id, "wordcount", "mapreduce")
    assert job.exception() is None
    assert f"{job!r}" == f"<Job {job.id[:8]} wordcount: done, {status.parts} part{'s' * (status.parts > 1)}, 5 records>"
    assert "<b>wordcount</b>" in job._repr_html_()
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    assert p2premap.progress(job, console=console) is job
    assert "wordcount, done" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not job.cancel(), "it is over"


def test_functions_of_this_program_go_by_value(cluster: Cluster, text: Path) -> None:
    least = 2
    seen = cluster.map_reduce(
        inputs=[text],
        map=words,
        combine=total,
        reduce=lambda word, counts: ((n := sum(counts)) >= least and {"n": n, "of": {word}}) or None,
        name="counts",
        partitions=1,
    )
    assert dict(seen) == {word: {"n": n, "of": {word}} for word, n in COUNTED.items() if n >= least}
    assert seen.status().name == "counts"


def test_a_datasource_needs_no_files(cluster: Cluster) -> None:
    squares = cluster.map_reduce(map=lambda key, value: [(key, value * value)], datasource=[3, 4])
    assert sorted(squares) == [(0, 9), (1, 16)]


def test_several_outputs(cluster: Cluster, text: Path) -> None:
    def both(key: Any, line: str) -> Iterator[tuple[str, Any, int]]:
        for word in line.split():
            yield "words", word, 1
            yield "lengths", len(word), 1

    job = cluster.map_reduce(
        inputs=text, map=both, reduce=lambda set, key, counts: sum(counts), sets=["words", "lengths"], partitions=1
    )
    assert dict(job.results("words")) == COUNTED
    assert dict(job.results("lengths")) == {3: 7, 4: 1}
    assert {part.set for part in job.parts()} == {"words", "lengths"}
    with pytest.raises(JobError, match="no output 'letters': there is words, lengths"):
        job.results("letters")


def test_another_program_has_the_same_job_by_its_id(
    cluster: Cluster, three_nodes: PrivateCluster, text: Path, tmp_path: Path
) -> None:
    script = tmp_path / "hands_in.py"
    script.write_text(
        "import os, sys, p2premap\n"
        "cluster = p2premap.connect()\n"
        f"job = cluster.map_reduce({str(EXAMPLES / 'wordcount.py')!r}, {str(text)!r})\n"
        "print(job.id, flush=True)\n"
        "os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=environment(three_nodes.home), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 9, done.stderr
    job = cluster.job(done.stdout.strip()[:12])
    assert job.id == done.stdout.strip()
    assert dict(job.result(60)) == COUNTED
    assert job == cluster.job(job.id)


def test_a_job_in_a_call_is_the_same(cluster: Cluster, text: Path) -> None:
    job = cluster.map_reduce(EXAMPLES / "wordcount.py", text)
    assert cluster.submit(_read, job).result(60) == COUNTED


def _read(job: p2premap.Job) -> dict[str, int]:
    return dict(job)


def test_an_output_directory(cluster: Cluster, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cluster.map_reduce(EXAMPLES / "wordcount.py", text, output=out, partitions=1)
    assert job.wait(60)
    counted = {word: int(count) for word, count in (line.split("\t") for line in _lines(out))}
    assert counted == COUNTED
    assert dict(job) == {word: str(count) for word, count in COUNTED.items()}, "as text has it"
    with pytest.raises(ConfigError, match=r"earlier job .*; name another, or say overwrite=True"):
        cluster.map_reduce(EXAMPLES / "wordcount.py", text, output=out)
    job.save(out, overwrite=True)
    assert len(_lines(out)) == len(COUNTED)
    assert [file.name for file in out.iterdir()] == ["part-00000"]
    with pytest.raises(ConfigError, match=r"leave .* out of the inputs"):
        cluster.map_reduce(EXAMPLES / "wordcount.py", out, output=out, overwrite=True)


def _lines(out: Path) -> list[str]:
    return [line for part in sorted(out.glob("part-*")) for line in part.read_text().splitlines()]


def test_what_is_shut_down_has_written_its_output(
    three_nodes: PrivateCluster, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    told: list[str] = []
    with p2premap.connect(told=told.append) as cluster:
        cluster.map_reduce(EXAMPLES / "wordcount.py", text, output=tmp_path / "out")
        cluster.map_reduce(map=lambda key, line: 1 / 0, inputs=text, output=tmp_path / "bad")
    assert len(_lines(tmp_path / "out")) == len(COUNTED)
    assert len(told) == 1
    assert "ZeroDivisionError" in told[0]


def test_a_job_that_goes_on_is_watched_and_ended(cluster: Cluster, text: Path, slow: Path) -> None:
    job = cluster.map_reduce(slow, text)
    assert not job.wait(0)
    assert not job.wait(0.05)
    with pytest.raises(TimeoutError, match=r"is not over after 0.01 s; it goes on"):
        job.result(timeout=0.01)
    assert not job.done()
    first = next(job.watch())
    assert first.phase in ("waiting", "running")
    assert "tasks" in repr(job) or "waiting" in repr(job)
    assert job.cancel()
    assert job.state == "cancelled"
    assert isinstance(job.exception(), JobCancelled)
    with pytest.raises(JobCancelled, match="by a program"):
        list(job)


def test_what_fails_says_why(cluster: Cluster, text: Path) -> None:
    job = cluster.map_reduce(inputs=text, map=lambda key, line: [(line, 1 // 0)])
    with pytest.raises(JobFailed, match="ZeroDivisionError") as caught:
        job.result(60)
    assert "Traceback" in caught.value.detail
    assert repr(job).startswith(f"<Job {job.id[:8]} lambda: failed: Task 0 of stage map")
    assert "Traceback" in job._repr_html_()
    assert "1 // 0" in str(caught.value.__cause__), "a console shows it"


def test_the_job_of_calls_has_a_handle_too(cluster: Cluster) -> None:
    assert cluster.submit(len, "abc").result(60) == 3
    job = cluster.job(cluster.job_id)
    assert job.status().kind == "calls"
    assert not job.done()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, TypeError, "needs the path of a job file, or functions"),
        ({"mapp": print}, TypeError, "unexpected keyword argument 'mapp'"),
        ({"file": EXAMPLES / "wordcount.py", "map": print}, TypeError, "which says itself what map is: leave one"),
        ({"file": words}, TypeError, "takes functions by name: map="),
        ({"map": words, "inputs": []}, JobRejected, "No input: give paths, patterns and URLs as inputs="),
        ({"file": "nowhere.py"}, JobRejected, "Cannot read the job file nowhere.py"),
        ({"file": EXAMPLES / "text_statistics.py"}, JobRejected, "of kind action, and no map/reduce job"),
        ({"map": lambda line: []}, JobRejected, r"map must take two arguments, map\(key, value\)"),
        ({"map": 3}, JobRejected, "map is 3, which is no plain function"),
        ({"map": words, "combine": total}, JobRejected, "words has combine but no reduce"),
        ({"map": words, "reader": "lnes"}, JobRejected, "reader is 'lnes'; say one of lines,"),
        ({"map": words, "inputs": "nowhere.txt"}, JobRejected, "nowhere.txt: No such file"),
        ({"map": words, "inputs": [3]}, JobRejected, "3 is no input: .* goes as datasource="),
        ({"map": words, "datasource": (n for n in ())}, JobRejected, "datasource cannot be sent: cannot pickle"),
    ],
)
def test_what_makes_no_sense_is_told(
    cluster: Cluster, text: Path, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        cluster.map_reduce(**{"inputs": text if "datasource" not in given else (), **given})


def test_ids(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="'xyz' is no job id"):
        cluster.job("xyz")
    with pytest.raises(JobLost, match="0123"):
        cluster.job("0123456789")


def test_trio(three_nodes: PrivateCluster, text: Path, slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)

    async def main() -> None:
        async with p2premap.aio.connect() as cluster:
            job = await cluster.map_reduce(EXAMPLES / "wordcount.py", text)
            assert {word: count async for word, count in job} == COUNTED
            assert sorted(await (await cluster.job(job.id)).result()) == sorted(COUNTED.items())
            endless = await cluster.map_reduce(slow, text)
            with trio.move_on_after(0.1):
                await endless.wait()
            assert (await endless.status()).phase in ("waiting", "running"), "who waits no more leaves it alone"
            assert await endless.cancel()

    trio.run(main)
