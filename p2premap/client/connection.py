"""A program's line to a daemon: plain blocking sockets, no trio, so that a command starts in a tenth of a second.

::

    local() -> Connection      the first daemon of this user on this machine that says `Welcome`
    Connection.ask(...)        one request, its one answer
    Connection.stream(...)     one request, its many answers
    Connection.next(...)       for those who must look up between two answers
    Connection.post(...)       for those who say more while they listen

A connection carries one request at a time; who needs two things at once opens two. What is sent and received is
`p2premap.control`, checked by the same registry that the daemon uses.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from p2premap.control import FROM_CLIENT, FROM_DAEMON
from p2premap.control.answers import Done, Refused, Trouble, Welcome
from p2premap.errors import ClusterError, ConfigError, NodeUnavailable, PeerUnreachable, RemoteProtocolError
from p2premap.ids import RequestId
from p2premap.node import sockets
from p2premap.node.paths import Paths
from p2premap.wire import Frame, FrameDecoder, Message, encode_frame

WELCOME_S = 1.0
"""A daemon that runs says `Welcome` within milliseconds; one that is stopped (SIGSTOP) never does. Others are asked
after this."""
PATIENCE_S = 10.0
"""Where no other will do, one that says nothing is asked again for so long: its machine may be overloaded."""
SECOND_LOOK_S = 0.05
"""A connection to a process just killed may still succeed, so a broken first word is tried again after this."""
ANSWER_S = 30.0
TICK_S = 0.5
RECEIVE_BYTES = 1 << 18

NO_NODE = "No p2premap node answers on this machine; start one with `p2premap node`."

M = TypeVar("M", bound=Message)


class RequestRefused(ClusterError):
    """A daemon did not carry out a request. Definite: nothing was changed.

    Args:
        message: the daemon's sentence.
        trouble: whose fault it is.
    """

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble


class Stream(Protocol):
    """What a connection needs of a socket."""

    @property
    def family(self) -> int:
        """AF_UNIX where the other end is on this machine."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes."""

    def sendall(self, data: bytes | bytearray | memoryview, /) -> None:
        """All of them."""

    def settimeout(self, timeout_s: float | None, /) -> None:
        """For each of the two."""

    def dup(self) -> Stream:
        """The same, with a time limit of its own."""

    def shutdown(self, how: int, /) -> None:
        """Both ends see the end."""

    def close(self) -> None:
        """Hang up."""


class _Silent(PeerUnreachable):
    """The daemon's process exists but says nothing: asking again at once would only wait again."""


class NodeSilent(NodeUnavailable):
    """A node of this machine is there and says nothing: it may be stopped, or the machine overloaded. Indefinite."""


class Connection:
    """A line to one daemon that has said `Welcome`.

    `files` tells whether its files may be this process's too: it is on this machine, and nothing speaks against it.

    Args:
        stream: connected; owned from here on.
        where: for people, such as the socket's path.
        welcome_s: how long to wait for the daemon's first words.

    Raises:
        PeerUnreachable: it did not speak in time, or closed.
        RemoteProtocolError: what it said is no `Welcome`; it may be of another version.
    """

    def __init__(self, stream: Stream, where: str, *, welcome_s: float = WELCOME_S) -> None:
        self._socket = stream
        self.files = stream.family == socket.AF_UNIX
        self._outward: Stream | None = None
        self._where = where
        self._decoder = FrameDecoder(FROM_DAEMON)
        self._frames: deque[Frame] = deque()
        self._requests = 0
        try:
            frame = self._receive(time.monotonic() + welcome_s)
            if frame is None:
                raise _Silent(f"the node at {where} does not answer; it may be stopped or overloaded.")
            if not isinstance(frame.message, Welcome):
                raise RemoteProtocolError(f"the node at {where} speaks out of turn; it may be of another version.")
        except BaseException:
            self.close()
            raise
        self.welcome = frame.message

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; never raises."""
        self._socket.close()
        if self._outward is not None:
            self._outward.close()

    def send(self, make: Callable[[RequestId], Message], payload: bytes | memoryview = b"") -> RequestId:
        """Send the request that `make` builds around a fresh number; return the number.

        Raises:
            PeerUnreachable: the daemon is gone. Indefinite.
            LocalProtocolError: the request is over a cap.
        """
        self._requests += 1
        request = RequestId(self._requests)
        data = encode_frame(FROM_CLIENT, make(request), payload)
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from None
        return request

    def post(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Say something that has no answer of its own; another thread may be waiting in `next` meanwhile.

        Raises:
            PeerUnreachable: the daemon is gone. Indefinite.
            LocalProtocolError: the message is over a cap.
        """
        data = encode_frame(FROM_CLIENT, message, payload)
        try:
            if self._outward is None:
                # a socket object has one timeout, and `next` sets it
                self._outward = self._socket.dup()
                self._outward.settimeout(ANSWER_S)
            self._outward.sendall(data)
        except OSError as error:
            raise self._gone(error) from None

    def hang_up(self) -> None:
        """Have whoever waits in `next` see the end at once; never raises. `close` is still to be called."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def next(self, request: RequestId, *, timeout_s: float | None = ANSWER_S) -> Frame | None:
        """The next answer to this request; None when the time is over. Late answers to earlier requests are dropped.

        Raises:
            RequestRefused: the daemon said no.
            PeerUnreachable: the daemon is gone. Indefinite.
            RemoteProtocolError: it sent nonsense.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (frame := self._receive(until)) is not None:
            if getattr(frame.message, "request", None) != request:
                continue
            if isinstance(frame.message, Refused):
                raise RequestRefused(frame.message.text, frame.message.trouble)
            return frame
        return None

    def ask(
        self,
        make: Callable[[RequestId], Message],
        answer: type[M],
        *,
        payload: bytes | memoryview = b"",
        timeout_s: float | None = ANSWER_S,
    ) -> M:
        """Send a request and wait for its one answer, of this class.

        Raises:
            RequestRefused: the daemon said no. Definite.
            PeerUnreachable: no answer in time, or the daemon is gone. Indefinite.
            RemoteProtocolError: another kind of answer.
        """
        frame = self.next(self.send(make, payload), timeout_s=timeout_s)
        if frame is None:
            raise PeerUnreachable(f"The node {self.welcome.name} did not answer within {timeout_s:.0f} s.")
        if not isinstance(frame.message, answer):
            raise RemoteProtocolError(f"The node {self.welcome.name} gave an answer that does not fit the question.")
        return frame.message

    def do(self, make: Callable[[RequestId], Message], *, timeout_s: float | None = ANSWER_S) -> str:
        """Have something done; return what the daemon says about it, or ""."""
        return self.ask(make, Done, timeout_s=timeout_s).text

    def stream(
        self, make: Callable[[RequestId], Message], answer: type[M], *, tick: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[M, bytes]]:
        """Send a request and yield its answers, each with its payload, for as long as the caller wants more.

        Args:
            tick: called at least twice a second while an answer is waited for; may raise to end the waiting.

        Raises:
            as `ask` does, for each answer anew.
        """
        request = self.send(make)
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            tick()
            frame = self.next(request, timeout_s=min(TICK_S, ANSWER_S))
            if frame is None:
                continue
            if not isinstance(frame.message, answer):
                raise RemoteProtocolError(f"The node {self.welcome.name} gave an answer that does not fit.")
            yield frame.message, frame.payload
            until = time.monotonic() + ANSWER_S
        raise PeerUnreachable(f"The node {self.welcome.name} did not go on within {ANSWER_S:.0f} s.")

    def _receive(self, until: float | None) -> Frame | None:
        """The next frame of any kind; None when the instant `until` (of the monotonic clock) has come."""
        while not self._frames:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            try:
                self._socket.settimeout(left)
                data = self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._gone(error) from None
            if not data:
                raise self._gone(None)
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    def _gone(self, error: OSError | None) -> PeerUnreachable:
        why = f" ({error.strerror})" if error is not None and error.strerror else ""
        return PeerUnreachable(f"The node at {self._where} has closed the connection{why}.")


def local(
    node: str = "",
    *,
    paths: Paths | None = None,
    patience_s: float = PATIENCE_S,
    tick: Callable[[], None] = lambda: None,
) -> Connection:
    """A connection to a daemon of this user on this machine: the oldest that answers.

    Args:
        node: a name, or the beginning of an id; "" means any.
        paths: whose directories; by default the current user's.
        patience_s: so long one that says nothing is asked again, where no other will do; at 0 all are asked once, for
            callers that come again themselves.
        tick: called each time that such a one has said nothing for `WELCOME_S`; may raise to end the waiting.

    Raises:
        NodeUnavailable: none answers, or none of that name.
        NodeSilent: likewise, and one is there.
        ConfigError: the runtime directory is not ours.
    """
    return _patiently(partial(_called, node, paths or Paths.of_user()), patience_s, tick)


def _patiently(look: Callable[[], Connection], patience_s: float, tick: Callable[[], None]) -> Connection:
    """What a look finds, taken again for so long where it meets a node that says nothing."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return look()
        except NodeSilent:
            if time.monotonic() >= until:
                raise
            tick()
            time.sleep(SECOND_LOOK_S)


def _called(node: str, paths: Paths) -> Connection:
    """As `local`, at one look."""
    seen: list[str] = []
    silent = False
    for found in _asked(paths):
        if isinstance(found, Connection):
            if _is_called(found.welcome, node):
                return found
            seen.append(found.welcome.name)
            found.close()
        silent = silent or isinstance(found, _Silent)
    text = f"No node called {node!r} answers on this machine; there is {', '.join(sorted(seen))}"
    if silent:
        raise NodeSilent(f"{text}, and one that does not say who it is: it may be stopped or overloaded.")
    raise NodeUnavailable(f"{text}.")


def only(node: str = "", *, paths: Paths | None = None) -> Connection:
    """As `local`, for what must not happen to just any node.

    Raises:
        ConfigError: several nodes are meant.
    """
    connection = local(node, paths=paths)
    for other in answering(paths or Paths.of_user()):
        with other:
            if other.welcome.node != connection.welcome.node and _is_called(other.welcome, node):
                connection.close()
                both = sorted(f"{w.name} {w.node.hex()[:8]}" for w in (connection.welcome, other.welcome))
                raise ConfigError(
                    f"Several nodes of this machine may be meant ({', '.join(both)}, ...): say which with `p2premap "
                    "--node NAME` (or the beginning of its id) before the command."
                )
    return connection


def answering(paths: Paths) -> Iterator[Connection]:
    """Connections to the daemons of this machine that answer, the oldest first.

    Raises:
        NodeUnavailable: none does.
        NodeSilent: none does, and one is there.
    """
    return (found for found in _asked(paths) if isinstance(found, Connection))


def _asked(paths: Paths) -> Iterator[Connection | ClusterError | RemoteProtocolError]:
    """What comes of asking each daemon of this machine, the oldest first; raises as `answering` does."""
    trouble: ClusterError | RemoteProtocolError | None = None
    answers = False
    for path in _local_sockets(paths):
        try:
            found = _connect(path)
        except (ClusterError, RemoteProtocolError) as error:
            trouble = trouble if isinstance(trouble, _Silent) else error
            yield error
        except OSError:
            continue
        else:
            answers = True
            yield found
    if not answers:
        unavailable = NodeSilent if isinstance(trouble, _Silent) else NodeUnavailable
        raise unavailable(f"No p2premap node answers on this machine: {trouble}" if trouble else NO_NODE)


def connect_to(path: str, *, patience_s: float = PATIENCE_S, tick: Callable[[], None] = lambda: None) -> Connection:
    """A connection to the daemon whose socket this is; no other will do, so one that says nothing is waited for.

    Args:
        patience_s, tick: as of `local`.

    Raises:
        PeerUnreachable: it does not answer.
        NodeSilent: it said nothing for so long.
    """
    return _patiently(partial(_only_one, path), patience_s, tick)


def _only_one(path: str) -> Connection:
    """As `connect_to`, at one look."""
    try:
        return _connect(Path(path))
    except _Silent:  # and not merely unreachable: who tries that again need not wait as long once more
        raise NodeSilent(f"The node at {path} does not answer; it may be stopped or overloaded.") from None
    except OSError as error:
        raise PeerUnreachable(f"The node at {path} does not answer: {error.strerror}.") from None


def _is_called(welcome: Welcome, node: str) -> bool:
    return not node or welcome.name == node or (len(node) >= 4 and welcome.node.hex().startswith(node.lower()))


def _connect(path: Path) -> Connection:
    try:
        return _connect_once(path)
    except _Silent:
        raise
    except PeerUnreachable:
        time.sleep(SECOND_LOOK_S)
        return _connect_once(path)


def _connect_once(path: Path) -> Connection:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(WELCOME_S)
        stream.connect(str(path))
    except (TimeoutError, BlockingIOError):  # the latter: so many wait already that there is no room for one more
        stream.close()
        raise _Silent(f"the node at {path} does not answer; it may be stopped or overloaded.") from None
    except BaseException:
        stream.close()
        raise
    return Connection(stream, str(path))


def _local_sockets(paths: Paths) -> Iterator[Path]:
    """Every socket of ours; looking must not make directories, or a mere `status` would."""
    try:
        clusters = sorted(entry for entry in paths.runtime.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"Cannot read {paths.runtime}: {error.strerror}.") from None
    for cluster in clusters:
        yield from sockets.listed(cluster)
