"""The same API in trio: what would block is awaited.

::

    async with p2premap.aio.connect() as cluster:
        future = await cluster.submit(half, 7)
        print(await future.result(), await p2premap.aio.gather([future, future]))
        async for result in cluster.map(half, range(1_000_000)):
            ...

A task that is cancelled while it waits for a result leaves the call alone; `Future.cancel` stops it. Inputs of `map`
are taken in a thread. Under asyncio, `asyncio.wrap_future` makes the futures of `p2premap.connect()` awaitable.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from p2premap.client import cluster as blocking
from p2premap.client import connecting
from p2premap.client import future as blocking_future
from p2premap.client.jobs import LOOK_S
from p2premap.client.references import Shared

if TYPE_CHECKING:
    from p2premap.client import handle as blocking_handle
    from p2premap.client.outputparts import OutputPart
    from p2premap.client.shapes import JobShape
    from p2premap.client.vertices import VertexResult
    from p2premap.tasks.job import JobView

T = TypeVar("T")

RESULTS_AT_ONCE: Final = 1_000
"""Results of a job that one turn of a thread reads."""


class Future(Generic[T]):
    """The result of one call; see `p2premap.Future`. `blocking` is that one, such as for an argument of a call."""

    def __init__(self, made: blocking_future.Future[T]) -> None:
        self.blocking = made

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return self.blocking.__reduce__()

    def __repr__(self) -> str:
        return repr(self.blocking)

    def done(self) -> bool:
        """Whether the result is here."""
        return self.blocking.done()

    def cancel(self) -> bool:
        """Have the call not made, or stopped; False if its result is here already."""
        return self.blocking.cancel()

    async def result(self) -> T:
        """What the call returned.

        Raises:
            concurrent.futures.CancelledError: it was cancelled.
            Exception: what the call raised.
        """
        await self.wait()
        return self.blocking.result(0)

    async def wait(self) -> None:
        """Until the result is here, whatever it is."""
        if self.blocking.done():
            await trio.lowlevel.checkpoint()
            return
        here = trio.Event()
        self.blocking.add_done_callback(_soon(here.set))
        await here.wait()


class Job:
    """See `p2premap.Job`, which `blocking` is. Who waits and is cancelled leaves the job alone; `cancel` ends it."""

    def __init__(self, job: blocking_handle.Job) -> None:
        self.blocking = job

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.blocking.__reduce__()

    def __repr__(self) -> str:
        return repr(self.blocking)

    def _repr_html_(self) -> str:
        return self.blocking._repr_html_()

    @property
    def id(self) -> str:
        """See `p2premap.Job.id`."""
        return self.blocking.id

    async def status(self) -> JobShape:
        """See `p2premap.Job.status`."""
        return await trio.to_thread.run_sync(self.blocking.status)

    async def watch(self) -> AsyncIterator[JobShape]:
        """See `p2premap.Job.watch`."""
        views = self.blocking.watch()
        while (view := await _next(views)) is not None:
            yield view

    async def wait(self) -> None:
        """See `p2premap.Job.wait`; time-outs are trio's."""
        while not await trio.to_thread.run_sync(self.blocking.wait, LOOK_S):
            pass

    async def result(self) -> list[Any]:
        """See `p2premap.Job.result`."""
        await self.wait()
        return await trio.to_thread.run_sync(self.blocking.result)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """As iterating over `p2premap.Job`."""
        async for result in self.results():
            yield result

    async def results(self, of: str = "") -> AsyncIterator[Any]:
        """See `p2premap.Job.results`."""
        await self.wait()
        found = await trio.to_thread.run_sync(self.blocking.results, of)
        while some := await trio.to_thread.run_sync(_some, found):
            for result in some:
                yield result

    async def parts(self) -> list[OutputPart]:
        """See `p2premap.Job.parts`; to read them blocks."""
        return await trio.to_thread.run_sync(self.blocking.parts)

    async def save(self, place: str | PathLike[str], *, overwrite: bool = False) -> None:
        """See `p2premap.Job.save`."""
        await self.wait()
        await trio.to_thread.run_sync(partial(self.blocking.save, place, overwrite=overwrite))

    async def logs(self) -> str:
        """See `p2premap.Job.logs`."""
        return await trio.to_thread.run_sync(self.blocking.logs)

    async def cancel(self) -> bool:
        """See `p2premap.Job.cancel`."""
        return await trio.to_thread.run_sync(self.blocking.cancel)


def _some(results: Iterator[Any]) -> list[Any]:
    return list(islice(results, RESULTS_AT_ONCE))


class Cluster:
    """See `p2premap.Cluster`, which `blocking` is."""

    def __init__(self, connected: blocking.Cluster) -> None:
        self.blocking = connected

    def __repr__(self) -> str:
        return repr(self.blocking)

    @property
    def job_id(self) -> str:
        """See `p2premap.Cluster.job_id`."""
        return self.blocking.job_id

    @property
    def slots(self) -> int:
        """See `p2premap.Cluster.slots`."""
        return self.blocking.slots

    async def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """See `p2premap.Cluster.submit`."""
        return Future(await trio.to_thread.run_sync(partial(self.blocking.submit, fn, *args, **kwargs)))

    async def put(self, value: object) -> Shared:
        """See `p2premap.Cluster.put`."""
        return await trio.to_thread.run_sync(self.blocking.put, value)

    async def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> AsyncIterator[T]:
        """See `p2premap.Cluster.map`; time-outs are trio's."""
        begin = partial(self.blocking.chunks, fn, *iterables, chunksize=chunksize, ordered=ordered)
        results, chunks = await trio.to_thread.run_sync(begin)
        try:
            while (chunk := await _next(chunks)) is not None:
                for result in chunk:
                    yield result
        finally:
            results.give_up()

    async def job(self, id: str) -> Job:
        """See `p2premap.Cluster.job`."""
        return Job(await trio.to_thread.run_sync(self.blocking.job, id))

    async def map_reduce(
        self,
        file: str | PathLike[str] | None = None,
        inputs: str | PathLike[str] | Iterable[str | PathLike[str]] = (),
        **given: Any,  # noqa: ANN401  (see there)
    ) -> Job:
        """See `p2premap.Cluster.map_reduce`."""
        return Job(await trio.to_thread.run_sync(partial(self.blocking.map_reduce, file, inputs, **given)))

    async def run_vertex(
        self,
        program: Any,  # noqa: ANN401  (see there)
        inputs: Any,  # noqa: ANN401
        *,
        partitions: int = 0,
        **options: Any,  # noqa: ANN401
    ) -> VertexResult:
        """See `p2premap.Cluster.run_vertex`. If it is cancelled, so is the job."""

        def seen(view: JobView) -> None:
            trio.from_thread.check_cancelled()

        run = partial(self.blocking.run_vertex, program, inputs, partitions=partitions, seen=seen, **options)
        return await trio.to_thread.run_sync(run)


async def _next(found: Iterator[T]) -> T | None:
    return await trio.to_thread.run_sync(next, found, None, abandon_on_cancel=True)


@asynccontextmanager
async def connect(node: str = "", **options: Any) -> AsyncIterator[Cluster]:  # noqa: ANN401  (those of the other)
    """See `p2premap.connect`."""
    connected = await trio.to_thread.run_sync(partial(connecting.connect, node, **options))
    try:
        yield Cluster(connected)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(connected.__exit__, *sys.exc_info())


async def as_completed(fs: Iterable[Future[T]]) -> AsyncIterator[Future[T]]:
    """The futures as they are ready."""
    waited = list(dict.fromkeys(fs))
    send, receive = trio.open_memory_channel[Future[T]](math.inf)
    for future in waited:
        future.blocking.add_done_callback(_soon(partial(send.send_nowait, future)))
    for _ in waited:
        yield await receive.receive()


async def gather(fs: Iterable[Future[T]]) -> list[T]:
    """The results, in order.

    Raises:
        Exception: what a call raised, the first in order.
    """
    return [await future.result() for future in fs]


def _soon(tell: Callable[[], object]) -> Callable[[futures.Future[Any]], None]:
    """For `add_done_callback`, whose callbacks come in any thread."""
    token = trio.lowlevel.current_trio_token()

    def callback(_: futures.Future[Any]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(tell)

    return callback
