"""What a daemon does for gangs: connections are passed on to who may have them, and to nobody else."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from p2premap.ids import NodeId
from p2premap.node import keyring
from p2premap.node.gangs import Gangs
from p2premap.node.introduction import (
    INTRODUCTION_BYTES,
    PREFACE,
    introduce,
    is_proved,
    keys_of,
    meeting_key,
    read_introduction,
    reply_to,
)
from p2premap.node.secret import ClusterSecret, new_secret
from p2premap.tasks.meeting import Meeting
from tests.node.nodes import PATIENCE_S, Node, node

SECRET = new_secret(lambda size: b"s" * size)
ME, OTHER = NodeId(b"m" * 16), NodeId(b"o" * 16)
MEETING = Meeting(id=b"i" * 16, seats=((ME, (0, 1)), (OTHER, (2,))), seat=0)
KEY = meeting_key(SECRET.value, MEETING.id)


@pytest.fixture
def doors() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as directory:
        yield Path(directory)


def gangs_in(doors: Path, secrets: Callable[[], Sequence[ClusterSecret]] = lambda: (SECRET,)) -> Gangs:
    return Gangs(
        me=ME,
        secrets=secrets,
        directory=lambda: doors,
        addresses_of=lambda other: (),
        is_neighbour=lambda other: False,
    )


def test_an_introduction_is_proved_by_who_knows_the_meetings_key() -> None:
    said = read_introduction(introduce(KEY, MEETING.id, 1, 0, b"n" * 32))
    assert said is not None
    assert (said.meeting, said.seat, said.to, said.nonce) == (MEETING.id, 1, 0, b"n" * 32)
    assert is_proved(KEY, said)
    assert not is_proved(meeting_key(SECRET.value, b"j" * 16), said)
    assert not is_proved(KEY, said._replace(to=1))
    assert read_introduction(b"x" * INTRODUCTION_BYTES) is None
    assert read_introduction(PREFACE) is None


def test_both_ends_come_to_the_same_keys_and_nobody_else() -> None:
    said = read_introduction(introduce(KEY, MEETING.id, 1, 0, b"n" * 32))
    assert said is not None
    reply = reply_to(KEY, said, b"a" * 32)
    keys = keys_of(KEY, said.nonce, reply)
    assert keys is not None
    assert keys.dialled != keys.accepted
    assert keys_of(KEY, b"o" * 32, reply) is None, "the answer is to this introduction"
    assert keys_of(meeting_key(SECRET.value, b"j" * 16), said.nonce, reply) is None
    again = keys_of(KEY, said.nonce, reply_to(KEY, said, b"b" * 32))
    assert again is not None
    assert {*again}.isdisjoint(keys), "other nonces, other keys"


def test_doors_of_an_earlier_run_are_removed_and_no_others(doors: Path) -> None:
    (doors / f"{ME[:4].hex()}-old-0").touch()
    (doors / f"{OTHER[:4].hex()}-old-0").touch()
    table = gangs_in(doors).table(MEETING)
    assert [path.name for path in doors.iterdir()] == [f"{OTHER[:4].hex()}-old-0"]
    assert table.path.startswith(str(doors / ME[:4].hex()))
    assert [peer.path != "" for peer in table.peers] == [True, False]


async def say(one: Node, data: bytes) -> socket.socket:
    """Connect, and say this."""
    address = one.transport.local_addresses[0]
    stream = await trio.open_tcp_stream(address.host, address.port)
    await stream.send_all(data)
    return stream


@pytest.mark.trio
async def test_a_connection_is_passed_on_with_its_introduction(tmp_path: Path, doors: Path) -> None:
    gangs = gangs_in(doors)
    introduction = introduce(KEY, MEETING.id, 1, 0, os.urandom(32))
    async with node(tmp_path, SECRET, serve_gang=gangs.serve) as one:
        stream = await say(one, introduction)
        await trio.sleep(0.02)  # nobody is there yet, and the connection waits
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(gangs.table(MEETING).path)
            door.listen()
            connection, _ = await trio.to_thread.run_sync(door.accept)
        with connection:
            data, (passed,), _, _ = socket.recv_fds(connection, 1000, 1)
        assert data == introduction
        with socket.socket(fileno=passed) as theirs:
            theirs.send(b"straight to you")
            with trio.fail_after(PATIENCE_S):
                assert await stream.receive_some() == b"straight to you"
        await stream.aclose()
        with trio.fail_after(PATIENCE_S):
            while one.transport.statistics().strangers:  # noqa: ASYNC110  (nobody tells)
                await trio.sleep(0.005)
        assert one.transport.statistics().counts["gangs"] == 1


@pytest.mark.trio
@pytest.mark.parametrize(
    "said",
    [
        b"gang",
        b"gang of p2premap 2\n" + bytes(INTRODUCTION_BYTES),
        introduce(meeting_key(b"t" * 32, MEETING.id), MEETING.id, 1, 0, bytes(32)),
        b"g" * 10_000,
    ],
)
async def test_who_proves_nothing_is_turned_away(tmp_path: Path, doors: Path, said: bytes) -> None:
    gangs = gangs_in(doors)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(gangs.table(MEETING).path)
        door.listen()
        door.setblocking(False)
        async with node(tmp_path, SECRET, serve_gang=gangs.serve) as one:
            stream = await say(one, said)
            if len(said) < INTRODUCTION_BYTES:
                await stream.send_eof()
            with trio.fail_after(PATIENCE_S), contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
            await stream.aclose()
            assert one.transport.statistics().counts["strangers_noise"] == 1
        with pytest.raises(BlockingIOError):
            door.accept()


async def until_waiting(one: Node) -> None:
    """Somebody is on the way to a door."""
    with trio.fail_after(PATIENCE_S):
        while not one.transport.statistics().strangers:  # noqa: ASYNC110  (nobody tells)
            await trio.sleep(0.005)
    await trio.testing.wait_all_tasks_blocked(0.002)


@pytest.mark.trio
@pytest.mark.parametrize("evicts", [False, True])
async def test_who_meets_may_come_after_a_rotation_but_not_after_an_eviction(
    tmp_path: Path, doors: Path, evicts: bool
) -> None:
    gangs = gangs_in(doors, lambda: one.keys.secrets)
    async with node(tmp_path, SECRET, serve_gang=gangs.serve) as one:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(gangs.table(MEETING).path)
            door.listen()
            waits = await say(one, introduce(KEY, MEETING.id, 0, 1, os.urandom(32)))  # nobody opens that door
            await until_waiting(one)
            new = keyring.next_offer(one.keys.ring, b"n" * 32, listed=(one.id,), evicts=evicts)
            one.keys.prepare(new)
            one.keys.switch(new.secret.tag)
            stream = await say(one, introduce(KEY, MEETING.id, 1, 0, os.urandom(32)))
            if evicts:
                for turned_away in (stream, waits):
                    with trio.fail_after(PATIENCE_S), contextlib.suppress(trio.BrokenResourceError):
                        assert await turned_away.receive_some() == b""
            else:
                door.settimeout(PATIENCE_S)
                connection, _ = await trio.to_thread.run_sync(door.accept)
                connection.close()
            await stream.aclose()
            await waits.aclose()
            assert gangs.table(MEETING).key == meeting_key(new.secret.value, MEETING.id), "the next ones"
