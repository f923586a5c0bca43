"""The future of one call: as in the standard library, and an argument of other calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from p2premap.client.pickles import dumps
from p2premap.client.references import refer
from p2premap.tasks.calls_refs import INLINE, Ref
from p2premap.worker.waiting import waiting

if TYPE_CHECKING:
    from p2premap.client.callline import CallLine
    from p2premap.client.packs import Call

T = TypeVar("T")


class Future(futures.Future[T]):
    """The result of one call that is being made, or waits. See `concurrent.futures.Future`.

    It is pending until its result is here. `cancel` can stop a call that runs. As an argument of another call, or
    within one, it stands for its result.
    """

    _call: Call | None = None
    _line: CallLine | None = None
    _at: Ref | None = None
    _asking: tuple[Callable[[], None], ...] = ()

    def result(self, timeout: float | None = None) -> T:
        """See `concurrent.futures.Future.result`. A task that waits here gives its slot to others meanwhile."""
        with nullcontext() if self.done() else waiting():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `concurrent.futures.Future.exception`; as `result`."""
        with nullcontext() if self.done() else waiting():
            return super().exception(timeout)

    def cancel(self) -> bool:
        """Have the call not made, or stopped; False if its result is here already."""
        with self._condition:
            before = self._state
        if not super().cancel():
            return False
        if before == "PENDING":
            with contextlib.suppress(futures.InvalidStateError):
                self.set_running_or_notify_cancel()
            if self._line is not None and self._call is not None:
                self._line.cancel(self._call)
        return True

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return refer(self)

    def found(self, at: Ref) -> None:
        """The result is large, and this is where it is; it is on its way here too."""
        with self._condition:
            self._at = at
            asking, self._asking = self._asking, ()
        for tell in asking:
            tell()

    def when_known(self, tell: Callable[[], None], line: CallLine) -> None:
        """Have this called, maybe twice, once `ref` can be asked for a call of this line."""
        telling = [tell]

        def once(_: object = None) -> None:  # callbacks stay for ever, and this one would keep all that follows
            tells = telling.copy()
            telling.clear()
            for one in tells:
                one()

        with self._condition:
            known = self._at is not None and self._line is line
            if not known and self._line is line:
                self._asking = (*self._asking, once)
        if known:
            once()
        else:
            self.add_done_callback(once)

    def ref(self, line: CallLine) -> Ref:
        """The result as an argument of another call, of this line. Where it is on the nodes it goes with its own job.

        Raises:
            BaseException: what the call raised.
        """
        failed = self.done() and (self.cancelled() or super().exception(0))
        if self._at is not None and self._line is line and not failed:
            return self._at
        return Ref(INLINE, data=dumps(super().result(0)))


def as_completed(fs: Iterable[futures.Future[T]], timeout: float | None = None) -> Iterator[futures.Future[T]]:
    """See `concurrent.futures.as_completed`; waits as `Future.result` does."""
    found = futures.as_completed(fs, timeout)
    while True:
        with waiting():
            future = next(found, None)
        if future is None:
            return
        yield future


def gather(fs: Any, timeout: float | None = None) -> Any:  # noqa: ANN401  (the same with results in the place of futures)
    """The results of futures, which may be in lists, tuples, sets and dicts: the same with results in their place.

    Args:
        timeout: seconds from now until the last result must be here.

    Raises:
        TimeoutError: it was not.
        Exception: what a call raised, the first in order.
    """
    until = None if timeout is None else time.monotonic() + timeout
    return _gathered(fs, until)


def _gathered(given: Any, until: float | None) -> Any:  # noqa: ANN401
    if isinstance(given, futures.Future):
        return given.result(None if until is None else max(until - time.monotonic(), 0.0))
    if isinstance(given, dict):
        return {key: _gathered(value, until) for key, value in given.items()}
    if isinstance(given, (set, frozenset)):
        return type(given)(_gathered(each, until) for each in given)
    if isinstance(given, tuple):
        return tuple(_gathered(each, until) for each in given)
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return [_gathered(each, until) for each in given]
    return given
