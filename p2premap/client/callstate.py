"""What the parts of a program's line to its job share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from p2premap.client.jobs import Connect
from p2premap.client.packs import Call, Packer, calls_of
from p2premap.ids import JobId


class Held:
    """What a call waits for here.

    Attributes:
        lacking: futures, by their `id`, that have no result yet and whose calls are not under way.
        unknown: all of them that have no result yet.
        going: it is being handed in.
        named: the packs that it names then.
    """

    __slots__ = ("going", "lacking", "named", "unknown")

    def __init__(self, awaited: Iterable[int] = (), *, going: bool = False) -> None:
        self.lacking, self.unknown = set(awaited), set(awaited)
        self.going = going
        self.named: tuple[int, ...] = ()


class CallState:
    """One job of calls; `lock` guards all that changes, and `idle` tells of changes.

    Args:
        connect: opens a connection to any daemon.
        job: handed in already.
        slots: worker processes of the cluster.
    """

    def __init__(self, connect: Connect, job: JobId, slots: int) -> None:
        self.connect = connect
        self.job = job
        self.lock = threading.Lock()
        self.idle = threading.Condition(self.lock)
        self.packer = Packer(max(slots, 1))
        self.held: dict[Call, Held] = {}
        """Calls that wait for others, whose results are to be their arguments."""
        self.over = threading.Event()
        self.error: BaseException | None = None
        """What every call has for an answer once the job is over."""

    @property
    def quiet(self) -> bool:
        """Every call has its answer."""
        return self.packer.idle and not self.held

    def end(self, error: BaseException) -> None:
        """Nothing more comes: what has no answer has this one."""
        with self.idle:
            if self.over.is_set():
                return
            self.error = error
            self.over.set()
            calls = [*self.held, *self.packer.waiting(), *calls_of(self.packer.under_way.values())]
            maps = self.packer.maps()
            self.idle.notify_all()
        for call in calls:
            set_exception(call.future, error)
        for mapped in maps:
            mapped.tell(-1, error)


def set_exception(future: Future[Any], error: BaseException) -> None:
    """The call's answer, unless it was cancelled."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
