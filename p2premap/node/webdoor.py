"""The node's door to browsers: a process of its own that serves HTTP (`p2premap.web`), there once somebody wants it.

::

    p2premap dashboard --OpenWeb--> desk --> WebDoor --settings--> python -m p2premap.web --control socket--> desk
                                                     <--its port--

The daemon makes what lets people in: the token, and tickets, which are signed with a key that only it and that process
have, so that nothing need be said between them for each. The process is a client like any other. It ends when its
standard input does, which is when this daemon has gone, however that died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from p2premap.control.answers import Trouble
from p2premap.node import sockets
from p2premap.node.desk import RequestError
from p2premap.node.webtold import WebReady, WebSettings, ticket_of

if TYPE_CHECKING:
    from p2premap.node.house import House

START_S: Final = 20.0
STOP_S: Final = 1.0
LOOK_S: Final = 1.0
TOKEN_BYTES: Final = 32
LINE_BYTES_MAX: Final = 64 << 10
NAMES_MAX: Final = 16

log = logging.getLogger(__name__)


def label_of(name: str, node: bytes) -> str:
    """A host name's first part that no other node of the machine has, as cookies ignore ports."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{plain or 'node'}-{node.hex()[:8]}"


def _names() -> list[str]:
    """What other machines of the network may call this one: its host name, and its addresses."""
    from p2premap.node.interfaces import addresses, read_interfaces

    host = socket.gethostname().partition(".")[0].lower()
    found = [address.host for address in addresses(read_interfaces(), 1, NAMES_MAX) if "%" not in address.host]
    return [*([host, f"{host}.local"] if re.fullmatch("[a-z0-9-]{1,63}", host) else []), *found]


class WebDoor:
    """One node's.

    Args:
        house: the node.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._key = self._token = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = WebReady()
        self._opening = trio.Lock()
        self._stirred = trio.Event()
        self._going: list[tuple[subprocess.Popen[bytes], float]] = []
        """Processes that have been told to end, and when that must be so."""
        self._port = house.config.http_port
        self._cluster = ""
        """The tag of the secret that the authority for other machines' browsers is made from."""
        self._files: list[Path] = []

    async def run(self) -> None:
        """Until cancelled; what there is of it then ends by itself."""
        try:
            while True:
                due = self._process is None or self._is_outdated
                if self._house.config.http and due and not await self._opened():
                    return
                if self._process is None and not self._going:
                    await self._stirred.wait()
                await trio.sleep(LOOK_S)
                self._look()
        finally:
            self._close()

    async def _opened(self) -> bool:
        try:
            await self.open()
        except RequestError as error:
            self._house.warnings.add(str(error))
            return False
        return True

    def _look(self) -> None:
        """Whether what should have ended has, and what should not has not."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.returncode:
                log.warning("what served HTTP has ended with %d", self._process.returncode)
            self._close()
        now = trio.current_time()
        for process, _ in [going for going in self._going if going[1] <= now]:
            process.kill()
        self._going = [going for going in self._going if going[0].poll() is None]

    async def open(self, *, revoke: bool = False) -> WebReady:
        """Have it served; where that is, once it is so.

        Args:
            revoke: under a new key and token.

        Raises:
            RequestError: it cannot be: a port that is taken, a package that is missing.
        """
        async with self._opening:
            if revoke or not self._key:
                self._close()
                self._key, self._token = os.urandom(TOKEN_BYTES), os.urandom(TOKEN_BYTES)
            if self._process is None or self._process.poll() is not None or self._is_outdated:
                self._close()
                await self._start()
                self._stirred.set()
                self._stirred = trio.Event()
            return self._ready

    @property
    def _is_outdated(self) -> bool:
        """Whether it is served under an authority whose key somebody may know who was evicted since."""
        return self._house.config.http_lan and self._cluster != self._house.keys.secret.tag

    def ticket(self) -> str:
        """A one-time login."""
        return ticket_of(self._key, now_s=time.time(), nonce=os.urandom(16))

    @property
    def files(self) -> tuple[str, str, str]:
        """The files with the token, with the header that has it, and with the authority's certificate."""
        token, header, authority = (str(file) for file in self._files) if self._files else ("", "", "")
        return token, header, authority if self._house.config.http_lan else ""

    async def _start(self) -> None:
        house = self._house
        directory = house.paths.sockets(house.keys.secret.place)
        try:
            self._write_files(directory)
            self._process = subprocess.Popen(  # noqa: ASYNC220  (the few milliseconds of an exec)
                [sys.executable, "-P", "-m", "p2premap.web"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the terminal is for the daemon, which ends it
                close_fds=True,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(msgspec.json.encode(self._settings(directory)) + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            self._close()
            raise RequestError(Trouble.REFUSED, f"The page cannot be served: {error.strerror or error}.") from None
        with trio.move_on_after(START_S):
            line = await self._first_line(self._process)
            with contextlib.suppress(msgspec.DecodeError):
                self._ready = msgspec.json.decode(line, type=WebReady)
                if not self._ready.error:
                    self._port = self._ready.port
                    return
                self._close()
                raise RequestError(Trouble.REFUSED, f"The page cannot be served: {self._ready.error}")
        self._close()
        raise RequestError(Trouble.REFUSED, "The page cannot be served: its process did not start; see the node's log.")

    def _settings(self, directory: Path) -> WebSettings:
        house = self._house
        self._cluster = house.keys.secret.tag
        return WebSettings(
            node=house.identity.node.hex(),
            name=house.name,
            socket=str(sockets.socket_path(directory, house.identity.node)),
            label=label_of(house.name, house.identity.node),
            key=self._key.hex(),
            token=self._token.hex(),
            port=self._port,
            stays=house.config.http,
            cluster=self._cluster,
            authority=house.keys.secret.web_seed.hex() if house.config.http_lan else "",
            authority_file=str(self._files[2]) if house.config.http_lan else "",
            names=_names() if house.config.http_lan else [],
            uploads=str(house.identity.directory / "uploads"),
            jobs=str(house.user.config / "jobs"),
        )

    async def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        data = b""
        while not data.endswith(b"\n") and len(data) < LINE_BYTES_MAX:
            await trio.lowlevel.wait_readable(process.stdout.fileno())
            piece = os.read(process.stdout.fileno(), LINE_BYTES_MAX)
            if not piece:
                break
            data += piece
        return data

    def _write_files(self, directory: Path) -> None:
        """The token, for programs of this user: beside the sockets, which only this user can enter."""
        name = self._house.identity.node.hex()
        token, header = directory / f"{name}.token", directory / f"{name}.header"
        self._files = [token, header, directory / f"{name}.pem"]
        for path, text in ((token, self._token.hex()), (header, f"Authorization: Bearer {self._token.hex()}")):
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text + "\n")

    def _close(self) -> None:
        """Have the process end."""
        process, self._process = self._process, None
        for path in self._files:
            with contextlib.suppress(OSError):
                path.unlink()
        self._files = []
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if process.poll() is None:
            self._going.append((process, trio.current_time() + STOP_S))
