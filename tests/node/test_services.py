"""Streams of frames: the local Unix socket, the control and bulk services between members, and a remote program."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from p2premap.client.connection import Connection
from p2premap.control import FROM_CLIENT, FROM_DAEMON
from p2premap.control.answers import Done, Welcome
from p2premap.control.nodes import GetStatus, Stop
from p2premap.errors import LocalProtocolError, PeerUnreachable, RemoteProtocolError
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node import dialler, remote, sockets, unix
from p2premap.node.bulk import NoSuch, Piece
from p2premap.node.secret import new_secret
from p2premap.node.streams import StreamFrames
from p2premap.ports import FrameStream
from p2premap.wire import FrameDecoder
from tests.node.nodes import PATIENCE_S, node

SECRET = new_secret(lambda size: b"s" * size)
OTHER = new_secret(lambda size: b"o" * size)
ME = NodeId(b"m" * 16)


class Service:
    """A control service that answers each request with `Done`, and notes who asked."""

    def __init__(self) -> None:
        self.peers: list[NodeId | None] = []
        self.ended = 0
        self.troubles: list[str] = []

    async def serve(self, stream: FrameStream) -> None:
        self.peers.append(stream.peer)
        try:
            await stream.send(Welcome(node=ME, name="n", pid=1, version="1", cluster="c"))
            while (frame := await stream.receive()) is not None:
                await stream.send(Done(request=frame.message.request, text=f"{len(frame.payload)} bytes"))
        except (PeerUnreachable, RemoteProtocolError) as error:
            self.troubles.append(type(error).__name__)
            raise
        finally:
            self.ended += 1


# --- the local socket ---------------------------------------------------------------------------------------------


async def serve_at(directory: Path, handler: Callable[[FrameStream], object], nursery: trio.Nursery) -> Path:
    listener = sockets.publish(directory, ME)
    await nursery.start(partial(unix.serve_unix, listener, handler))
    return sockets.socket_path(directory, ME)


async def ask(path: Path) -> str:
    def blocking() -> str:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(path))
        with Connection(stream, str(path)) as connection:
            return connection.do(lambda request: Stop(request=request))

    with trio.fail_after(PATIENCE_S):
        return await trio.to_thread.run_sync(blocking)


@pytest.mark.trio
async def test_a_client_of_this_user_is_served(short_tmp: Path) -> None:
    service = Service()
    async with trio.open_nursery() as nursery:
        path = await serve_at(short_tmp, service.serve, nursery)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(path) == "0 bytes"
        assert await ask(path) == "0 bytes"
        nursery.cancel_scope.cancel()
    assert service.peers == [None, None]


@pytest.mark.trio
async def test_a_client_of_another_user_is_not(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix, "peer_user", lambda _: os.getuid() + 1)
    service = Service()
    async with trio.open_nursery() as nursery:
        path = await serve_at(short_tmp, service.serve, nursery)
        stream = await trio.open_unix_socket(path)
        assert await stream.receive_some() == b""
        await stream.aclose()
        nursery.cancel_scope.cancel()
    assert service.peers == []


@pytest.mark.trio
async def test_the_system_tells_whose_process_connects(short_tmp: Path) -> None:
    left, right = trio.socket.socketpair()
    with left, right:
        assert unix.peer_user(trio.SocketStream(left)) == os.getuid()


@pytest.mark.trio
async def test_noise_and_a_failing_handler_end_one_connection_only(
    short_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()

    async def sometimes(stream: FrameStream) -> None:
        if service.ended == 1:
            service.ended += 1
            raise KeyError("a bug")
        await service.serve(stream)

    async with trio.open_nursery() as nursery:
        path = await serve_at(short_tmp, sometimes, nursery)
        noisy = await trio.open_unix_socket(path)
        await noisy.send_all(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff")
        while await noisy.receive_some():
            pass
        buggy = await trio.open_unix_socket(path)
        assert await buggy.receive_some() == b""
        assert await ask(path) == "0 bytes"
        await noisy.aclose()
        await buggy.aclose()
        nursery.cancel_scope.cancel()
    assert service.troubles == ["RemoteProtocolError"]
    assert "a bug" in caplog.text


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """Unix socket paths are short."""
    with tempfile.TemporaryDirectory(prefix="p2pm", dir="/tmp") as directory:
        yield Path(directory)


# --- frames over any stream ---------------------------------------------------------------------------------------


def pair() -> tuple[StreamFrames, StreamFrames, trio.abc.Stream]:
    left, right = trio.testing.memory_stream_pair()
    client = StreamFrames(left, peer=None, sends=FROM_CLIENT, decoder=FrameDecoder(FROM_DAEMON))
    return client, StreamFrames(right, peer=None, sends=FROM_DAEMON, decoder=FrameDecoder(FROM_CLIENT)), left


@pytest.mark.trio
async def test_several_tasks_may_send_and_frames_stay_whole() -> None:
    client, daemon, _ = pair()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client.send, Stop(request=RequestId(number)), bytes([number]) * 50_000)
        frames = [await daemon.receive() for _ in range(20)]
    assert {(f.message.request, f.payload[:1] * 50_000 == f.payload) for f in frames} == {(n, True) for n in range(20)}


@pytest.mark.trio
async def test_the_end_of_a_stream_is_told_from_its_breaking() -> None:
    client, daemon, _ = pair()
    await client.send(Stop(request=RequestId(1)))
    await client.aclose()
    assert (await daemon.receive()) is not None
    assert (await daemon.receive()) is None
    client, daemon, raw = pair()
    await raw.send_all(b"\x01\x00\x00")
    await raw.aclose()
    with pytest.raises(PeerUnreachable, match="middle of a frame"):
        await daemon.receive()
    client, daemon, raw = pair()
    with pytest.raises(LocalProtocolError):
        await client.send(Done(request=RequestId(1)))
    await daemon.aclose()
    with pytest.raises(PeerUnreachable):
        await client.send(Stop(request=RequestId(1)))


# --- between members ----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_member_asks_anothers_control_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "RETURN_LINK_S", 0.01)  # no link comes about here
    service = Service()
    where: dict[NodeId, tuple[Address, ...]] = {}
    async with (
        node(tmp_path / "a", SECRET, addresses_of=lambda n: where.get(n, ())) as a,
        node(tmp_path / "b", SECRET, serve_control=service.serve) as b,
    ):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # the first address leads nowhere, the second to somebody else
            where[b.id] = (Address(*unused.getsockname()), a.address, b.address)
            stream = await a.transport.open_control(b.id)
        assert isinstance((await stream.receive()).message, Welcome)
        await stream.send(GetStatus(request=RequestId(7)), bytes(100_000))
        assert (await stream.receive()).message == Done(request=RequestId(7), text="100000 bytes")
        assert stream.peer == b.id
        assert service.peers == [a.id]
        await stream.aclose()
        with pytest.raises(PeerUnreachable, match="no known address"):
            await a.transport.open_control(ME)
    assert service.ended == 1


@pytest.mark.trio
async def test_a_member_reads_anothers_blobs(tmp_path: Path) -> None:
    async def serve(stream: FrameStream) -> None:
        await stream.send(Piece(last=False), b"x" * 1_000_000)
        await stream.send(NoSuch(text="that is all"))

    where: dict[NodeId, tuple[Address, ...]] = {}
    async with (
        node(tmp_path / "a", SECRET, addresses_of=lambda n: where[n]) as a,
        node(tmp_path / "b", SECRET, serve_bulk=serve) as b,
    ):
        where[b.id] = (b.address,)
        stream = await a.transport.open_bulk(b.id)
        first = await stream.receive()
        assert (first.message, len(first.payload)) == (Piece(last=False), 1_000_000)
        assert (await stream.receive()).message == NoSuch(text="that is all")
        assert await stream.receive() is None
        await stream.aclose()


@pytest.mark.trio
async def test_a_program_that_knows_the_secret_uses_a_members_control_service(tmp_path: Path) -> None:
    service = Service()
    async with node(tmp_path, SECRET, serve_control=service.serve) as a:

        def program() -> tuple[str, NodeId]:
            stream, peer = remote.connect_member(SECRET, a.address, name="cli", version="1", timeout_s=PATIENCE_S)
            with Connection(stream, "a") as connection:  # not a byte of `Welcome` was taken by the hello
                return connection.do(lambda request: Stop(request=request)), peer.node

        assert await trio.to_thread.run_sync(program) == ("0 bytes", a.id)
        assert service.peers == [None]  # a program is no member
        assert a.events == []


@pytest.mark.trio
async def test_a_program_is_told_why_it_is_not_let_in(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as a:

        async def refused(secret: object, address: Address, match: str, timeout_s: float = PATIENCE_S) -> None:
            connect = partial(remote.connect_member, name="cli", version="1", timeout_s=timeout_s)
            with pytest.raises(PeerUnreachable, match=match):
                await trio.to_thread.run_sync(connect, secret, address)

        await refused(OTHER, a.address, "not of this cluster")
        await refused(SECRET, Address("nowhere", 1), "cannot be reached")
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            where = Address(*unused.getsockname())
            await refused(SECRET, where, "does not answer")
            unused.listen()
            await refused(SECRET, where, "let this program in: ", 0.5)
