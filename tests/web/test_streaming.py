"""Answers in pieces: to who takes them, to who does not, to who goes; and what breaks off is not an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any, cast

import blake3
import pytest

from p2premap.control.data import BlobHere
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import Digest, NodeId, RequestId
from p2premap.tasks.job import Source
from p2premap.web import output
from p2premap.web.output import Streaming, read_file
from p2premap.web.problems import Problem
from p2premap.web.service import Service

GET = {"type": "http", "method": "GET", "client": ("127.0.0.1", 4242)}


class Web:
    """As much of the service as is asked for here."""

    def __init__(self) -> None:
        self.cut: list[object] = []
        self.downloads = 0

    def hang_up(self, scope: MutableMapping[str, Any]) -> None:
        self.cut.append(scope["client"])


class Client:
    """Takes so many messages, then none; or goes."""

    def __init__(self, takes: int = 1000, *, goes: bool = False) -> None:
        self.takes = takes
        self.got: list[MutableMapping[str, Any]] = []
        self._gone = asyncio.Event()
        if goes:
            self._gone.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if len(self.got) >= self.takes:
            await asyncio.Event().wait()
        self.got.append(message)

    async def receive(self) -> MutableMapping[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}


class Pieces:
    """A body that notes when it is closed."""

    def __init__(self, *, endless: bool = False, breaks: bool = False) -> None:
        self.closed = False
        self._endless, self._breaks = endless, breaks

    async def all(self) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            if self._breaks:
                raise PeerUnreachable("gone")
            yield b"two"
            while self._endless:
                await asyncio.sleep(0.01)
                yield b"more"
        finally:
            self.closed = True


def serve(pieces: Pieces, client: Client, web: Web) -> None:
    answer = Streaming(cast("Service", web), pieces.all(), media_type="text/plain")
    asyncio.run(asyncio.wait_for(answer(dict(GET), client.receive, client.send), 60))


def test_who_takes_all_of_it_gets_all_of_it() -> None:
    pieces, client, web = Pieces(), Client(), Web()
    serve(pieces, client, web)
    assert [message.get("body") for message in client.got] == [None, b"one", b"two", b""]
    assert [bool(message.get("more_body")) for message in client.got] == [False, True, True, False]
    assert (web.cut, pieces.closed) == ([], True)


def test_who_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SEND_S", 0.05)
    pieces, web = Pieces(endless=True), Web()
    serve(pieces, Client(takes=2), web)
    assert (web.cut, pieces.closed) == ([("127.0.0.1", 4242)], True)


def test_who_goes_stops_what_was_done_for_him() -> None:
    pieces, web = Pieces(endless=True), Web()
    serve(pieces, Client(goes=True), web)
    assert web.cut == []


def test_what_breaks_off_is_not_ended() -> None:
    pieces, client, web = Pieces(breaks=True), Client(), Web()
    serve(pieces, client, web)
    assert client.got[-1].get("more_body")
    assert web.cut == [("127.0.0.1", 4242)]


# --- files --------------------------------------------------------------------------------------------------------

PART = bytes(range(256)) * 4
AHEAD = 10


class Turns:
    """Counts what is done in a thread."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        run = asyncio.to_thread

        async def counted(*args: Any) -> Any:
            self.count += 1
            return await run(*args)

        patch.setattr(asyncio, "to_thread", counted)


def read(path: Path, start: int, stop: int, *, digest: bytes = b"", checked: bool = False) -> bytes:
    """A range of the part that stands in this file behind some other bytes."""
    digest = digest or blake3.blake3(PART).digest()
    source = Source(digest=Digest(digest), start=0, end=len(PART), holders=(NodeId(bytes(16)),))
    here = BlobHere(request=RequestId(1), path=str(path), start=AHEAD, end=AHEAD + len(PART), checked=checked)
    web = Web()

    async def run() -> bytes:
        return b"".join([piece async for piece in read_file(cast("Service", web), here, source, start, stop)])

    try:
        return asyncio.run(run())
    finally:
        assert web.downloads == 0


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(bytes(AHEAD) + PART + b"more")
    return path


def test_a_small_part_takes_one_turn_of_a_thread(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    assert read(part, 0, len(PART)) == PART
    assert turns.count == 1
    assert read(part, 5, 9) == PART[5:9]
    assert read(part, 7, 7) == b""


def test_a_large_one_comes_in_pieces(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNK_BYTES", 100)
    assert read(part, 0, len(PART)) == PART
    part.write_bytes(part.read_bytes()[:-300])
    with pytest.raises(RemoteProtocolError, match="cut"):
        read(part, 0, len(PART), checked=True)


def test_a_damaged_one_is_refused_before_anything_of_it_is_sent(part: Path) -> None:
    with pytest.raises(Problem, match="damaged"):
        read(part, 0, 10, digest=bytes(32))
    assert read(part, 0, 10, digest=bytes(32), checked=True) == PART[:10]
