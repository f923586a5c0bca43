"""A scripted daemon on a real Unix socket, speaking the real frames: what a client sees, without a cluster."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from p2premap.control import FROM_CLIENT, FROM_DAEMON
from p2premap.control.answers import Welcome
from p2premap.ids import NodeId
from p2premap.node import sockets
from p2premap.node.paths import Paths
from p2premap.wire import FrameDecoder, Message, encode_frame

NODE = NodeId(bytes(range(16)))
Answer = Message | tuple[Message, bytes] | None
"""A message, with its payload or without; None hangs up."""
Script = Callable[[Message, bytes], Iterable[Answer]]


class FakeDaemon:
    """Listens in `paths` until it is closed; answers each request by what `script` yields for it."""

    def __init__(self, paths: Paths, script: Script, *, node: NodeId = NODE, name: str = "pi1") -> None:
        self.requests: list[Message] = []
        self.payloads: list[bytes] = []
        self.welcome: bytes = encode_frame(
            FROM_DAEMON, Welcome(node=node, name=name, pid=4242, version="0.1.0", cluster="c0ffee")
        )
        self._script = script
        directory = paths.sockets("c0ffee")
        self.path: Path = sockets.socket_path(directory, node)
        self._listener = sockets.publish(directory, node)
        self._streams: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Die: the socket refuses, and every connection breaks once what has been answered on it is sent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(30)  # from here on it takes nobody in
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RD)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(30)

    def _listen(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self._streams.append(stream)
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        decoder = FrameDecoder(FROM_CLIENT)
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        writer = threading.Thread(target=_write, args=(stream, answers), daemon=True)
        writer.start()
        with stream, contextlib.suppress(OSError):
            answers.put(self.welcome)
            try:
                self._converse(stream, decoder, answers)
            finally:
                answers.put(b"")
                writer.join(30)
                stream.shutdown(socket.SHUT_RDWR)  # also where nobody takes what was answered

    def _converse(self, stream: socket.socket, decoder: FrameDecoder, answers: queue.SimpleQueue[bytes]) -> None:
        while data := stream.recv(1 << 16):
            for frame in decoder.feed(data):
                self.requests.append(frame.message)
                self.payloads.append(frame.payload)
                for answer in self._script(frame.message, frame.payload):
                    if answer is None:
                        return
                    message, payload = answer if isinstance(answer, tuple) else (answer, b"")
                    answers.put(bytes(encode_frame(FROM_DAEMON, message, payload)))


def _write(stream: socket.socket, answers: queue.SimpleQueue[bytes]) -> None:
    """Send what is put, until it is empty: a daemon reads also while nobody takes its answers."""
    with contextlib.suppress(OSError):
        while data := answers.get():
            stream.sendall(data)
