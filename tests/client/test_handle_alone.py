"""A job's handle, where the daemon says what no real one would be brought to say in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import msgspec
import pytest

from p2premap.client import handle
from p2premap.client.connection import local
from p2premap.client.directories import PartsDirectory
from p2premap.client.handle import Job
from p2premap.control.answers import Chunk
from p2premap.control.data import ReadPart
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import JobFailed, JobLost
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView, Phase
from p2premap.wire import Message
from p2premap.worker import waiting
from tests.client.test_jobs import JOB, view
from tests.fakedaemon import Answer, FakeDaemon

RUNNING = msgspec.structs.replace(view(Phase.RUNNING, parts=1), part_count=1)
DONE = msgspec.structs.replace(view(Phase.DONE, parts=1), part_count=1)
FAILED = msgspec.structs.replace(view(Phase.FAILED, parts=1), part_count=1, error="no")
TORN = msgspec.structs.replace(view(Phase.DONE), part_count=1)
"""Over, and yet without its part."""

T = TypeVar("T")


def says(
    looks: list[JobView], watched: list[list[JobView]], *pieces: bytes
) -> Callable[[Message, bytes], list[Answer]]:
    """A job of one part.

    Args:
        looks: what each look at it finds; the last again and again.
        watched: what each finds who watches it, likewise.
        pieces: of the part.
    """

    def script(message: Message, payload: bytes) -> list[Answer]:
        match message:
            case Watch(request=request, once=once):
                views = [_next(looks)] if once else _next(watched)
                return [JobUpdate(request=request, view=one) for one in views]
            case ReadPart(request=request):
                return [*((Chunk(request=request), piece) for piece in pieces), Chunk(request=request, last=True)]
        raise AssertionError(message)

    return script


def _next(left: list[T]) -> T:
    return left.pop(0) if len(left) > 1 else left[0]


def job(paths: Paths, target: PartsDirectory | None = None) -> Job:
    return Job(partial(local, paths=paths), JOB, target=target)


def test_a_job_that_fails_is_no_obstacle_to_the_next_output(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("old")
    with FakeDaemon(paths, says([RUNNING], [[RUNNING, FAILED]], b"bad")) as daemon:
        failed = job(paths, PartsDirectory(str(tmp_path), overwrite=True))
        assert isinstance(failed.exception(60), JobFailed)
    assert any(isinstance(message, ReadPart) for message in daemon.requests), "its part was here"
    assert [(file.name, file.read_text()) for file in tmp_path.glob("[.p]*")] == [("part-00000", "old")]
    with FakeDaemon(paths, says([RUNNING], [[DONE]], b"n", b"ew")):
        assert job(paths, PartsDirectory(str(tmp_path), overwrite=True)).wait(60)
    assert [(file.name, file.read_text()) for file in tmp_path.glob("[.p]*")] == [("part-00000", "new")]


@pytest.mark.parametrize("last", [TORN, RUNNING])
def test_an_end_that_nobody_can_tell_is_told_in_a_sentence(paths: Paths, last: JobView) -> None:
    with FakeDaemon(paths, says([RUNNING, last], [[TORN]])), pytest.raises(JobLost, match=r"can tell .*; try again"):
        job(paths).result(60)


def test_an_end_that_another_look_finds_is_well(paths: Paths) -> None:
    with FakeDaemon(paths, says([RUNNING, DONE], [[TORN], [DONE]])):
        assert job(paths).exception(60) is None


def test_a_part_that_takes_longer_than_somebody_waits_is_fetched_once(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(handle, "time", SimpleNamespace(monotonic=lambda: now[0]))
    answers = says([RUNNING, DONE], [[RUNNING], [DONE]], b"n", b"ew")

    def script(message: Message, payload: bytes) -> list[Answer]:
        if isinstance(message, ReadPart):
            now[0] += 10
        return answers(message, payload)

    with FakeDaemon(paths, script) as daemon:
        made = job(paths, PartsDirectory(str(tmp_path / "out")))
        assert not made.wait(1)
        assert made.wait(1)
    assert (tmp_path / "out" / "part-00000").read_text() == "new"
    assert sum(isinstance(message, ReadPart) for message in daemon.requests) == 1


@contextmanager
def _inside(depth: list[int]) -> Iterator[None]:
    depth.append(1)
    try:
        yield
    finally:
        depth.pop()


def test_a_task_that_watches_a_job_waits_only_for_news(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    depth: list[int] = []
    monkeypatch.setattr(waiting, "_around", partial(_inside, depth))
    with FakeDaemon(paths, says([RUNNING], [[RUNNING, DONE]])):
        seen = [(shape.phase, len(depth)) for shape in job(paths).watch()]
    assert seen == [("running", 0), ("done", 0)]
