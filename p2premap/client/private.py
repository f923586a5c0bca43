"""A cluster of this program's own: nodes on this machine under a temporary directory, gone when it is closed.

The nodes are ordinary ones (`p2premap node`), each a process of its own. They end when their standard input ends,
so that even the death of this process by SIGKILL leaves none behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from p2premap.client.connection import local
from p2premap.control.nodes import ListNodes, Nodes
from p2premap.errors import ClusterError, NodeUnavailable, PeerUnreachable
from p2premap.node.paths import Paths

START_S = 60.0
STOP_S = 5.0
"""Who is not gone by then is killed, where all of them go."""
LEAVE_S = 60.0
"""One that hands over what only it has may take as long as that takes."""
LOOK_S = 0.02


class PrivateCluster:
    """Some nodes that know each other and nobody else; a context manager.

    Args:
        names: of the nodes.
        slots: worker processes of each.

    Raises:
        ClusterError: on entering, a node did not start; the sentence has its last words.
    """

    def __init__(self, names: Sequence[str], *, slots: int) -> None:
        self._names = tuple(names)
        self._slots_each = slots
        self._processes: list[subprocess.Popen[bytes]] = []
        self._home = ""

    @property
    def slots(self) -> int:
        """Worker processes of all nodes."""
        return self._slots_each * len(self._names)

    @property
    def pids(self) -> list[int]:
        """Of the nodes, in order of their names."""
        return [process.pid for process in self._processes]

    @property
    def home(self) -> str:
        """P2PREMAP_HOME of the nodes, for commands that shall talk to them."""
        return self._home

    @property
    def paths(self) -> Paths:
        """Where the nodes' sockets are."""
        home = Path(self._home)
        return Paths(home / "config", home / "state", home / "run")

    def __enter__(self) -> Self:
        # /tmp and not TMPDIR, which may be a long path: Unix sockets have short names
        self._home = tempfile.mkdtemp(prefix="p2p-", dir="/tmp")
        try:
            for name in self._names:
                self._processes.append(self._start(name))
            until = time.monotonic() + START_S
            for name, process in zip(self._names, self._processes, strict=True):
                self._await_start(name, process, until)
            self._await_each_other(until)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        until = time.monotonic() + STOP_S
        for process in self._processes:
            try:
                process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def kill(self, name: str) -> None:
        """SIGKILL for one node, as a power cut would have it."""
        process = self._processes[self._names.index(name)]
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """Have one node end in good order."""
        process = self._processes[self._names.index(name)]
        process.terminate()
        process.wait(LEAVE_S)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        options = ("--name", name, "--slots", str(self._slots_each), "--json", "--until-eof")
        with (Path(self._home) / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "p2premap", "node", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "P2PREMAP_HOME": self._home},
                start_new_session=True,  # Ctrl-C at the terminal is for us to handle
            )

    def _await_start(self, name: str, process: subprocess.Popen[bytes], until: float) -> None:
        """Wait for the line that a node prints when it is up."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], max(until - time.monotonic(), 0.0))
        line = process.stdout.readline() if ready else b""
        try:
            json.loads(line)
        except ValueError:
            last = (Path(self._home) / f"{name}.log").read_text(errors="replace").strip().splitlines()
            said = f": {last[-1]}" if last else f" within {START_S:.0f} s."
            raise ClusterError(f"The node {name} did not start{said}") from None

    def _await_each_other(self, until: float) -> None:
        """Wait until every node sees all of them."""
        for name in self._names:
            while not self._sees_all(name):
                if time.monotonic() > until:
                    raise ClusterError(f"The node {name} did not find the others within {START_S:.0f} s.")
                time.sleep(LOOK_S)

    def _sees_all(self, name: str) -> bool:
        """Whether this node sees all of them, and what they offer; one that is too busy to welcome us does not yet."""
        try:
            with local(name, paths=self.paths, patience_s=0.0) as connection:
                views = connection.ask(lambda n: ListNodes(request=n), Nodes).views
        except (NodeUnavailable, PeerUnreachable):
            return False
        return sum(view.state == "alive" and view.pid > 0 for view in views) == len(self._names)
