"""Brings what attempts read to this machine, as local `Segment`s.

A source is looked for in this order, the cheapest first:

1. a file under the same path with the same modification time (this is the home node, or they share a file system);
2. a blob, or an earlier fetched copy, in this node's own store;
3. a blob in the store of another node on this machine, opened as a file;
4. its holders, one after the other, over a bulk stream, into this node's store.

Only what was fetched has been checked when it is handed out. The rest is checked by whoever reads it, while reading
(`Context.read`): where that fails, `distrust` has the shortcuts skipped for that source, and the next `bring` fetches.
"""

from __future__ import annotations

import math
import os
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec
import trio

from p2premap.errors import P2PRemapError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import Digest, NodeId
from p2premap.node.blobs import BlobCorrupt, BlobError, BlobStore, Writer, blob_path
from p2premap.node.bulk import SourceGone, read_source
from p2premap.node.keep import keep_local
from p2premap.ports import FrameStream
from p2premap.tasks.job import Source
from p2premap.worker.runtime import Segment

_DISTRUSTED_MAX: Final = 10_000
"""The oldest are forgotten: at worst, one more attempt finds the same damage."""
_CODES_MAX: Final = 1_000
_CODE_SEEN_S: Final = 1.0


class SourceLost(P2PRemapError):
    """No holder could give the source. Definite for now: a holder may come back.

    Args:
        message: one sentence with every holder's reason.
        digest: of the source.
    """

    def __init__(self, message: str, digest: Digest) -> None:
        super().__init__(message)
        self.digest = digest


class StagerStatistics(msgspec.Struct, frozen=True):
    """How sources came to hand so far, and fetches under way."""

    found: int
    fetched: int
    fetched_bytes: int
    lost: int
    fetching: int


class Stager:
    """Brings sources to hand.

    Args:
        me: this node; it is never asked over the network.
        blobs: this node's store; fetched sources go there too.
        open_bulk: `p2premap.ports.Transport.open_bulk`.
        neighbour_blobs: the blob directory of a node on this machine; None for any other.
        answers: whether a node is beyond doubt now; the others are asked last.
        fetches_max: how many sources are fetched at the same time.
        idle_s: a holder that sends nothing for so long is given up.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        blobs: BlobStore,
        open_bulk: Callable[[NodeId], Awaitable[FrameStream]],
        neighbour_blobs: Callable[[NodeId], str | None],
        answers: Callable[[NodeId], bool] = lambda node: True,
        fetches_max: int = 8,
        idle_s: float = 30.0,
    ) -> None:
        self._me = me
        self._blobs = blobs
        self._open_bulk = open_bulk
        self._neighbour_blobs = neighbour_blobs
        self._answers = answers
        self._idle_s = idle_s
        self._under_way: dict[NodeId, set[trio.CancelScope]] = {}
        self._fetches = trio.CapacityLimiter(fetches_max)
        self._readers = trio.CapacityLimiter(4)
        self._fetching: dict[Digest, trio.Event] = {}
        self._distrusted: OrderedDict[Digest, None] = OrderedDict()
        self._codes: dict[Source, Segment] = {}
        self._codes_seen: dict[Source, float] = {}
        self._idle: dict[NodeId, FrameStream] = {}
        self._found = self._fetched = self._fetched_bytes = self._lost = 0

    def statistics(self) -> StagerStatistics:
        """A snapshot."""
        return StagerStatistics(self._found, self._fetched, self._fetched_bytes, self._lost, len(self._fetching))

    async def locate(self, sources: Iterable[Source]) -> dict[Source, Segment]:
        """Those of the sources that are at hand, without the network."""
        wanted = dict.fromkeys(sources)
        if not wanted:
            return {}
        neighbours = {holder: self._neighbour_blobs(holder) for source in wanted for holder in source.holders}
        distrusted = {source.digest for source in wanted if source.digest in self._distrusted}
        located = await trio.to_thread.run_sync(
            self._locate_all, wanted, neighbours, distrusted, limiter=self._readers, abandon_on_cancel=True
        )
        self._found += len(located)
        return located

    async def bring(self, source: Source) -> Segment:
        """The source, fetched if need be; equal fetches at the same time are one.

        Raises:
            SourceLost: no holder could give it.
            StoreUnwritable: there is no room for it here.
        """
        while True:
            if located := await self.locate((source,)):
                return located[source]
            if (other := self._fetching.get(source.digest)) is not None:
                await other.wait()
                continue
            done = self._fetching[source.digest] = trio.Event()
            try:
                async with self._fetches:
                    return await self._fetch(source)
            finally:
                del self._fetching[source.digest]
                done.set()

    def code_at_hand(self, source: Source) -> Segment | None:
        """A job's bundle, if it has been brought before and is still there, as of a moment ago."""
        known = self._codes.get(source)
        if known is None or trio.current_time() < self._codes_seen.get(source, -math.inf) + _CODE_SEEN_S:
            return known
        if _size(known.path) < 0:
            return None
        self._codes_seen[source] = trio.current_time()
        return known

    async def bring_code(self, source: Source) -> Segment:
        """A job's bundle, checked once, so that a worker need not doubt it.

        Raises:
            SourceLost, StoreUnwritable: as `bring`.
        """
        if (known := self.code_at_hand(source)) is not None:
            return known
        segment = await self.bring(source)
        if not segment.verified:
            try:
                await trio.to_thread.run_sync(self._blobs.check, source.digest, limiter=self._readers)
            except BlobError:
                # not in our store (a neighbour's), or damaged there and now removed: one of our own is safer
                self.distrust(source.digest)
                segment = await self.bring(source)
        while len(self._codes) >= _CODES_MAX:
            del self._codes[oldest := next(iter(self._codes))]
            self._codes_seen.pop(oldest, None)
        self._codes[source] = segment = segment._replace(verified=True)
        return segment

    async def keep(self, source: Source, *, durable: bool = False) -> None:
        """Have the source whole and checked in this node's own store, so that it can be handed on from here.

        Args:
            durable: return only when it would survive a power cut.

        Raises:
            SourceLost: no holder could give it.
            StoreUnwritable: there is no room for it here.
        """
        while (other := self._fetching.get(source.digest)) is not None:
            await other.wait()
        done = self._fetching[source.digest] = trio.Event()
        try:
            neighbours = [directory for h in source.holders if (directory := self._neighbour_blobs(h)) is not None]
            keep = partial(self._keep_local, source, neighbours, durable=durable)
            kept = await trio.to_thread.run_sync(keep, limiter=self._readers)
            if not kept:
                async with self._fetches:
                    await self._fetch(source, durable=durable)
        finally:
            del self._fetching[source.digest]
            done.set()

    def _keep_local(self, source: Source, neighbours: Iterable[str], *, durable: bool) -> bool:
        return keep_local(self._blobs, source, neighbours, durable=durable)

    def is_neighbour(self, node: NodeId) -> bool:
        """Whether the node is on this machine."""
        return self._neighbour_blobs(node) is not None

    def distrust(self, digest: Digest) -> None:
        """What was handed out as this source was something else: no shortcuts for it any more."""
        self._distrusted[digest] = None
        while len(self._distrusted) > _DISTRUSTED_MAX:
            self._distrusted.popitem(last=False)

    async def aclose(self) -> None:
        """Close the streams that were kept for the next fetch."""
        while self._idle:
            await self._idle.popitem()[1].aclose()

    # --- at hand (in a thread) ---

    def _locate_all(
        self, sources: Iterable[Source], neighbours: Mapping[NodeId, str | None], distrusted: set[Digest]
    ) -> dict[Source, Segment]:
        located = {}
        for source in sources:
            segment = self._locate(source, neighbours, doubtful=source.digest in distrusted)
            if segment is not None:
                located[source] = segment
        return located

    def _locate(self, source: Source, neighbours: Mapping[NodeId, str | None], *, doubtful: bool) -> Segment | None:
        if source.size == 0:
            return Segment(os.devnull, 0, 0, source.digest, False, source.path)
        if doubtful:
            return self._locate_checked(source)
        if source.blob is None:
            if source.path and _same_file(source):
                return Segment(source.path, source.start, source.end, source.digest, False, source.path)
        else:
            if source.blob == source.digest and self._blobs.vouches(source.blob):
                return Segment(self._blobs.path(source.blob), 0, source.end, source.digest, True, "")
            for directory in (self._blobs.directory, *map(neighbours.get, source.holders)):
                if directory is not None and _size(path := blob_path(directory, source.blob)) >= source.end:
                    return Segment(path, source.start, source.end, source.digest, False, "")
        return self._fetched_copy(source)

    def _locate_checked(self, source: Source) -> Segment | None:
        for digest in {source.blob or source.digest, source.digest}:
            try:
                self._blobs.check(digest)
            except BlobError:
                continue
            if digest == source.digest:
                return self._fetched_copy(source)
        return None

    def _fetched_copy(self, source: Source) -> Segment | None:
        path = self._blobs.path(source.digest)
        if _size(path) != source.size:
            return None
        return Segment(path, 0, source.size, source.digest, False, source.path, source.start)

    # --- from others ---

    async def _fetch(self, source: Source, *, durable: bool = False) -> Segment:
        reasons = []
        for holder in sorted(source.holders, key=lambda node: not self._answers(node)):  # else in their order
            if holder == self._me:
                reasons.append("it is not here any more")
                continue
            try:
                await self._fetch_from(holder, source, durable=durable)
            except (SourceGone, PeerUnreachable, RemoteProtocolError, BlobCorrupt) as error:
                reasons.append(f"from {holder.hex()[:8]}: {str(error).rstrip('.')}")
                continue
            self._fetched += 1
            self._fetched_bytes += source.size
            path = self._blobs.path(source.digest)
            return Segment(path, 0, source.size, source.digest, True, source.path, source.start)
        self._lost += 1
        what = source.path or f"blob {source.digest.hex()[:16]}"
        raise SourceLost(f"{what} can be read nowhere ({'; '.join(reasons) or 'nobody holds it'}).", source.digest)

    async def _fetch_from(self, holder: NodeId, source: Source, *, durable: bool) -> None:
        """Fetch into our store, unless the holder is given up (`lose`) meanwhile.

        Raises:
            SourceGone, PeerUnreachable, RemoteProtocolError, BlobCorrupt: not from this holder.
            StoreUnwritable: there is no room.
        """
        under_way = self._under_way.setdefault(holder, set())
        with trio.CancelScope() as scope:
            under_way.add(scope)
            try:
                await self._fetch_over_any(holder, source, durable=durable)
                return
            finally:
                under_way.discard(scope)
                if not under_way:
                    self._under_way.pop(holder, None)
        raise PeerUnreachable("it does not answer any more.")

    def lose(self, node: NodeId) -> None:
        """The node does not answer: nobody waits for it any longer."""
        for scope in self._under_way.get(node, ()):
            scope.cancel()

    async def _fetch_over_any(self, holder: NodeId, source: Source, *, durable: bool) -> None:
        kept = self._idle.pop(holder, None)
        if kept is not None:
            try:
                await self._fetch_over(kept, holder, source, durable=durable)
            except PeerUnreachable:
                pass  # it was closed while it was idle
            else:
                return
        stream = None
        with trio.move_on_after(self._idle_s):
            stream = await self._open_bulk(holder)
        if stream is None:
            raise PeerUnreachable(f"it did not answer within {self._idle_s:g} s.")
        await self._fetch_over(stream, holder, source, durable=durable)

    async def _fetch_over(self, stream: FrameStream, holder: NodeId, source: Source, *, durable: bool) -> None:
        writer: Writer | None = None
        whole = False
        try:
            writer = await trio.to_thread.run_sync(partial(self._blobs.writer, durable=durable))
            with trio.CancelScope(deadline=trio.current_time() + self._idle_s) as scope:

                async def take(data: bytes, write: Callable[[bytes], object] = writer.write) -> None:
                    await trio.to_thread.run_sync(write, data)
                    scope.deadline = trio.current_time() + self._idle_s

                await read_source(stream, source, take)
                await trio.to_thread.run_sync(writer.finish, source.digest)
                whole = True
            if not whole:
                raise PeerUnreachable(f"it sent nothing for {self._idle_s:g} s.")
        finally:
            await self._put_back(stream, holder, writer, whole=whole)

    async def _put_back(self, stream: FrameStream, holder: NodeId, writer: Writer | None, *, whole: bool) -> None:
        with trio.CancelScope(shield=True):
            if writer is not None:
                await trio.to_thread.run_sync(writer.discard)
            if whole and holder not in self._idle:
                self._idle[holder] = stream
            else:
                await stream.aclose()


def _same_file(source: Source) -> bool:
    try:
        status = os.stat(source.path)
    except (OSError, ValueError):  # ValueError: no file can have this name
        return False
    return stat.S_ISREG(status.st_mode) and status.st_mtime_ns == source.mtime_ns and status.st_size >= source.end


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1
