"""What the tests of the executor share: a node without a network, whose reports are collected."""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import blake3
import psutil
import pytest
import trio

from p2premap.errors import PeerUnreachable
from p2premap.ids import Digest, JobId, NodeId
from p2premap.node import process, watch
from p2premap.node.blobs import BlobStore
from p2premap.node.bulk import BULK
from p2premap.node.executor import Executor
from p2premap.node.gangs import Gangs
from p2premap.node.secret import ClusterSecret
from p2premap.node.staging import Stager
from p2premap.ports import FrameStream
from p2premap.tasks.events import AttemptGoesOn, AttemptWaits, RunBatch, SlotReported
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Limits, Outcome, Source, StageId
from p2premap.tasks.meeting import Meeting
from p2premap.wire import Frame, FrameDecoder, Message, encode_frame
from tests.cluster import short_home

ME = NodeId(b"m" * 16)
JOB = JobId(b"j" * 16)
STAGE = StageId(0, b"")
RUNTIME = "exercise:Exercise"
UNLIMITED = Limits()
LIMITED = Limits(time_s=3_600.0)
"""See `Bench.run_out`."""


async def nobody(node: NodeId) -> FrameStream:
    raise PeerUnreachable("there is no network here")


class Bench:
    """An executor, what it reported, and shorthands."""

    def __init__(
        self, state: Path, open_bulk: Callable[[NodeId], Awaitable[FrameStream]] = nobody, doors: Path | None = None
    ) -> None:
        self.doors = doors or state
        self.state = state
        self.blobs = BlobStore(state / "blobs")
        self.stager = Stager(me=ME, blobs=self.blobs, open_bulk=open_bulk, neighbour_blobs=lambda node: None)
        self.gangs = Gangs(
            me=ME,
            secrets=lambda: (ClusterSecret(bytes(32)),),
            directory=lambda: self.doors,
            addresses_of=lambda node: (),
            is_neighbour=lambda node: True,
        )
        self.executor = Executor(
            state=state, blobs=self.blobs, stager=self.stager, deliver=self._deliver, table=self.gangs.table
        )
        self.reports: list[SlotReported] = []
        self.waits: list[AttemptWaits | AttemptGoesOn] = []
        self.on_report: Callable[[SlotReported], object] = lambda report: None
        self._news = trio.Event()
        self._numbers = itertools.count(1)
        self.last = 0
        """The number of the last batch."""
        self.ahead_s = 0.0
        """Of the machine's clock, for limits of time."""

    def monotonic(self) -> float:
        """The time by which limits are judged."""
        return time.monotonic() + self.ahead_s

    async def run_out(self, sign: Path) -> None:
        """Once a worker has made this file, the time of what is `LIMITED` is over; not of what runs after it."""
        await exists(sign)
        self.ahead_s = 2 * LIMITED.time_s

    def _deliver(self, report: SlotReported | AttemptWaits | AttemptGoesOn) -> None:
        if isinstance(report, SlotReported):
            self.reports.append(report)
            if any(end.outcome is Outcome.TIME_LIMIT for end in report.ends):
                self.ahead_s = 0.0
            self.on_report(report)
        else:
            self.waits.append(report)
        self._news.set()
        self._news = trio.Event()

    def code(self, bundle: bytes = b"code") -> Source:
        ref = self.blobs.put(bundle)
        return Source(digest=ref.digest, start=0, end=ref.size, holders=(ME,), blob=ref.digest)

    def batch(
        self,
        *calls: str,
        slot: int = 0,
        job: JobId = JOB,
        bundle: bytes = b"code",
        limits: Limits = UNLIMITED,
        sources: tuple[Source, ...] = (),
        first: int = 0,
        runtime: str = RUNTIME,
        meeting: Meeting | None = None,
    ) -> RunBatch:
        self.last = next(self._numbers)
        return RunBatch(
            slot=slot,
            batch=self.last,
            job=job,
            stage=STAGE,
            runtime=runtime,
            function="f",
            code=self.code(bundle),
            limits=limits,
            attempts=tuple(
                AttemptSpec(task=task, attempt=0, params=call.encode(), sources=sources)
                for task, call in enumerate(calls, first)
            ),
            meeting=meeting,
        )

    async def news(self) -> None:
        """Wait for the next report."""
        await self._news.wait()

    async def over(self, count: int = 1) -> None:
        """Wait until so many batches have been over."""
        while sum(report.batch_over for report in self.reports) < count:
            await self.news()

    async def ends(self, *calls: str, **options) -> list[AttemptEnd]:
        """Run one batch; its ends, by task."""
        self.reports.clear()
        batch = self.batch(*calls, **options)
        self.executor.perform(batch)
        await self.over()
        ends = [end for report in self.reports for end in report.ends]
        assert len(ends) == len(calls), "every attempt is answered exactly once"
        assert [report.batch_over for report in self.reports].index(True) == len(self.reports) - 1
        return sorted(ends, key=lambda end: end.task)

    async def end(self, call: str, **options) -> AttemptEnd:
        """Run one attempt."""
        (end,) = await self.ends(call, **options)
        return end


@asynccontextmanager
async def bench(state: Path, *, open_bulk: Callable[[NodeId], Awaitable[FrameStream]] = nobody) -> AsyncIterator[Bench]:
    """A running executor."""
    with short_home() as doors, pytest.MonkeyPatch.context() as patch:
        made = Bench(state, open_bulk, Path(doors))
        patch.setattr(watch, "time", made)
        patch.setattr(process, "_ENDING_S", 60.0)  # a supervisor that has not run for seconds is not stuck
        async with trio.open_nursery() as nursery:
            await nursery.start(made.executor.run)
            with trio.fail_after(100):
                yield made
            nursery.cancel_scope.cancel()


def supervisors() -> list[int]:
    """Of worker processes of this process; nodes that it has started have their own."""
    return [child.pid for child in psutil.Process().children() if "p2premap-super" in name_of(child.pid)]


def name_of(pid: int) -> str:
    """What the process calls itself; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def exists(path: Path) -> None:
    """Wait until a worker has made this file."""
    await until(path.exists)


def found(directory: Path, pattern: str) -> list[Path]:
    """What lies there now."""
    return sorted(directory.glob(pattern))


async def gone(pid: int) -> None:
    """Wait until there is no such process (a zombie counts as gone)."""
    await until(lambda: not alive(pid))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nothing tells us of: what other processes do."""
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether there is such a process (a zombie does not count)."""
    if sys.platform != "linux":
        return psutil.pid_exists(pid)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def file_source(path: Path, start: int = 0, end: int | None = None, *holders: NodeId) -> Source:
    data = path.read_bytes()
    end = len(data) if end is None else end
    return Source(
        digest=Digest(blake3.blake3(data[start:end]).digest()),
        start=start,
        end=end,
        holders=holders or (ME,),
        path=str(path),
        mtime_ns=path.stat().st_mtime_ns,
    )


class MemoryStream:
    """A `p2premap.ports.FrameStream` in memory, over encoded bytes."""

    peer = None

    def __init__(self, out: trio.MemorySendChannel[bytes], into: trio.MemoryReceiveChannel[bytes]) -> None:
        self._out = out
        self._in = into
        self._decoder = FrameDecoder(BULK)
        self._frames: deque[Frame] = deque()

    async def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        try:
            await self._out.send(encode_frame(BULK, message, payload))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise PeerUnreachable("the stream is broken") from None

    async def receive(self) -> Frame | None:
        while not self._frames:
            try:
                self._frames.extend(self._decoder.feed(await self._in.receive()))
            except trio.EndOfChannel:
                return None
            except trio.ClosedResourceError:
                raise PeerUnreachable("the stream is closed") from None
        return self._frames.popleft()

    async def aclose(self) -> None:
        self.break_off()

    def finish(self) -> None:
        """Say nothing more, but go on listening."""
        self._out.close()

    def break_off(self) -> None:
        self._out.close()
        self._in.close()


def stream_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a stream."""
    one_out, two_in = trio.open_memory_channel[bytes](8)
    two_out, one_in = trio.open_memory_channel[bytes](8)
    return MemoryStream(one_out, one_in), MemoryStream(two_out, two_in)
