"""Each way by which a source comes to hand, with real files and streams in memory."""

from __future__ import annotations

import os
from pathlib import Path

import blake3
import pytest
import trio

from p2premap.errors import PeerUnreachable
from p2premap.ids import Digest, NodeId
from p2premap.node.blobs import BlobStore, StoreUnwritable
from p2premap.node.bulk import AllowedFiles, BulkService, Piece
from p2premap.node.staging import SourceLost, Stager
from p2premap.ports import FrameStream
from p2premap.tasks.job import Outcome, Source
from tests.node.slots_house import JOB, ME, MemoryStream, bench, file_source, found, stream_pair, until

pytestmark = pytest.mark.trio

HOME = NodeId(b"h" * 16)
OTHER = NodeId(b"o" * 16)


class Cluster:
    """Other nodes that serve bulk streams, and a stager that can reach them."""

    def __init__(self, root: Path, nursery: trio.Nursery, *, idle_s: float = 30.0) -> None:
        self.root = root
        self.stores = {node: BlobStore(root / node.hex()) for node in (HOME, OTHER)}
        self.files = {node: AllowedFiles() for node in (HOME, OTHER)}
        self.mine = BlobStore(root / "mine")
        self.down: set[NodeId] = set()
        self.silent: set[NodeId] = set()
        self.opened: list[NodeId] = []
        self.neighbours: dict[NodeId, str] = {}
        self._nursery = nursery
        self.doubted: set[NodeId] = set()
        self.stager = Stager(
            me=ME,
            blobs=self.mine,
            open_bulk=self.open_bulk,
            neighbour_blobs=self.neighbours.get,
            answers=lambda node: node not in self.doubted,
            idle_s=idle_s,
        )

    async def open_bulk(self, node: NodeId) -> FrameStream:
        self.opened.append(node)
        if node in self.down:
            raise PeerUnreachable("it is down")
        ours, theirs = stream_pair()
        if node not in self.silent:
            service = BulkService(blobs=self.stores[node], files=self.files[node])
            self._nursery.start_soon(service.serve_bulk, theirs)
        return ours

    def blob(self, data: bytes, *holders: NodeId, start: int = 0, end: int | None = None) -> Source:
        """A source in the stores of these holders."""
        ref = BlobStore(self.root / "scratch").put(data)
        for holder in holders:
            (self.mine if holder == ME else self.stores[holder]).put(data)
        end = len(data) if end is None else end
        digest = Digest(blake3.blake3(data[start:end]).digest())
        return Source(digest=digest, start=start, end=end, holders=holders, blob=ref.digest)


@pytest.fixture
def cluster(tmp_path: Path, nursery: trio.Nursery) -> Cluster:
    return Cluster(tmp_path, nursery)


def content(segment) -> bytes:
    with open(segment.path, "rb") as file:
        file.seek(segment.start)
        return file.read(segment.end - segment.start)


async def test_a_file_with_the_same_time_is_read_where_it_is(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    segment = await cluster.stager.bring(file_source(path, 4, 7, HOME))
    assert segment == (str(path), 4, 7, segment.digest, False, str(path), 0)
    assert cluster.opened == []


async def test_a_blob_of_our_own_is_read_where_it_is(cluster: Cluster) -> None:
    source = cluster.blob(b"abcdef", ME, start=2, end=4)
    segment = await cluster.stager.bring(source)
    assert (content(segment), segment.path, segment.name) == (b"cd", cluster.mine.path(source.blob), "")


async def test_a_neighbours_blob_is_opened_as_a_file(cluster: Cluster) -> None:
    source = cluster.blob(b"abcdef", OTHER, start=2, end=4)
    cluster.neighbours[OTHER] = cluster.stores[OTHER].directory
    segment = await cluster.stager.bring(source)
    assert segment.path.startswith(cluster.stores[OTHER].directory)
    assert (content(segment), segment.verified, cluster.opened) == (b"cd", False, [])


async def test_a_file_elsewhere_is_fetched_and_kept(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    source = file_source(path, 4, 7, HOME)
    cluster.files[HOME].allow_files(JOB, [str(path)])
    cluster.stager.distrust(source.digest)  # as if this machine had no such file
    segment = await cluster.stager.bring(source)
    assert (content(segment), segment.verified, segment.name, segment.shift) == (b"two", True, str(path), 4)
    assert segment.path == cluster.mine.path(source.digest)
    again = await cluster.stager.bring(source)
    assert (again.path, again.shift) == (segment.path, 4), "what was fetched once is at hand"
    assert cluster.stager.statistics().fetched == 1


async def test_holders_are_asked_in_order_until_one_gives_it(cluster: Cluster) -> None:
    source = cluster.blob(os.urandom(3 << 20), OTHER)
    source = Source(digest=source.digest, start=0, end=source.end, holders=(HOME, ME, OTHER), blob=source.blob)
    segment = await cluster.stager.bring(source)
    assert blake3.blake3(content(segment)).digest() == source.digest
    assert cluster.opened == [HOME, OTHER]


async def test_a_source_that_nobody_has_is_lost_with_every_reason(cluster: Cluster) -> None:
    source = cluster.blob(b"abc")
    source = Source(digest=source.digest, start=0, end=3, holders=(HOME, OTHER, ME), blob=source.blob)
    cluster.down.add(HOME)
    with pytest.raises(SourceLost, match="can be read nowhere") as lost:
        await cluster.stager.bring(source)
    assert "it is down" in str(lost.value)
    assert "No such file" in str(lost.value)
    assert lost.value.digest == source.digest


async def test_what_does_not_hash_to_its_digest_is_not_taken(cluster: Cluster) -> None:
    source = cluster.blob(b"abc", HOME, OTHER)
    damage(cluster.stores[HOME], source, b"abd")
    segment = await cluster.stager.bring(source)
    assert content(segment) == b"abc"
    assert cluster.opened == [HOME, OTHER]
    assert found(tmp_of(cluster), "*") == []


def damage(store: BlobStore, source: Source, data: bytes) -> None:
    Path(store.path(source.blob)).write_bytes(data)


def tmp_of(cluster: Cluster) -> Path:
    return Path(cluster.mine.directory) / "tmp"


async def test_equal_fetches_at_the_same_time_are_one(cluster: Cluster) -> None:
    source = cluster.blob(os.urandom(3 << 20), OTHER)
    segments = []

    async def bring() -> None:
        segments.append(await cluster.stager.bring(source))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(bring)
    assert len({segment.path for segment in segments}) == 1
    assert cluster.opened == [OTHER]
    assert cluster.stager.statistics().fetched == 1


async def test_streams_are_used_again_and_replaced_when_they_broke(cluster: Cluster) -> None:
    first, second, third = (cluster.blob(text, OTHER) for text in (b"one", b"two", b"three"))
    await cluster.stager.bring(first)
    await cluster.stager.bring(second)
    assert cluster.opened == [OTHER]
    cluster.stager._idle[OTHER].break_off()
    assert content(await cluster.stager.bring(third)) == b"three"
    assert cluster.opened == [OTHER, OTHER]
    await cluster.stager.aclose()


async def test_a_silent_holder_is_given_up(tmp_path: Path, nursery: trio.Nursery) -> None:
    cluster = Cluster(tmp_path, nursery, idle_s=0.05)
    cluster.silent.add(HOME)
    with pytest.raises(SourceLost, match=r"nothing for 0\.05 s"):
        await cluster.stager.bring(cluster.blob(b"abc", HOME))


async def test_a_holder_that_is_taken_for_dead_meanwhile_is_waited_for_no_longer(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """A machine that is cut off says nothing: without gossip's word each source would cost half a minute."""
    cluster = Cluster(tmp_path, nursery, idle_s=600.0)
    cluster.silent.add(HOME)
    source = cluster.blob(b"abc", HOME, OTHER)
    with trio.fail_after(60):
        async with trio.open_nursery() as asking:
            asking.start_soon(cluster.stager.bring, source)
            await until(lambda: cluster.opened == [HOME])
            cluster.stager.lose(HOME)
    assert cluster.opened == [HOME, OTHER]
    assert cluster.mine.get(source.digest) == b"abc"


async def test_holders_in_doubt_are_asked_last(cluster: Cluster) -> None:
    cluster.doubted.add(HOME)
    await cluster.stager.bring(cluster.blob(b"abc", HOME, OTHER))
    assert cluster.opened == [OTHER]


async def test_no_room_for_a_fetched_source(cluster: Cluster) -> None:
    source = cluster.blob(b"abc", OTHER)
    tmp_of(cluster).rmdir()
    with pytest.raises(StoreUnwritable):
        await cluster.stager.bring(source)


async def test_damaged_code_is_fetched_again(cluster: Cluster) -> None:
    source = cluster.blob(b"code", OTHER, ME)
    damage(cluster.mine, source, b"c0de")
    segment = await cluster.stager.bring_code(source)
    assert (content(segment), segment.verified) == (b"code", True)
    assert await cluster.stager.bring_code(source) == segment
    assert cluster.opened == [OTHER]


async def test_an_empty_source_needs_nobody(cluster: Cluster) -> None:
    source = Source(digest=Digest(blake3.blake3(b"").digest()), start=5, end=5, holders=(), path="/no/such/file")
    segment = await cluster.stager.bring(source)
    assert (content(segment), segment.name) == (b"", "/no/such/file")


async def test_a_path_that_no_file_can_have_is_lost(cluster: Cluster) -> None:
    digest = Digest(blake3.blake3(b"abc").digest())
    with pytest.raises(SourceLost, match="can be read nowhere"):
        await cluster.stager.bring(Source(digest=digest, start=0, end=3, holders=(ME,), path="/a\0b", mtime_ns=1))


async def test_streams_are_closed_when_there_is_no_room(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, theirs = stream_pair()

    async def open_bulk(node: NodeId) -> FrameStream:
        return opened

    monkeypatch.setattr(cluster.stager, "_open_bulk", open_bulk)
    tmp_of(cluster).rmdir()
    with pytest.raises(StoreUnwritable):
        await cluster.stager.bring(cluster.blob(b"abc", OTHER))
    with trio.fail_after(60):
        assert await theirs.receive() is None


async def test_a_stream_that_was_closed_while_it_was_idle_is_replaced(cluster: Cluster) -> None:
    first, second = (cluster.blob(text, OTHER) for text in (b"one", b"two"))
    await cluster.stager.bring(first)
    kept, theirs = stream_pair()
    theirs.finish()
    cluster.stager._idle[OTHER] = kept
    assert content(await cluster.stager.bring(second)) == b"two"
    assert cluster.opened == [OTHER, OTHER]
    await cluster.stager.aclose()


# --- with workers -------------------------------------------------------------------------------------------------


@pytest.fixture
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


@pytest.mark.usefixtures("importable_runtime")
async def test_workers_read_files_and_blobs(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    async with bench(tmp_path / "node") as b:
        blob = b.code(b"four")
        end = await b.end("read", sources=(file_source(path, 0, 3), file_source(path, 4, 7), blob))
        assert (end.outcome, end.value) == (Outcome.DONE, b"one|two|four")


@pytest.mark.usefixtures("importable_runtime")
async def test_a_file_that_changed_under_its_old_time_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    source = file_source(path)
    path.write_bytes(b"one tvo three")
    os.utime(path, ns=(source.mtime_ns, source.mtime_ns))
    async with bench(tmp_path / "node") as b:
        end = await b.end("read", sources=(source,))
        assert (end.outcome, end.missing) == (Outcome.INPUT_LOST, (source.digest,))
        assert "input can be read nowhere (it is not here any more)" in end.error


@pytest.mark.usefixtures("importable_runtime")
async def test_a_wrong_file_at_the_same_path_is_fetched_instead(tmp_path: Path, nursery: trio.Nursery) -> None:
    """This machine has another file under the same path, of the same time and size: the attempt runs again, right."""
    path = tmp_path / "input"
    path.write_bytes(b"one two three")
    source = file_source(path, 0, None, HOME)
    path.write_bytes(b"one tvo three")
    os.utime(path, ns=(source.mtime_ns, source.mtime_ns))

    async def answer(stream: MemoryStream) -> None:
        assert await stream.receive() is not None
        await stream.send(Piece(last=True), b"one two three")

    async def open_bulk(node: NodeId) -> FrameStream:
        ours, theirs = stream_pair()
        nursery.start_soon(answer, theirs)
        return ours

    async with bench(tmp_path / "node", open_bulk=open_bulk) as b:
        ends = await b.ends("read", "echo b", sources=(source,))
        assert [end.outcome for end in ends] == [Outcome.DONE, Outcome.DONE], ends[0].error
        assert ends[0].value == b"one two three"
