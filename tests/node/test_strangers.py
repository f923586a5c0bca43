"""Whoever has not proved membership: told apart exactly, refused, counted; nothing else changes."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.config import TransportConfig
from p2premap.gossip.events import DialOutcome
from p2premap.gossip.messages import Rumours
from p2premap.ids import Address
from p2premap.node import hello, tls
from p2premap.node.hello import Hello, Purpose
from p2premap.node.seal import SALT_BYTES
from p2premap.node.secret import new_secret
from p2premap.wire import encode_frame
from tests.node.nodes import PATIENCE_S, Node, node

SECRET = new_secret(lambda size: b"s" * size)
OTHER = new_secret(lambda size: b"o" * size)


@asynccontextmanager
async def listener(serve: Callable[[trio.SocketStream], object]) -> AsyncIterator[Address]:
    """Something that listens on loopback and is no node."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Address(*listeners[0].socket.getsockname()[:2])
        nursery.cancel_scope.cancel()


def state(one: Node) -> tuple[object, ...]:
    """What no stranger may change."""
    statistics = one.transport.statistics()
    return (tuple(one.events), statistics.links.up, statistics.members, statistics.port, statistics.network)


async def quiet(one: Node, expected: tuple[object, ...]) -> None:
    """The node is as before, strangers are gone, and it still answers."""
    with trio.fail_after(PATIENCE_S):
        while one.transport.statistics().strangers or one.transport.statistics().members:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert state(one) == expected


# --- what the dialler is told -------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_closed_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        async with node(tmp_path, SECRET) as a:
            ended = await a.dial(Address("127.0.0.1", unused.getsockname()[1]))
            assert (ended.outcome, ended.peer, ended.boot) == (DialOutcome.REFUSED, None, None)


@pytest.mark.trio
async def test_who_accepts_and_says_nothing_is_stalled(tmp_path: Path) -> None:
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()  # the kernel accepts; nobody ever will: a process under SIGSTOP
        async with node(tmp_path, SECRET) as a:
            ended = await a.dial(Address(*frozen.getsockname()), timeout_s=0.3)
            assert ended.outcome is DialOutcome.STALLED


@pytest.mark.trio
async def test_who_finishes_tls_and_says_no_hello_is_stalled(tmp_path: Path) -> None:
    context = tls.server_context(tls.ephemeral(SECRET))

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True)
        await stream.do_handshake()
        await trio.sleep_forever()

    async with listener(serve) as where, node(tmp_path, SECRET) as a:
        assert (await a.dial(where, timeout_s=0.5)).outcome is DialOutcome.STALLED


@pytest.mark.trio
async def test_no_route_is_silent(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as a:
        assert (await a.dial(Address("fe80::1%nowhere0", 7321))).outcome is DialOutcome.SILENT
        assert (await a.dial(Address("not numeric", 7321))).outcome is DialOutcome.SILENT


@pytest.mark.trio
async def test_a_process_that_dies_while_it_answers_is_refused(tmp_path: Path) -> None:
    """A connection to a process just killed still succeeds now and then; it ends without a word."""

    async def serve(tcp: trio.SocketStream) -> None:
        await tcp.aclose()

    async with listener(serve) as where, node(tmp_path, SECRET) as a:
        assert (await a.dial(where)).outcome is DialOutcome.REFUSED


@pytest.mark.trio
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\x15\x03\x03\x00\x02\x02\x46", bytes(64)],
    ids=["http", "ssh", "TLS below 1.3", "zeros"],
)
async def test_another_program_is_foreign(tmp_path: Path, answer: bytes) -> None:
    async def serve(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()
        await tcp.send_all(answer)
        await tcp.receive_some()

    async with listener(serve) as where, node(tmp_path, SECRET) as a:
        assert (await a.dial(where)).outcome is DialOutcome.FOREIGN


@pytest.mark.trio
async def test_a_foreign_cluster_is_refused_and_named_on_both_sides(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", OTHER) as b:
        before = state(b)
        assert (await a.dial(b.address)).outcome is DialOutcome.FOREIGN
        await a.until(lambda: a.foreign)
        await b.until(lambda: b.foreign)
        assert [(f.address, f.tag) for f in a.foreign] == [(b.address, OTHER.tag)]
        assert [(f.address, f.tag) for f in b.foreign] == [(None, SECRET.tag)]
        assert (await a.dial(b.address)).outcome is DialOutcome.FOREIGN
        assert len(a.foreign) == len(b.foreign) == 1  # once a minute
        a.transport.send_datagram(b.id, b.address, Rumours())
        await quiet(b, before)
        assert not a.transport.statistics().links.up


@pytest.mark.trio
async def test_another_major_version_is_told_apart_from_both_sides(tmp_path: Path) -> None:
    """The first byte after TLS is the version, whatever else changes."""
    context = tls.server_context(tls.ephemeral(SECRET))
    heard = []

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True)
        heard.append(await stream.receive_some())
        await stream.send_all(b"\x02the protocol of tomorrow")
        await stream.aclose()

    async with listener(serve) as where, node(tmp_path / "a", SECRET) as a:
        assert (await a.dial(where)).outcome is DialOutcome.INCOMPATIBLE
        assert heard[0][0] == 1
        tomorrow = await member(a)
        await tomorrow.send_all(b"\x02the protocol of tomorrow")
        refusal = await tomorrow.receive_some()
        assert refusal[0] == 1
        assert b"upgrade" in refusal
        await trio.aclose_forcefully(tomorrow)
        assert a.transport.statistics().counts["strangers_version"] == 1


# --- what the acceptor lets pass ----------------------------------------------------------------------------------


async def member(one: Node, context: ssl.SSLContext | None = None) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection to a node by somebody who knows the secret; no hello yet."""
    tcp = await trio.open_tcp_stream(*one.address)
    context = context or tls.client_context(tls.ephemeral(SECRET))
    stream = trio.SSLStream(tcp, context, server_hostname=tls.server_name(SECRET.tag))
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(tcp)
        raise
    return stream


async def ends(stream: trio.abc.Stream) -> bytes:
    """What comes until the other side closes."""
    data = b""
    with trio.fail_after(PATIENCE_S):
        try:
            while chunk := await stream.receive_some():
                data += chunk
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)
    return data


@pytest.mark.trio
@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00",
        b"p2premap guest 1\n",
        b"\x16\x03\x01\x00\x05hello",
        random.Random(2).randbytes(4096),
    ],
    ids=["http", "zero", "guest", "half a handshake", "random"],
)
async def test_plaintext_is_refused(tmp_path: Path, noise: bytes) -> None:
    async with node(tmp_path, SECRET, config=TransportConfig(port_first=0, hello_s=0.5)) as a:
        before = state(a)
        tcp = await trio.open_tcp_stream(*a.address)
        await tcp.send_all(noise)
        assert len(await ends(tcp)) < 100  # a TLS alert at most
        await quiet(a, before)


@pytest.mark.trio
async def test_tls_below_1_3_is_refused_on_both_sides(tmp_path: Path) -> None:
    def lowered(context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    credentials = tls.ephemeral(SECRET)

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, lowered(tls.server_context(credentials)), server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()

    async with listener(serve) as where, node(tmp_path, SECRET) as a:
        before = state(a)
        with pytest.raises(trio.BrokenResourceError):
            await member(a, lowered(tls.client_context(credentials)))
        await quiet(a, before)
        assert (await a.dial(where)).outcome is not DialOutcome.CONNECTED


@pytest.mark.trio
async def test_a_client_without_a_certificate_gets_nowhere(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as a:
        before = state(a)
        stream = await member(a, tls.unverified_context())  # in TLS 1.3 this end believes that all is well
        await stream.send_all(hello.hello_frame(own_hello(a, Purpose.CLIENT)))
        assert await ends(stream) == b""
        await quiet(a, before)


def own_hello(one: Node, purpose: Purpose, **changes: object) -> Hello:
    fields = {"node": one.id, "boot": 1, "version": "", "name": "", "salt": bytes(SALT_BYTES), **changes}
    return Hello(purpose=purpose, **fields)


@pytest.mark.trio
async def test_a_hello_in_anothers_name_is_refused(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as a:
        before = state(a)
        stream = await member(a)
        await stream.send_all(hello.hello_frame(own_hello(a, Purpose.LINK)))
        assert b"name of another" in await ends(stream)
        await quiet(a, before)


@pytest.mark.trio
async def test_a_payload_before_the_hello_is_refused_at_its_announcement(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as a:
        before = state(a)
        stream = await member(a)
        frame = encode_frame(hello.HELLO, own_hello(a, Purpose.LINK), bytes(1 << 20))
        await stream.send_all(frame[:9])
        assert b"over the cap" in await ends(stream)
        await quiet(a, before)


@pytest.mark.trio
async def test_slow_strangers_are_cut_off_and_never_keep_others_out(tmp_path: Path) -> None:
    narrow = TransportConfig(port_first=0, hello_s=PATIENCE_S, strangers_max=16)
    patient = TransportConfig(port_first=0, hello_s=PATIENCE_S, strangers_max=1)
    brief = TransportConfig(port_first=0, hello_s=0.2)
    async with node(tmp_path / "c", SECRET, config=patient) as c:
        first = await trio.open_tcp_stream(*c.address)
        await first.send_all(b"\x16")
        await trio.testing.wait_all_tasks_blocked(0.01)
        second = await trio.open_tcp_stream(*c.address)
        assert await ends(first) == b""  # the oldest gives way, long before its time is over
        await trio.aclose_forcefully(second)
    async with node(tmp_path / "d", SECRET, config=brief) as d:
        assert await ends(await trio.open_tcp_stream(*d.address)) == b""
    async with node(tmp_path / "a", SECRET, config=narrow) as a, node(tmp_path / "b", SECRET) as b:
        before = state(a)
        slow = [await trio.open_tcp_stream(*a.address) for _ in range(64)]
        for one in slow:
            with suppress(trio.BrokenResourceError):
                await one.send_all(b"\x16")
        assert a.transport.statistics().strangers <= 16
        assert (await b.dial(a.address, keep=False)).outcome is DialOutcome.CONNECTED
        for one in slow[:-16]:
            assert await ends(one) == b""
        for one in slow[-16:]:
            await trio.aclose_forcefully(one)
        await quiet(a, before)


@pytest.mark.trio
async def test_random_and_mutated_bytes_after_tls_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    async with node(tmp_path, SECRET) as a:
        before = state(a)
        genuine = hello.hello_frame(own_hello(a, Purpose.LINK))
        for round_ in range(40):
            data = bytearray(genuine)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if round_ % 4 == 0:
                data = bytearray(rng.randbytes(rng.randrange(200)))
            stream = await member(a)
            await stream.send_all(bytes(data))
            await stream.aclose()
        await quiet(a, before)


@pytest.mark.trio
async def test_random_datagrams_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(8)
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b:
        before = state(a)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number in range(500):
                head = bytes([rng.choice((0, 1, 1, 255))])
                stranger.sendto(head + rng.randbytes(rng.randrange(1, 1500)), a.address)
                if number % 50 == 49:
                    await trio.testing.wait_all_tasks_blocked()  # the kernel's buffer is small
        b.transport.send_datagram(a.id, a.address, Rumours())
        await a.until(lambda: a.events)
        assert state(a)[1:] == before[1:]
        counts = a.transport.statistics().counts
        assert counts["forged"] + counts["malformed"] > 100
        assert counts["senders"] == 1


@pytest.mark.trio
async def test_a_frame_that_does_not_belong_on_a_link_ends_that_link_only(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as a, node(tmp_path / "b", SECRET) as b, node(tmp_path / "c", SECRET) as c:
        await b.dial(a.address)
        await c.dial(a.address)
        await a.until(lambda: a.transport.statistics().links.up == 2)
        link = b.transport._links._up[a.id]
        link._put(b"\x01\x00\x00\x00\x02\x00\x00\x00\x00zz")
        await a.until(lambda: a.transport.statistics().links.up == 1)
        with trio.fail_after(PATIENCE_S):
            while a.transport.statistics().counts.get("broken_protocol") != 1:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert c.transport.send_link(a.id, Rumours())
        await a.until(lambda: a.events[-1].__class__.__name__ == "Received")
