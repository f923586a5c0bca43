"""The loop around a core: what comes first, what a stall looks like to the core, what is bounded."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from p2premap.node import driver as driver_module
from p2premap.node.driver import Driver


class Recorder:
    """A core that writes down what it is told; its deadline is set by the test."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.at = math.inf
        self.again = trio.Event()

    def deadline(self) -> float:
        return self.at

    def step(self, now: float, event: str) -> list[str]:
        self.seen.append(event)
        if event == "tick":
            self.at = math.inf
        self.again.set()
        self.again = trio.Event()
        return [f"did {event}"]


def make(core: Recorder) -> tuple[Driver[str, str], list[str]]:
    done: list[str] = []
    driver = Driver(
        core,
        done.append,
        tick="tick",
        woke=lambda lost: f"woke {round(lost)}",
        may_drop=lambda event: event.startswith("datagram"),
    )
    return driver, done


@pytest.mark.trio
async def test_what_is_waiting_comes_before_a_tick_that_is_due(autojump_clock: trio.testing.MockClock) -> None:
    core = Recorder()
    core.at = trio.current_time()
    driver, done = make(core)
    driver.post("one")
    driver.post("two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        while "tick" not in core.seen:
            await core.again.wait()
        nursery.cancel_scope.cancel()
    assert core.seen == ["one", "two", "tick"]
    assert done == ["did one", "did two", "did tick"]


@pytest.mark.trio
async def test_a_stall_is_told_before_everything_else(mock_clock: trio.testing.MockClock) -> None:
    core = Recorder()
    core.at = trio.current_time() + 1.0
    driver, _ = make(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(11.0)  # ten seconds later than it asked for
        driver.post("ack that lay in the socket")
        while "tick" not in core.seen:
            await core.again.wait()
        nursery.cancel_scope.cancel()
    assert core.seen == ["woke 10", "ack that lay in the socket", "tick"]
    assert driver.statistics().stalls == 1
    assert driver.statistics().lag_max_s == pytest.approx(10.0)


@pytest.mark.trio
async def test_a_suspended_machine_is_a_stall_although_its_clock_stood_still(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asleep = 0.0
    monkeypatch.setattr(driver_module, "suspended_s", lambda: asleep)
    core = Recorder()
    driver, _ = make(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        asleep = 3600.0
        driver.post("hello")
        while "hello" not in core.seen:
            await core.again.wait()
        nursery.cancel_scope.cancel()
    assert core.seen == ["woke 3600", "hello"]


@pytest.mark.trio
async def test_a_full_inbox_drops_datagrams_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(driver_module, "INBOX_MAX", 2)
    core = Recorder()
    driver, _ = make(core)
    for event in ("datagram 1", "report 1", "datagram 2", "report 2", "datagram 3"):
        driver.post(event)
    assert (driver.statistics().waiting, driver.statistics().dropped) == (3, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        while "report 2" not in core.seen:
            await core.again.wait()
        nursery.cancel_scope.cancel()
    assert core.seen == ["datagram 1", "report 1", "report 2"]


@pytest.mark.trio
async def test_many_waiting_events_do_not_starve_a_tick(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(driver_module, "EVENTS_BEFORE_TICK_MAX", 2)
    core = Recorder()
    core.at = trio.current_time()
    driver, _ = make(core)
    for n in range(4):
        driver.post(str(n))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        while "3" not in core.seen:
            await core.again.wait()
        nursery.cancel_scope.cancel()
    assert core.seen == ["0", "1", "tick", "2", "3"]


@pytest.mark.trio
async def test_what_nothing_stands_in_the_way_of_is_done_before_post_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    core = Recorder()
    driver, done = make(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        driver.post("one")
        assert done == ["did one"]
        core.at = trio.current_time() + 5.0
        driver.post("two")  # after it, the core wants a tick earlier than before
        await trio.sleep(6.0)
        nursery.cancel_scope.cancel()
    assert core.seen == ["one", "two", "tick"]


@pytest.mark.trio
async def test_what_an_effect_posts_has_its_step_after_all_effects_of_this_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    core = Recorder()
    done: list[str] = []

    def perform(effect: str) -> None:
        done.append(effect)
        if effect == "did one":
            driver.post("two")
            driver.post("three")
            done.append("performed one")

    driver = Driver(core, perform, tick="tick", woke=str, may_drop=lambda event: False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        driver.post("one")
        driver.post("four")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert core.seen == ["one", "two", "three", "four"]
    assert done[:2] == ["did one", "performed one"]


@pytest.mark.trio
async def test_a_fault_of_the_core_ends_the_loop_and_not_whoever_posts(autojump_clock: trio.testing.MockClock) -> None:
    class Broken(Recorder):
        def step(self, now: float, event: str) -> list[str]:
            super().step(now, event)
            raise ZeroDivisionError

    core = Broken()
    driver, _ = make(core)
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.run)
            await trio.testing.wait_all_tasks_blocked()
            driver.post("one")
            driver.post("two")
    assert core.seen == ["one"]


@pytest.mark.trio
async def test_the_loop_has_its_own_turn_however_much_somebody_posts(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(driver_module, "AT_ONCE_MAX", 2)
    core = Recorder()
    driver, _ = make(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(4):
            driver.post(str(n))
        assert core.seen == ["0", "1"]
        await trio.testing.wait_all_tasks_blocked()
        driver.post("4")
        assert core.seen == ["0", "1", "2", "3", "4"]
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_process_that_is_stopped_takes_no_step(autojump_clock: trio.testing.MockClock) -> None:
    class Stopped(Driver[str, str]):
        at_work = False

    core = Recorder()
    driver = Stopped(core, lambda effect: None, tick="tick", woke=str, may_drop=lambda event: False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        driver.post("one")
        assert core.seen == []
        nursery.cancel_scope.cancel()
