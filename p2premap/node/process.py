"""One worker process as the executor holds it: started, spoken to, stopped, and what became of it.

The process that is started is the supervisor; the worker is its child (see `p2premap.worker.supervisor`). Hanging up
is the hard kill: the supervisor then kills everything below it, and ends when nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import trio

from p2premap.errors import P2PRemapError
from p2premap.ids import Digest, JobId
from p2premap.node.processes import descendants, send_signal, signal_name
from p2premap.node.quick import QuickStream
from p2premap.wire import Frame, FrameDecoder, Message, encode_frame
from p2premap.worker.messages import WORKER
from p2premap.worker.page import Page, new_page

OUTPUT_NAME: Final = "output"
_READ_BYTES: Final = 256 << 10
_ENDING_S: Final = 5.0
"""For a supervisor to end what is below it, before it is killed itself."""
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""There is a slot for every CPU: libraries that start a thread for each of them would get in each other's way."""


class StartRefused(P2PRemapError):
    """The worker process could not be started. Its text is one sentence."""


class ProcessKey(NamedTuple):
    """What a process was started for; it is used for nothing else."""

    job: JobId
    runtime: str
    code: Digest
    environment: Digest | None = None


class Exit(NamedTuple):
    """What became of the worker: `text` completes the sentence "The worker process ..."."""

    text: str
    peak_bytes: int


class WorkerProcess:
    """A running worker. Make one with `start`, end it with `aclose`.

    `answers` maps the numbers of the present batch's attempts to (task, attempt), for whoever reads `page`; `loaded`
    means that it has been told its job, `condemned` that it has been told to end, so that it gets no more work.
    """

    def __init__(
        self, key: ProcessKey, directory: str, process: subprocess.Popen[bytes], ours: socket.socket, page: Page
    ) -> None:
        self.key = key
        self.directory = directory
        self.page = page
        self.answers: dict[int, tuple[int, int]] = {}
        self._process = process
        self._stream = QuickStream(ours)
        self._decoder = FrameDecoder(WORKER)
        self._unsent = b""
        self._next_number = 1
        self.loaded = False
        self.condemned = False

    @classmethod
    def start(cls, key: ProcessKey, directory: str, python: str = sys.executable) -> WorkerProcess:
        """Start a process in a directory of its own, with this interpreter.

        Blocks for the few milliseconds of an exec, and must be called from trio's own thread: the kernel takes the
        end of the thread that spawned for the death of the parent.

        Raises:
            StartRefused: the system refuses; nothing is left of it.
        """
        with contextlib.ExitStack() as undo:
            try:
                os.makedirs(f"{directory}/scratch", mode=0o700)
                undo.callback(shutil.rmtree, directory, ignore_errors=True)
                os.mkdir(f"{directory}/code", mode=0o700)
                descriptor = new_page(directory)
                undo.callback(os.close, descriptor)
                output = os.open(
                    f"{directory}/{OUTPUT_NAME}", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
                )
                undo.callback(os.close, output)
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                with theirs:
                    process = _spawn(python, theirs.fileno(), descriptor, output, f"{directory}/scratch")
                page = Page(descriptor)
            except OSError as error:
                raise StartRefused(f"No worker process could be started: {error.strerror or error}.") from None
            undo.pop_all()
        os.close(descriptor)
        os.close(output)
        return cls(key, directory, process, ours, page)

    @property
    def output(self) -> str:
        """The file that holds what the attempt running now has printed."""
        return f"{self.directory}/{OUTPUT_NAME}"

    @property
    def supervisor_pid(self) -> int:
        """The root of the process tree."""
        return self._process.pid

    def number(self, attempts: Sequence[tuple[int, int]]) -> int:
        """Number attempts that are about to be sent; the first one's number."""
        first = self._next_number
        self._next_number += len(attempts)
        self.answers.update(enumerate(attempts, first))
        return first

    def send_now(self, message: Message, payload: bytes = b"") -> bool:
        """Send as far as that needs no waiting. False: the rest leaves with `flush`, or before what is sent next.

        A broken socket is not reported here, but by `receive` and `ended`.

        Raises:
            LocalProtocolError: the message is over a cap; nothing is sent.
        """
        self._unsent += encode_frame(WORKER, message, payload)
        with contextlib.suppress(trio.BrokenResourceError):
            self._unsent = self._unsent[self._stream.send_now(self._unsent) :]
        return not self._unsent

    async def flush(self) -> None:
        """Wait until everything that was sent has left."""
        data, self._unsent = self._unsent, b""
        if data:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._stream.send_all(data)

    async def receive(self) -> Sequence[Frame]:
        """What the worker says next; empty when it has ended.

        Raises:
            RemoteProtocolError: user code has written to the socket; hang up.
        """
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return ()
            if frames := self._decoder.feed(data):
                return frames

    def ask_to_stop(self) -> None:
        """The soft signal, to the whole tree."""
        self.condemned = True
        send_signal((self._process.pid,), signal.SIGTERM)

    def hang_up(self) -> None:
        """The hard kill of the whole tree. What was sent before can still be received."""
        self.condemned = True
        with contextlib.suppress(OSError):
            self._stream.shutdown()

    async def ended(self) -> Exit:
        """Wait until nothing is left of the tree, and tell how the worker ended. Hangs up first."""
        self.hang_up()
        with trio.move_on_after(_ENDING_S) as scope:
            await self._gone()
        if scope.cancelled_caught:
            send_signal((*descendants(self._process.pid), self._process.pid), signal.SIGKILL)
            await self._gone()
        status = self.page.status
        return Exit("lost its supervisor" if status is None else _describe(status), self.page.peak_bytes)

    async def _gone(self) -> None:
        while self._process.poll() is None:
            try:
                descriptor = os.pidfd_open(self._process.pid)
            except (AttributeError, OSError):  # the system has none, or none left
                await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
                continue
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)

    async def aclose(self) -> None:
        """End the tree, then remove its directory. To be called once."""
        with trio.CancelScope(shield=True):
            await self.ended()
            self._stream.close()
            self.page.close()
            await trio.to_thread.run_sync(_remove, self.directory)


def _spawn(python: str, theirs: int, page: int, output: int, directory: str) -> subprocess.Popen[bytes]:
    environment = dict.fromkeys(_ONE_THREAD, "1") | os.environ
    if python != sys.executable:
        environment |= _inside(python)
        environment.pop("PYTHONPATH", None)  # of the node; it would come before what the job has had installed
    return subprocess.Popen(
        # -P: the scratch directory, which is the current one, must not hide modules
        [python, "-P", "-m", "p2premap.worker", str(theirs), str(page)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=environment,
        pass_fds=(theirs, page),
        start_new_session=True,
    )


def _inside(python: str) -> dict[str, str]:
    """What a virtual environment sets when somebody works in it: its programs are found first."""
    programs = os.path.dirname(python)
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"VIRTUAL_ENV": os.path.dirname(programs), "PATH": path}


def _remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (by somebody else, or because the machine ran out of memory)" if number == signal.SIGKILL else ""
        return f"was killed by {signal_name(number)}{hint}"
    return f"exited with code {os.WEXITSTATUS(status)}"
