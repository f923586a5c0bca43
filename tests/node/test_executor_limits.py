"""Attempts that the executor ends: limits of time and memory, and stopping on request."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2premap.tasks.events import SlotReported, StopSlot
from p2premap.tasks.job import Limits, Outcome
from p2premap.worker.page import Page
from tests.node.slots_house import LIMITED, bench, exists, until

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


async def test_a_loop_ends_at_its_time_limit_and_shows_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2premap.node.watch.TIME_LIMIT_GRACE_S", 60.0)
    async with bench(tmp_path) as b, trio.open_nursery() as nursery:
        nursery.start_soon(b.run_out, tmp_path / "loop")
        before, loop, after = await b.ends("echo a", f"loop {tmp_path}/loop", "echo b", limits=LIMITED)
        assert loop.outcome is Outcome.TIME_LIMIT
        assert loop.error == "It ran longer than its limit of 3600 s."
        assert loop.seconds > 0
        assert "in loop" in loop.detail
        assert before.outcome is after.outcome is Outcome.DONE


async def test_the_time_limit_is_of_each_attempt_not_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of three takes two thirds of the limit, by a clock that goes ahead while it runs."""
    began, looks = Page.began.fget, 0
    ahead: dict[float, float] = {}
    monkeypatch.setattr(Page, "began", property(lambda page: look(began(page))))
    async with bench(tmp_path) as b:

        def look(at: float) -> float:
            nonlocal looks
            looks += 1
            return at + ahead.setdefault(at, b.ahead_s)

        ahead[0.0] = 0.0  # none has begun
        b.executor.perform(b.batch(*(f"wait {tmp_path}/{task}" for task in range(3)), limits=LIMITED))
        for task in range(3):
            await until(lambda task=task: len(ahead) == task + 2)  # type: ignore[misc]
            b.ahead_s += 2 / 3 * LIMITED.time_s
            now = looks
            await until(lambda now=now: looks > now)  # type: ignore[misc]
            (tmp_path / str(task)).touch()
        await b.over()
        assert [end.outcome for report in b.reports for end in report.ends] == [Outcome.DONE] * 3


async def test_the_time_limit_does_not_need_the_attempt_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2premap.node.watch.TIME_LIMIT_GRACE_S", 0.1)
    async with bench(tmp_path) as b:
        end = await b.end("stubborn", limits=Limits(time_s=0.3))
        assert end.outcome is Outcome.TIME_LIMIT


@pytest.mark.parametrize("call", ["hog", "child_hog"])
async def test_a_memory_hog_is_stopped_at_its_limit(tmp_path: Path, call: str) -> None:
    limit = 200 << 20
    async with bench(tmp_path) as b:
        hog, after = await b.ends(call, "echo b", limits=Limits(memory_bytes=limit))
        assert hog.outcome is Outcome.MEMORY_LIMIT
        assert "over its limit of 200 MiB" in hog.error
        assert limit < hog.peak_bytes < 4 * limit
        assert after.outcome is Outcome.DONE


async def test_the_peak_of_memory_is_of_the_attempt(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        small, large, again = await b.ends("use 1", "use 120", "use 1")
        assert large.peak_bytes > 120 << 20
        assert small.peak_bytes < 100 << 20
        assert again.peak_bytes < 100 << 20


async def test_ends_are_told_while_a_long_attempt_holds_the_process(tmp_path: Path) -> None:
    """Short attempts before a long one in the same batch are not held back by it."""
    async with bench(tmp_path) as b:
        b.executor.perform(b.batch("echo a", "echo b", f"loop {tmp_path}/loop"))
        while sum(len(report.ends) for report in b.reports) < 2:
            await b.news()
        assert {end.value for report in b.reports for end in report.ends} == {b"a", b"b"}
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=5, reason="enough"))
        await b.over()
        assert b.reports[-1].ends[0].outcome is Outcome.STOPPED


async def test_stop_ends_the_batch_softly(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.executor.perform(b.batch(f"tidy {tmp_path}/tidy", "echo b"))
        b.executor.perform(b.batch("echo next", first=2))
        await exists(tmp_path / "tidy.began")
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=30, reason="It was cancelled."))
        await b.over(2)
        ends = {end.task: end for report in b.reports for end in report.ends}
        assert [ends[task].outcome for task in range(3)] == [Outcome.STOPPED, Outcome.STOPPED, Outcome.DONE]
        assert ends[0].error == "It was cancelled."
        assert (tmp_path / "tidy.tidied").exists(), "user code could clean up"


async def test_stop_ends_an_attempt_that_ignores_the_soft_signal(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.executor.perform(b.batch(f"stubborn {tmp_path}/ready"))
        await exists(tmp_path / "ready")
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=0.2, reason="It was cancelled."))
        await b.over()
        assert b.reports[-1].ends[0].outcome is Outcome.STOPPED
        assert (await b.end("echo on")).outcome is Outcome.DONE


async def test_a_queued_batch_is_stopped_before_the_one_ahead_of_it_has_left(tmp_path: Path) -> None:
    """The core hears that a batch is over before the slot has gone on to the next."""
    async with bench(tmp_path) as b:

        def stop_the_next(report: SlotReported) -> None:
            if report.batch_over and report.ends[-1].task == 0:
                b.executor.perform(StopSlot(slot=0, batch=2, grace_s=0.2, reason="It was cancelled."))

        b.on_report = stop_the_next
        b.executor.perform(b.batch("echo a"))
        b.executor.perform(b.batch(f"tidy {tmp_path}/tidy", first=1))
        await b.over(2)
        ends = [end for report in b.reports for end in report.ends]
        assert [end.outcome for end in ends] == [Outcome.DONE, Outcome.STOPPED]
        assert ends[1].error == "It was cancelled."


async def test_a_stop_that_comes_too_late_spares_the_next_batch(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.executor.perform(b.batch("echo a"))
        b.executor.perform(b.batch(f"wait {tmp_path}/wait", first=1))
        await exists(tmp_path / "wait.began")
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=0.0, reason="It was cancelled."))
        with trio.move_on_after(0.1):
            await b.over(2)
        (tmp_path / "wait").touch()
        await b.over(2)
        assert [end.outcome for report in b.reports for end in report.ends] == [Outcome.DONE, Outcome.DONE]
