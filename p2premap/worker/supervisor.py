"""The small process above each worker: it sees to it that nothing of the worker's tree outlives its purpose.

It is the parent of the worker, and the subreaper of all that the worker starts, so that no ``setsid`` or double fork
leads out of its reach. It runs no user code, so that neither a crash nor a held GIL keeps it from its work:

* the executor hangs up, or dies: everything below is killed;
* the worker ends: what it left behind is killed, and its wait status is put into the page;
* SIGTERM: the soft signal, passed on to everything below, once;
* this process itself is killed: the kernel kills the worker (PR_SET_PDEATHSIG), its socket closes.

The socket is watched for the hang-up only; the worker reads it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from p2premap.node.processes import become_subreaper, descendants, die_with_parent, send_signal, set_name

_HUNG_UP: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)
_WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S: Final = 0.001


class Wake(NamedTuple):
    """A pipe that becomes readable when one of the watched signals has come; its bytes are their numbers."""

    reader: int
    writer: int


def prepare() -> Wake:
    """Make this process the supervisor of what it will fork."""
    become_subreaper()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _WATCHED:
        signal.signal(number, _noted)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the second line, where the socket is the first; the executor spawns from a thread that lives as long as it does
    die_with_parent(signal.SIGHUP)
    set_name(b"p2premap-super")
    return Wake(reader, writer)


def _noted(number: int, frame: object) -> None:
    """The number of the signal goes into the pipe by itself."""


def leave(wake: Wake, supervisor: int) -> None:
    """In the child: become the worker, with ordinary signals, in a session of its own."""
    signal.set_wakeup_fd(-1)
    os.close(wake.reader)
    os.close(wake.writer)
    for number in _WATCHED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # user code that signals its process group must not reach the supervisor
    os.setsid()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)
    set_name(b"p2premap-worker")


def supervise(worker: int, *, lifeline: int, page: int, wake: Wake) -> NoReturn:
    """Watch over the worker until it has ended or the executor hangs up; then leave nothing behind."""
    end = _Reaper(worker)
    poller = select.poll()
    poller.register(lifeline, _HUNG_UP)
    poller.register(wake.reader, select.POLLIN)
    hung_up = False
    while not hung_up and end.status is None:
        ready = {descriptor for descriptor, _ in poller.poll()}
        signals = os.read(wake.reader, 512) if wake.reader in ready else b""
        if signal.SIGTERM in signals:
            send_signal(descendants(os.getpid()), signal.SIGTERM)
        hung_up = lifeline in ready or signal.SIGHUP in signals
        end.reap()
    _kill_all(end.reap)
    _tell(page, end)
    sys.stdout.flush()
    os._exit(0)


class _Reaper:
    """Collects children that have ended, and remembers how the worker did."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.status: int | None = None
        self.peak_bytes = 0

    def reap(self) -> bool:
        """Collect; False once there is no child left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self.worker:
                self.status = status
                self.peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kill_all(reap: Callable[[], bool]) -> None:
    """Kill descendants until there are none: whoever loses its parent meanwhile becomes this process's child."""
    while True:
        below = descendants(os.getpid())
        send_signal(below, signal.SIGKILL)
        if not reap() and not below:
            return
        time.sleep(_AGAIN_S)


def _tell(page: int, end: _Reaper) -> None:
    from p2premap.worker.page import Page

    if end.status is not None:
        Page(page).close_with(end.status, end.peak_bytes)
