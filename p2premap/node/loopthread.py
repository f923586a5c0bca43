"""One thread with an asyncio event loop, for the libraries that need one; trio code calls into it.

There is at most one in a daemon. It starts when first needed and ends, within a bounded time, before its owner does.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import trio

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of asyncio libraries beside trio. `start` first, `aclose` in the end.

    Args:
        stop_s: how long the thread may take to end; then it is left behind (it is a daemon thread).
    """

    def __init__(self, *, stop_s: float = 2.0) -> None:
        self._stop_s = stop_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready, self._ended = trio.Event(), trio.Event()
        self._wanted = True

    async def start(self) -> None:
        """Start the thread; returns once `call` and `to_trio` may be used."""
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._main, name="p2premap loop", daemon=True).start()
        await self._ready.wait()

    async def aclose(self) -> None:
        """Cancel what still runs in the loop and end the thread. Not cancellable, but bounded by `stop_s`."""
        self._wanted = False
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._token is not None:
            with trio.move_on_after(self._stop_s) as scope:
                scope.shield = True
                await self._ended.wait()

    def _main(self) -> None:
        import asyncio  # here, in the thread: most nodes pay for it after they already serve

        async def until_stopped() -> None:
            self._stopping = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            self.to_trio(self._ready.set)
            if self._wanted:  # cleared before `aclose` looks for the event, so one of the two sees the other
                await self._stopping.wait()

        try:
            asyncio.run(until_stopped())
        finally:
            self.to_trio(self._ended.set)

    def to_trio(self, function: Callable[[], object]) -> None:
        """From the loop's thread: have trio call this soon. Dropped where trio has ended."""
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    async def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """From trio: run a coroutine in the loop and return its result or raise its exception.

        Cancelling cancels the coroutine too, without waiting for its end.

        Raises:
            trio.ClosedResourceError: the loop ended first.
        """
        import asyncio

        if self._loop is None:
            raise trio.ClosedResourceError("the loop is not running")
        loop, done = self._loop, trio.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(loop.create_task(function()))
            tasks[0].add_done_callback(lambda _: self.to_trio(done.set))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        try:
            loop.call_soon_threadsafe(start)
            await done.wait()
        except RuntimeError:
            raise trio.ClosedResourceError("the loop has ended") from None
        except trio.Cancelled:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel)
            raise
        try:
            return tasks[0].result()
        except asyncio.CancelledError:
            raise trio.ClosedResourceError("the loop is ending") from None
