"""Attempts that wait for other tasks stand aside, and their slot goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2premap.node import slots
from p2premap.tasks.events import AttemptGoesOn, AttemptWaits, StopSlot
from p2premap.tasks.job import AttemptEnd, Outcome
from tests.node.slots_house import Bench, bench, exists, gone, until

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


def ends_of(b: Bench, batch: int) -> list[AttemptEnd]:
    """What was told of a batch."""
    return [end for report in b.reports if report.batch == batch for end in report.ends]


async def test_who_waits_gives_its_slot_to_those_that_it_waits_for(tmp_path: Path) -> None:
    """One slot: the batch that ends the waiting is queued behind the one that waits."""
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch("echo a", f"wait_for_others {tmp_path}/gate", "echo b"))
        b.executor.perform(b.batch(f"touch {tmp_path}/gate"))
        await b.over(2)
        assert b.waits == [AttemptWaits(slot=0, batch=1), AttemptGoesOn(slot=0, batch=1)]
        assert [(end.task, end.outcome) for end in ends_of(b, 1)] == [
            (0, Outcome.DONE),
            (2, Outcome.STOPPED),
            (1, Outcome.DONE),
        ]
        assert [end.outcome for end in ends_of(b, 2)] == [Outcome.DONE]


async def test_it_may_wait_again_and_the_slot_goes_on_all_the_while(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"wait_twice {gate}"))
        b.executor.perform(b.batch(f"touch {gate}"))
        await exists(Path(f"{gate}.on.began"))
        await until(lambda: [now.task for now in b.executor.running()] == [0])
        b.executor.perform(b.batch(f"touch {gate}.on"))
        await exists(Path(f"{gate}.again.began"))
        b.executor.perform(b.batch(f"touch {gate}.again"))
        await b.over(4)
        await b.executor.quiet()
        assert [type(event) for event in b.waits] == [AttemptWaits, AttemptGoesOn] * 2
        assert ends_of(b, 1)[0].value == b"at last"
        assert b.executor.running() == []


async def test_what_stands_aside_can_be_stopped_and_its_process_ends(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"wait_for_others {tmp_path}/never"))
        await until(lambda: bool(b.waits))
        (waits,) = b.executor.running()
        b.executor.perform(b.batch("pid"))
        await b.over()
        assert int(ends_of(b, 2)[0].value) != waits.pid
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=0.0, reason="It was cancelled."))
        await b.over(2)
        (end,) = ends_of(b, 1)
        assert (end.outcome, end.error) == (Outcome.STOPPED, "It was cancelled.")
        await gone(waits.pid)


async def test_nothing_that_stands_aside_outlives_the_executor(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"wait_for_others {tmp_path}/never"))
        await until(lambda: bool(b.waits))
        (waits,) = b.executor.running()
    await gone(waits.pid)


async def test_a_crash_while_it_stands_aside_is_told(tmp_path: Path) -> None:
    import os
    import signal

    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"wait_for_others {tmp_path}/never"))
        await until(lambda: bool(b.waits))
        os.kill(b.executor.running()[0].pid, signal.SIGKILL)
        await b.over()
        (end,) = ends_of(b, 1)
        assert end.outcome is Outcome.CRASHED
        assert "SIGKILL" in end.error
        assert (await b.end("echo on")).value == b"on"


async def test_beyond_a_number_they_keep_their_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ASIDE_MAX", 1)
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"wait_for_others {tmp_path}/one"))
        b.executor.perform(b.batch(f"wait_for_others {tmp_path}/two"))
        b.executor.perform(b.batch(f"touch {tmp_path}/one"))
        await exists(tmp_path / "two.began")
        assert len(b.executor.running()) == 2
        (tmp_path / "two").touch()
        await b.over(3)
        assert [event.batch for event in b.waits] == [1, 1]
