"""The sending half of a program's line, by itself."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from p2premap.client.callstate import CallState, Held
from p2premap.client.packs import Call, Pack
from p2premap.client.sending import Opened, Sender
from p2premap.control.calls import Calls
from p2premap.ids import JobId, NodeId, RequestId
from p2premap.tasks.calls import Calls as Director
from p2premap.tasks.calls import pack_body, pack_extension, pack_function
from p2premap.tasks.calls_refs import CALL, Ref
from p2premap.tasks.director import Extension
from tests.fakedaemon import NODE

JOB = JobId(bytes(16))
OTHER = NodeId(bytes(reversed(range(16))))
FUNCTION = pack_function(b"f")


def _unreachable() -> Any:
    raise AssertionError


class Quick:
    """A connection whose daemon answers, and whose program submits once more, while a frame is still being sent."""

    def __init__(self, state: CallState) -> None:
        self.state = state
        self.sent = 0

    def post(self, message: object, payload: bytes) -> None:
        self.sent += 1
        with self.state.lock:
            self.state.packer.ended(self.sent - 1)
            if self.sent == 1:
                self.state.packer.add(Call(0, b"later", Future()))


def test_what_is_submitted_while_a_frame_is_sent_and_answered_is_sent() -> None:
    state = CallState(_unreachable, JOB, 1)
    sender, connection = Sender(state), Quick(state)
    sender._opened = Opened(connection, RequestId(1), Calls(request=RequestId(1), job=state.job))  # type: ignore[arg-type]
    state.packer.add(Call(0, b"first", Future()))
    sender.flush()
    assert connection.sent == 2
    assert state.packer.idle


class Leader:
    """A connection, to a leader of the job that has heard of so many packs."""

    def __init__(self, node: NodeId, known: int = 0) -> None:
        self.welcome = SimpleNamespace(node=node)
        self.director = Director(job=JOB, home=node, plan=b"")
        packs = [pack_body(0, 0, b"")] * known
        self.director.extend(pack_extension(functions=[FUNCTION], packs=packs))
        self.heard: list[Extension] = []

    def post(self, message: object, payload: bytes) -> None:
        self.heard.append(self.director.extend(payload))

    def opened(self) -> Opened:
        """The job is open there."""
        return Opened(self, RequestId(1), Calls(request=RequestId(1), job=JOB))  # type: ignore[arg-type]


@pytest.fixture
def sender() -> Sender:
    """With one function."""
    sender = Sender(CallState(_unreachable, JOB, 1))
    sender._functions.packed.append(FUNCTION)
    return sender


def _submit(sender: Sender, *refs: Ref) -> Call:
    call = Call(0, b"", Future())
    call.refs, call.alone, call.early = refs, True, bool(refs)
    sender._state.packer.early += call.early
    sender._state.packer.add(call)
    return call


def test_the_first_leader_it_finds_may_be_another_one_than_took_the_job(sender: Sender) -> None:
    leader = Leader(NODE)
    sender.use(leader.opened(), 0)
    _submit(sender)
    sender.flush()
    _submit(sender)
    sender.flush()
    assert [heard.again for heard in leader.heard if heard.tasks] == [True, False]


def test_what_calls_name_that_are_not_sent_yet_is_withdrawn(sender: Sender) -> None:
    sender.use(Leader(NODE).opened(), 0)
    for _ in range(4):
        _submit(sender)
    sender.flush()
    packer = sender._state.packer
    for number in range(4):
        packer.ended(number)
    _submit(sender, Ref(CALL, pack=0))
    undone = _submit(sender, Ref(CALL, pack=1))
    packer.leave(undone)  # its worker gave it back
    going = Held(going=True)
    going.named = (2,)
    sender._state.held[Call(0, b"", Future())] = going
    sender.lose()
    successor = Leader(OTHER, known=4)
    sender.use(successor.opened(), 4)
    assert [heard.cancelled for heard in successor.heard if heard.again] == [(0, 1, 2)]
    assert sum(heard.tasks for heard in successor.heard) == 2


class Interrupted:
    """A connection that Ctrl-C leaves with half a frame."""

    def __init__(self) -> None:
        self.hung_up = False

    def post(self, message: object, payload: bytes) -> None:
        raise KeyboardInterrupt

    def hang_up(self) -> None:
        """See `Connection`."""
        self.hung_up = True


def _use(sender: Sender, connection: Interrupted) -> None:
    sender.use(Leader(NODE).opened(), 0)
    sender._opened = Opened(connection, RequestId(1), Calls(request=RequestId(1), job=JOB))  # type: ignore[arg-type]


def _interrupt(sender: Sender, connection: Interrupted) -> None:
    _use(sender, connection)
    _submit(sender)
    _submit(sender)
    with pytest.raises(KeyboardInterrupt):
        sender.flush()


def _go_on_elsewhere(sender: Sender, connection: Interrupted) -> None:
    """Both calls are handed in on another line."""
    assert connection.hung_up
    sender.lose()
    again = Leader(NODE)
    sender.use(again.opened(), 0)
    assert sum(heard.tasks for heard in again.heard) == len(sender._state.packer.under_way) == 2


def test_what_an_interrupt_leaves_half_sent_goes_on_another_line(sender: Sender) -> None:
    connection = Interrupted()
    _interrupt(sender, connection)
    _go_on_elsewhere(sender, connection)


def test_packs_that_an_interrupt_leaves_without_bodies_get_them(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(pack: Pack) -> None:
        raise KeyboardInterrupt

    connection = Interrupted()
    with monkeypatch.context() as patch:
        patch.setattr(sender, "_encode", encode)
        _interrupt(sender, connection)
    _go_on_elsewhere(sender, connection)
    assert all(pack.body for pack in sender._state.packer.under_way.values())


def test_ctrl_c_while_calls_are_chosen_loses_none(sender: Sender) -> None:
    connection = Interrupted()
    _use(sender, connection)
    behind = _submit(sender)
    behind.follow(_submit(sender))

    def followed(call: Call) -> list[Call]:
        signal.raise_signal(signal.SIGINT)
        return []

    sender.followed = followed
    with pytest.raises(KeyboardInterrupt):
        sender.flush()
    _go_on_elsewhere(sender, connection)
