"""Frames between two processes of a gang: of any size, sealed or not, and what becomes of meddling."""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from p2premap.worker import lines
from p2premap.worker.lines import RECORD_BYTES, Line, LineBroken

KEYS = (b"a" * 32, b"b" * 32)
SIZES = (0, 1, 100, 65_527, 65_528, 65_529, 65_536, RECORD_BYTES - 8, RECORD_BYTES, RECORD_BYTES + 1, 3_000_000)


@pytest.fixture(params=["plain", "sealed"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Line, Line]]:
    one, two = connected(tmp_path, sealed=request.param == "sealed")
    yield one, two
    one.close()
    two.close()


def connected(scratch: Path, *, sealed: bool) -> tuple[Line, Line]:
    """Two ends."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    keys = (KEYS, KEYS[::-1]) if sealed else (None, None)
    return Line(ends[0], str(scratch), keys[0]), Line(ends[1], str(scratch), keys[1])


def closed_at_end(request: pytest.FixtureRequest) -> tuple[socket.socket, socket.socket]:
    """Two ends that do not block."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        request.addfinalizer(end.close)
    return ends


def swap(one: Line, two: Line, first: list[bytes], second: list[bytes]) -> tuple[bytes, bytes]:
    """One frame each way, at the same time."""
    left = {one: one.say(first), two: two.say(second)}
    came: dict[Line, memoryview | None] = {one: one.heard(), two: two.heard()}
    while not all(left.values()) or None in came.values():
        select.select([one, two], [], [], 0.01)
        for line in (one, two):
            left[line] = left[line] or line.go_on()
            if came[line] is None:
                came[line] = line.hear()
    return bytes(came[one]), bytes(came[two])  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_frames_of_any_size_cross(pair: tuple[Line, Line], size: int) -> None:
    data = os.urandom(size)
    assert swap(*pair, [data], [b"x", data]) == (b"x" + data, data)
    assert swap(*pair, [], [b"y"]) == (b"y", b"")


def test_frames_of_many_pieces_cross(pair: tuple[Line, Line]) -> None:
    random = Random(1)
    pieces = [random.randbytes(random.choice((0, 1, 10, 1000, 20_000))) for _ in range(1000)]
    pieces.insert(500, random.randbytes(RECORD_BYTES + 5))
    assert swap(*pair, pieces, pieces[::-1]) == (b"".join(pieces[::-1]), b"".join(pieces))


def test_pieces_may_be_views_of_anything_also_of_nothing(pair: tuple[Line, Line]) -> None:
    numbers = array("d", [1.5, 2.5])
    pieces = [memoryview(numbers), memoryview(array("d")), bytearray(b"x"), memoryview(b"")]
    assert swap(*pair, pieces, []) == (b"", numbers.tobytes() + b"x")  # type: ignore[arg-type]


def test_a_second_frame_waits_until_it_is_asked_for(pair: tuple[Line, Line]) -> None:
    one, two = pair
    for number in range(50):
        assert one.say([b"frame", bytes([number])])
    assert [bytes(two.hear() or b"") for _ in range(50)] == [b"frame" + bytes([n]) for n in range(50)]
    assert two.hear() is None


def test_random_frames_in_random_pieces(pair: tuple[Line, Line]) -> None:
    random = Random(7)
    for _ in range(60):
        frames = [random.randbytes(random.choice((0, 3, 5_000, 64_000, 66_000, 400_000))) for _ in range(2)]
        assert swap(*pair, [frames[0]], [frames[1]]) == (frames[1], frames[0])


def test_memory_is_used_again_once_nobody_looks_at_it(pair: tuple[Line, Line]) -> None:
    one, two = pair
    kept = []
    for number in range(8):
        data = bytes([number]) * 200_000
        one.say([data])
        while (frame := two.hear()) is None:
            one.go_on()
        kept.append((data, frame))
        if number % 3 == 2:
            kept.clear()
        assert all(bytes(frame) == data for data, frame in kept)


def test_what_is_too_large_for_memory_is_received_into_a_file(
    pair: tuple[Line, Line], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lines, "SPILL_BYTES", 100_000)
    data = os.urandom(1_000_000)
    one, two = pair
    one.say([data])
    while (frame := two.hear()) is None:
        one.go_on()
    assert "mmap" in type(frame.obj).__name__
    assert frame == data
    assert list(tmp_path.iterdir()) == [], "it has no name"


def test_who_hangs_up_is_noticed(pair: tuple[Line, Line]) -> None:
    one, two = pair
    one.say([b"last words"])
    one.close()
    assert bytes(two.hear() or b"") == b"last words"
    with pytest.raises(LineBroken, match="hung up"):
        two.hear()
    with pytest.raises(LineBroken):
        two.say([b"anybody there?"])


def test_hanging_up_is_noticed_although_a_fork_has_the_descriptor_still(pair: tuple[Line, Line]) -> None:
    one, two = pair
    kept = os.dup(one.fileno())
    one.close()
    with pytest.raises(LineBroken, match="hung up"):
        two.hear()
    os.close(kept)


@pytest.mark.parametrize("meddle", ["changed", "left out", "said again"])
def test_meddling_is_noticed(tmp_path: Path, request: pytest.FixtureRequest, meddle: str) -> None:
    ours, wire = closed_at_end(request)
    far, theirs = closed_at_end(request)
    sender, receiver = Line(ours, str(tmp_path), KEYS), Line(theirs, str(tmp_path), KEYS[::-1])
    records = []
    for word in (b"first word", b"second one", b"third word"):
        sender.say([word])
        records.append(wire.recv(1000))
    assert b"word" not in b"".join(records), "nobody can read it"
    far.sendall(records[0])
    assert receiver.hear() == b"first word"
    match meddle:
        case "changed":
            far.sendall(records[1][:-1] + bytes([records[1][-1] ^ 1]))
        case "left out":
            far.sendall(records[2])
        case "said again":
            far.sendall(records[0])
    with pytest.raises(LineBroken, match="meddled"):
        receiver.hear()


@pytest.mark.parametrize("said", [b"\xff" * 8, b"\xff\xff\xff\xff\xff\x00\x00\x00" + b"x" * 100])
def test_nonsense_breaks_the_line(tmp_path: Path, request: pytest.FixtureRequest, said: bytes) -> None:
    for keys in (None, KEYS):
        near, far = closed_at_end(request)
        line = Line(near, str(tmp_path), keys)
        far.sendall(said)
        with pytest.raises((LineBroken, OSError)):
            line.hear()
