"""Calls that wait for others, handed in by one thread while others come back: without a daemon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from p2premap.client.callstate import CallState, Held
from p2premap.client.dependents import Dependents
from p2premap.client.future import Future
from p2premap.client.packs import Call
from p2premap.ids import JobId
from p2premap.tasks.calls_refs import INLINE, Ref


class Line:
    """A line that does not send; `submitting` is what happens meanwhile."""

    def __init__(self) -> None:
        def unreachable() -> Any:
            raise AssertionError

        self.state = CallState(unreachable, JobId(bytes(16)), 1)
        self.dependents = Dependents(self, self.state, lambda thing: Ref(INLINE, data=b"known"))  # type: ignore[arg-type]
        self.submitting: list[Callable[[Call], None]] = []

    def call(self, *things: Future[Any]) -> Call:
        """One that refers to these."""
        future: Future[Any] = Future()
        call = Call(0, b"", future)
        future._call, future._line = call, self  # type: ignore[assignment]
        call.alone, call.things = True, things
        return call

    def send(self) -> Call:
        """Have the next call under way."""
        pack = self.state.packer.next()
        assert pack is not None
        self.state.packer.sent(pack, len(self.state.packer.under_way))
        return pack.calls[0]

    def submit(self, call: Call) -> None:
        """See `CallLine.submit`."""
        with self.state.lock:
            self.state.packer.add(call)
        if self.submitting:
            self.submitting.pop(0)(call)

    def cancel(self, call: Call) -> None:
        """See `CallLine.cancel`."""


@pytest.fixture
def line() -> Line:
    """With one call under way, which has the number 0."""
    line = Line()
    line.submit(line.call())
    line.send()
    return line


def _first(line: Line) -> Future[Any]:
    return line.state.packer.under_way[0].calls[0].future  # type: ignore[return-value]


def test_a_call_that_comes_back_before_its_hand_in_has_returned_is_not_forgotten(line: Line) -> None:
    def comes_back(call: Call) -> None:
        assert line.send() is call
        line.state.packer.ended(1)
        line.state.held[call] = Held(going=True)
        line.dependents.again(call)

    line.submitting = [comes_back]
    second = line.call(_first(line))
    line.dependents.add(second)
    assert line.state.packer.waiting() == [second]
    assert not line.state.held
    assert line.state.packer.early == 1


def test_one_that_is_cancelled_as_it_goes_takes_no_place(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = Dependents._choose

    def cancelled_after(dependents: Dependents, call: Call) -> object:
        chosen = choose(dependents, call)
        assert line.state.packer.early == 1
        call.future.cancel()
        return chosen

    monkeypatch.setattr(Dependents, "_choose", cancelled_after)
    line.dependents.add(line.call(_first(line)))
    assert (line.state.packer.early, line.state.held) == (0, {})


def test_an_interrupt_ends_the_call_that_is_handed_in_and_no_other(line: Line) -> None:
    def interrupted(call: Call) -> None:
        raise KeyboardInterrupt

    other, unsent = line.call(_first(line)), line.call()
    hit, behind = line.call(unsent.future), line.call(unsent.future)
    line.dependents.add(hit)
    line.dependents.add(behind)

    def interrupts(call: Call) -> None:
        unsent.future.set_result(1)  # the other two can go now
        line.submitting.append(interrupted)

    line.submitting = [interrupts]
    with pytest.raises(KeyboardInterrupt):
        line.dependents.add(other)
    assert hit.future.cancelled()
    assert line.state.packer.waiting() == [other, hit, behind]
    assert line.state.held == {}
    assert line.send() is other
    assert line.send() is behind
    assert line.state.packer.early == 1


def test_ctrl_c_before_a_call_can_wait_for_others_leaves_nothing_that_waits(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = line.call()
    known = Future.when_known

    def interrupted(future: Future[Any], tell: Callable[[], None], line: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        known(future, tell, line)

    monkeypatch.setattr(Future, "when_known", interrupted)
    waiting = line.call(unsent.future)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        line.dependents.add(waiting)
    assert line.state.held == {}
    assert waiting.future.cancelled()
