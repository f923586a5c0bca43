"""One seed, one history, under trio too: the only place that touches trio's private parts.

trio promises no order among tasks that are ready at the same time, and shuffles them on purpose. With its private
switch on, it sorts them first and draws from a generator that can be seeded. Threads are run in place: what they would
do here takes no time, and their real order could not be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
from trio._core import _run as private
from trio.testing import MockClock

T = TypeVar("T")

THREAD_S: Final = 0.0005
"""What a thread would do is done after so long, as one piece."""


def run(seed: int, main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an async function under a virtual clock that jumps to the next deadline when all tasks wait.

    Args:
        seed: of trio's choices.
        args: of `main`.
    """
    with _deterministic(seed):
        return trio.run(main, *args, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    switch, threads, state = private._ALLOW_DETERMINISTIC_SCHEDULING, trio.to_thread.run_sync, private._r.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    private._r.seed(seed)
    trio.to_thread.run_sync = _in_place  # type: ignore[assignment]
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING = switch  # type: ignore[misc]
        private._r.setstate(state)
        trio.to_thread.run_sync = threads


async def _in_place(function: Callable[..., T], *args: Any, **_: object) -> T:  # noqa: ANN401
    """What stands for `trio.to_thread.run_sync`."""
    with trio.CancelScope(shield=True):
        await trio.sleep(THREAD_S)
    return function(*args)
