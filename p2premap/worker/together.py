"""How attempts end that ran at once in this process: all with a result, or all without."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2premap.tasks.job import INLINE_BYTES_MAX, AttemptEnd, Outcome
from p2premap.worker.context import AttemptContext
from p2premap.worker.failure import end_of
from p2premap.worker.gang import PeerLost
from p2premap.worker.messages import Order
from p2premap.worker.runtime import InputLost, Result


def done(
    orders: Sequence[Order], results: Sequence[Result], contexts: Sequence[AttemptContext], *, seconds: float, peak: int
) -> list[AttemptEnd]:
    """They have yielded these.

    Args:
        seconds: that all of them took; each is said to have taken its share.
        peak: of the process's memory.

    Raises:
        TypeError: the runtime did not keep its contract.
    """
    if len(results) != len(orders):
        raise TypeError(f"the job's kind returned {len(results)} results for {len(orders)} tasks")
    for result in results:
        check(result)
    return [
        AttemptEnd(
            task=order.task,
            attempt=order.attempt,
            outcome=Outcome.DONE,
            value=result.value,
            blobs=result.blobs,
            seconds=seconds / len(orders),
            peak_bytes=peak,
            records_in=context.records_in,
            records_out=context.records_out,
            spill=context.spilled,
        )
        for order, result, context in zip(orders, results, contexts, strict=True)
    ]


def failed(orders: Sequence[Order], error: BaseException) -> list[AttemptEnd]:
    """This was raised."""
    if isinstance(error, PeerLost):
        text = f"It was stopped: {error}."
        return [_stopped(order, text) for order in orders]
    if isinstance(error, InputLost):
        text = "It was stopped: an input of another task of its gang cannot be read here."
        reads = {order.task: any(segment.digest == error.digest for segment in order.segments) for order in orders}
        return [end_of(o.task, o.attempt, error) if reads[o.task] else _stopped(o, text) for o in orders]
    first = end_of(orders[0].task, orders[0].attempt, error)
    return [msgspec.structs.replace(first, task=order.task, attempt=order.attempt) for order in orders]


def _stopped(order: Order, text: str) -> AttemptEnd:
    return AttemptEnd(task=order.task, attempt=order.attempt, outcome=Outcome.STOPPED, error=text)


def check(result: object) -> None:
    """Raises:
    TypeError: the runtime did not keep its contract.
    """
    if not isinstance(result, Result):
        raise TypeError(f"the job's kind returned {type(result).__name__} where a Result is due")
    if len(result.value) > INLINE_BYTES_MAX:
        raise TypeError(f"a result value of {len(result.value)} bytes is over {INLINE_BYTES_MAX}: it must be a blob")
