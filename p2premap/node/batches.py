"""A batch of attempts on its way through a slot: which are unanswered, and their sources on their way here."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

import trio

from p2premap.errors import P2PRemapError
from p2premap.ids import Digest
from p2premap.node.blobs import StoreUnwritable
from p2premap.node.staging import SourceLost, Stager
from p2premap.tasks.events import RunBatch, StopSlot
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Outcome, Source
from p2premap.worker.messages import Order
from p2premap.worker.runtime import Segment

_FETCHERS: Final = 4

Key: TypeAlias = tuple[int, int]
"""(task, attempt) within a batch."""


log = logging.getLogger(__name__)


class NodeFailed(P2PRemapError):
    """This node could not run a batch, for a reason that nobody foresaw. Its text is one sentence."""

    def __init__(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        super().__init__(f"This node failed: {type(error).__name__}.")


class Batch:
    """One `RunBatch`, from the moment it is queued until its last attempt has been reported.

    Args:
        run: what was asked for.
        stager: brings the sources.
    """

    def __init__(self, run: RunBatch, stager: Stager) -> None:
        self.run = run
        self.left: dict[Key, AttemptSpec] = {(a.task, a.attempt): a for a in run.attempts}
        self.unsent: deque[Key] = deque(self.left)
        self.stop: StopSlot | None = None
        self.stopped = trio.Event()
        self.aside = False
        """Its last attempt waits for other tasks, and its process stands aside."""
        self.code: Segment | None = None
        self._stager = stager
        self._trouble: dict[Source, P2PRemapError] = {}
        self._failure: NodeFailed | None = None
        self._at_hand: dict[Source, Segment] = {}
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._again: set[Key] = set()
        self._wanted: list[Source] = []

    def request_stop(self, stop: StopSlot) -> None:
        """Nothing more of this batch is wanted."""
        self.stop = stop
        self.stopped.set()
        self._notify()

    def give_back(self, key: Key) -> tuple[AttemptEnd, ...]:
        """Nothing but this attempt is to run here: how the others end."""
        self.unsent.clear()
        text = "the attempt before it waits for other tasks"
        pattern = AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED, error=text)
        return ended_alike((other for other in self.left if other != key), pattern)

    def restart(self) -> None:
        """Its process has ended: send what is unanswered to the next one."""
        self.unsent = deque(self.left)
        self._notify()

    def worth_again(self, end: AttemptEnd) -> bool:
        """Whether an attempt that lost an input should run once more here, its sources fetched afresh."""
        key = end.task, end.attempt
        if key in self._again or key not in self.left:
            return False
        self._again.add(key)
        self.distrust(end)
        for source in self.left[key].sources:
            if source.digest in end.missing:
                self._at_hand.pop(source, None)
                self._wanted.append(source)
        self.unsent.append(key)
        self._notify()
        return True

    def distrust(self, end: AttemptEnd) -> None:
        """What an attempt could not read is fetched afresh the next time."""
        for digest in end.missing:
            self._stager.distrust(digest)

    def ready(self) -> bool:
        """Whether everything is at hand already, so that `bring_sources` is not needed."""
        if any(attempt.sources for attempt in self.run.attempts):
            return False
        self.code = self._stager.code_at_hand(self.run.code)
        return self.code is not None

    def close(self) -> None:
        """The batch is over: nothing more is brought for it."""
        self._scope.cancel()

    async def bring_sources(self) -> None:
        """Bring everything to hand; runs beside the batch before, and until `close`."""
        try:
            with self._scope:
                await self._bring()
        except Exception as error:
            log.exception("the sources of a batch cannot be brought")
            self._failure = NodeFailed(error)
            self._notify()

    async def _bring(self) -> None:
        try:
            self.code = await self._stager.bring_code(self.run.code)
        except (SourceLost, StoreUnwritable) as error:
            self._trouble[self.run.code] = error
            self._notify()
            return
        sources = dict.fromkeys(source for attempt in self.run.attempts for source in attempt.sources)
        self._at_hand |= await self._stager.locate(sources)
        self._wanted += [source for source in sources if source not in self._at_hand]
        self._notify()
        while True:
            wanted, self._wanted = deque(self._wanted), []
            async with trio.open_nursery() as nursery:
                for _ in range(min(_FETCHERS, len(wanted))):
                    nursery.start_soon(self._bring_each, wanted)
            while not self._wanted:
                await self._changed.wait()

    async def _bring_each(self, wanted: deque[Source]) -> None:
        while wanted:
            source = wanted.popleft()
            try:
                self._at_hand[source] = await self._stager.bring(source)
            except (SourceLost, StoreUnwritable) as error:
                self._trouble[source] = error
            self._notify()

    async def code_or_stop(self) -> AttemptEnd | None:
        """Wait for the job's code; a pattern for the ends of what is left if it cannot be had, or must not be run."""
        while self.stop is None and self.code is None:
            if (error := self._trouble.get(self.run.code, self._failure)) is not None:
                return _end_without(error, 0, 0)
            await self._changed.wait()
        if self.stop is not None:
            return AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED, error=self.stop.reason)
        return None

    def ready_orders(self, count_max: int, bytes_max: int) -> list[Order]:
        """The next unsent attempts that can be sent now, as long as they are small together."""
        orders: list[Order] = []
        while self.unsent and len(orders) < count_max:
            decided = self._order(self.left[self.unsent[0]])
            if not isinstance(decided, Order):
                break
            bytes_max -= len(decided.params) + 200 * len(decided.segments)
            if bytes_max < 0:
                break
            self.unsent.popleft()
            orders.append(decided)
        return orders

    async def next_orders(self, count_max: int, bytes_max: int) -> list[Order | AttemptEnd]:
        """The next unsent attempts whose sources have been decided, in order; waits for the first of them.

        An attempt whose sources cannot be had comes as its end.
        """
        while not self.unsent or (first := self._order(self.left[self.unsent[0]])) is None:
            await self._changed.wait()
        orders: list[Order | AttemptEnd] = []
        size = 0
        decided: Order | AttemptEnd | None = first
        while decided is not None:
            self.unsent.popleft()
            orders.append(decided)
            if isinstance(decided, Order):
                size += len(decided.params) + 200 * len(decided.segments)
            if not self.unsent or len(orders) >= count_max or size >= bytes_max:
                break
            decided = self._order(self.left[self.unsent[0]])
        return orders

    def _order(self, attempt: AttemptSpec) -> Order | AttemptEnd | None:
        """What to send for an attempt; None while its sources are on their way."""
        segments = []
        for source in attempt.sources:
            segment = self._at_hand.get(source)
            if segment is None:
                error = self._trouble.get(source, self._failure)
                return None if error is None else _end_without(error, attempt.task, attempt.attempt)
            segments.append(segment)
        return Order(task=attempt.task, attempt=attempt.attempt, params=attempt.params, segments=tuple(segments))

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def ended_alike(keys: Iterable[Key], pattern: AttemptEnd) -> tuple[AttemptEnd, ...]:
    """The same end for each of these."""
    return tuple(
        AttemptEnd(
            task=task,
            attempt=attempt,
            outcome=pattern.outcome,
            error=pattern.error,
            detail=pattern.detail,
            missing=pattern.missing,
        )
        for task, attempt in keys
    )


def _end_without(error: P2PRemapError, task: int, attempt: int) -> AttemptEnd:
    missing: tuple[Digest, ...] = (error.digest,) if isinstance(error, SourceLost) else ()
    outcome = Outcome.INPUT_LOST if isinstance(error, SourceLost) else Outcome.REFUSED
    return AttemptEnd(task=task, attempt=attempt, outcome=outcome, error=str(error), missing=missing)
