"""Large values between programs and real nodes: torn files, clients that die, bounded memory, and what goes at last."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import blake3
import psutil
import pytest

import p2premap
from p2premap.client.cluster import Cluster
from p2premap.client.connection import Connection, RequestRefused, local
from p2premap.client.private import PrivateCluster
from p2premap.client.puts import fetch, put_pieces
from p2premap.control.answers import Done
from p2premap.control.data import BlobKept, FileGrew, FileStarted, FinishFile, StartFile
from p2premap.control.nodes import GetStatus, Status
from p2premap.ids import RequestId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.calls_refs import BlobAt
from tests.cluster import environment, eventually
from tests.node.test_desk import from_another_machine

numpy = pytest.importorskip("numpy")

SIZE = 40_000_000


@pytest.fixture
def line(three_nodes: PrivateCluster) -> Iterator[Connection]:
    with local(paths=three_nodes.paths) as line:
        yield line


def start(line: Connection, size: int) -> tuple[RequestId, Path]:
    started = line.ask(lambda n: StartFile(request=n, size=size), FileStarted)
    return started.request, Path(started.path)


def store_of(path: Path) -> BlobStore:
    """The store of which this is a temporary file."""
    return BlobStore(path.parent.parent)


def test_a_large_value_goes_in_as_a_file_and_out_as_one_in_bounded_memory(line: Connection) -> None:
    status = line.ask(lambda n: GetStatus(request=n), Status)
    daemon = psutil.Process(status.me.pid)
    data = memoryview(numpy.random.default_rng().bytes(SIZE))
    peak = _peak(daemon)
    ref, kept = put_pieces(line, [data[:7], data[7:1_000_000], data[1_000_000:]])
    assert ref.digest == blake3.blake3(data).digest()
    assert kept == data
    back = fetch(line, BlobAt(ref.digest, ref.size, line.welcome.node))
    assert back == data
    back[0] ^= 1
    assert fetch(line, BlobAt(ref.digest, ref.size, line.welcome.node)) == data, "the file stays as it is"
    assert _peak(daemon) - peak < SIZE / 4


def _peak(process: psutil.Process) -> int:
    for row in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if row.startswith("VmHWM:"):
            return int(row.split()[1]) << 10
    pytest.skip("this system does not tell")


def test_a_file_that_was_torn_is_refused_and_can_be_sent_again(line: Connection) -> None:
    number, path = start(line, 3_000_000)
    path.write_bytes(bytes(2_999_999))
    with pytest.raises(RequestRefused, match="3000000 bytes was announced, and 2999999 are there"):
        line.ask(lambda n: FinishFile(request=n, file=number, size=3_000_000), BlobKept)
    assert not path.exists()
    assert not store_of(path).has(blake3.blake3(bytes(2_999_999)).digest())  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match="No file number"):
        line.ask(lambda n: FinishFile(request=n, file=number, size=3_000_000), BlobKept)
    assert put_pieces(line, [bytes(3_000_000)])[0].digest == blake3.blake3(bytes(3_000_000)).digest()


def test_what_is_written_is_what_the_blob_is_called(line: Connection) -> None:
    """Also where the value changed while it was written: what the client believes has no part in it."""
    number, path = start(line, 2_000_000)
    path.write_bytes(b"1" * 2_000_000)
    kept = line.ask(lambda n: FinishFile(request=n, file=number, size=2_000_000), BlobKept)
    assert kept.digest == blake3.blake3(b"1" * 2_000_000).digest()
    again = line.ask(lambda n: StartFile(request=n, size=2_000_000, digest=kept.digest), BlobKept)
    assert again.digest == kept.digest, "it is there already"


def test_a_file_is_read_while_it_is_written_in_any_order_of_news(line: Connection) -> None:
    data = os.urandom(3_000_000)
    number, path = start(line, len(data))
    with path.open("r+b") as file:
        for said in (1_000_000, 500_000, 2_000_000, 5_000_000):
            file.write(data[file.tell() : max(said, file.tell())])
            file.flush()
            line.send(lambda n, said=said: FileGrew(request=n, file=number, size=said))  # type: ignore[misc]
    kept = line.ask(lambda n: FinishFile(request=n, file=number, size=len(data)), BlobKept)
    assert kept.digest == blake3.blake3(data).digest()
    line.send(lambda n: FileGrew(request=n, file=number, size=1))
    assert line.ask(lambda n: GetStatus(request=n), Status).me.node == line.welcome.node, "news come too late"


def test_the_file_of_a_client_that_dies_goes_with_it(three_nodes: PrivateCluster) -> None:
    script = (
        "import os, sys\n"
        "from p2premap.client.connection import local\n"
        "from p2premap.control.data import FileStarted, StartFile\n"
        "line = local()\n"
        "started = line.ask(lambda n: StartFile(request=n, size=5_000_000), FileStarted)\n"
        "open(started.path, 'r+b').write(bytes(2_000_000))\n"
        "print(started.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    home = environment(three_nodes.home)
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, env=home) as client:
        assert client.stdout is not None
        path = Path(client.stdout.readline().decode().strip())
        assert path.exists()
        client.kill()
    eventually(lambda: not path.exists())


def test_a_client_elsewhere_is_refused_files_and_sends_frames(three_nodes: PrivateCluster) -> None:
    with from_another_machine(three_nodes) as line:
        assert not line.files
        with pytest.raises(RequestRefused, match="on this machine"):
            line.ask(lambda n: StartFile(request=n, size=2_000_000), Done)
        data = os.urandom(2_000_000)
        ref, kept = put_pieces(line, [data[:5], data[5:]])
        assert (ref.digest, kept) == (blake3.blake3(data).digest(), data)
        assert fetch(line, BlobAt(ref.digest, ref.size, line.welcome.node)) == data


@pytest.fixture
def cluster(three_nodes: PrivateCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    with p2premap.connect("n1") as cluster:
        yield cluster


def test_many_calls_share_a_value_on_all_nodes_and_all_of_it_goes_with_the_job(
    three_nodes: PrivateCluster, cluster: Cluster
) -> None:
    array = numpy.arange(SIZE // 80)
    shared = cluster.put(array)

    def spoil(one: object, other: object, number: int) -> object:
        import numpy as np

        assert isinstance(one, np.ndarray)
        assert isinstance(other, np.ndarray)
        before = int(one.sum()) == int(other.sum())
        one[:] = number
        return before, np.array(other[number:])

    fs = [cluster.submit(spoil, array, shared, n) for n in range(6)]
    for number, future in enumerate(fs):
        same, rest = future.result(60)
        assert same
        assert rest[0] == number
        rest[0] = 9
    again = cluster.submit(lambda pair: len(pair[1]), fs[1]).result(60)
    assert again == len(array) - 1
    stores = [BlobStore(path) for path in Path(three_nodes.home).glob("state/*/*/*/blobs")]
    assert len(stores) == 3
    assert any(store.has(shared.at.digest) for store in stores)
    cluster.shutdown()
    eventually(lambda: not any(store.has(shared.at.digest) for store in stores))
    eventually(lambda: not any(size == len(shared.data) for store in stores for size in sizes(store)))


def sizes(store: BlobStore) -> Iterator[int]:
    """Of what lies there now, while its node may be removing it."""
    for path in Path(store.directory).glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def test_a_value_that_two_programs_need_stays_for_the_second(three_nodes: PrivateCluster, cluster: Cluster) -> None:
    array = numpy.arange(SIZE // 80) + 1
    with p2premap.connect("n1") as other:
        theirs = other.put(array)
        ours = cluster.put(array)
        assert ours.at.digest == theirs.at.digest
        job = other.job_id
    with local("n1", paths=three_nodes.paths) as line:
        assert line.welcome.node == ours.at.holder
    eventually(lambda: _is_over(three_nodes, job))
    time.sleep(0.2)
    assert cluster.submit(len, ours).result(60) == len(array)


def _is_over(nodes: PrivateCluster, job: str) -> bool:
    from p2premap.control.jobs import JobUpdate, Watch

    with local(paths=nodes.paths) as line:
        view = line.ask(lambda n: Watch(request=n, job=bytes.fromhex(job), once=True), JobUpdate).view
    return view.phase.over
