"""The sending half of a program's line, by itself."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from p2premap.client.callstate import CallState
from p2premap.client.packs import Call
from p2premap.client.sending import Opened, Sender
from p2premap.control.calls import Calls
from p2premap.ids import JobId, RequestId


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
    def unreachable() -> Any:
        raise AssertionError

    state = CallState(unreachable, JobId(bytes(16)), 1)
    sender, connection = Sender(state), Quick(state)
    sender._opened = Opened(connection, RequestId(1), Calls(request=RequestId(1), job=state.job))  # type: ignore[arg-type]
    state.packer.add(Call(0, b"first", Future()))
    sender.flush()
    assert connection.sent == 2
    assert state.packer.idle
