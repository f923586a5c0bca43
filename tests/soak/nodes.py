"""Nodes that a trial may kill, freeze, cut off and start again: each a process of its own.

All nodes of one user on one machine (`OneMachine`), or each on a machine of its own in a lab of network namespaces
(`ManyMachines`). Either way nothing outlives the `with`: nodes end when their standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from p2premap.client.connection import PATIENCE_S, Connection, local
from p2premap.control.membership import Invited, MakeInvite
from p2premap.control.nodes import ListNodes, Nodes
from p2premap.errors import ClusterError, NodeUnavailable, P2PRemapError
from p2premap.node.paths import Paths
from tests.cluster import environment
from tests.netns.netlab import Lab
from tests.soak.freezer import Freezer

START_S = 60.0
STOP_S = 30.0
LOOK_S = 0.02
REPOSITORY = Path(__file__).parent.parent.parent

# each machine has an id of its own; and what only the first machine has is hidden from the others
AS_MACHINE = """
if [ -e /etc/machine-id ]; then mount --bind "$P2PREMAP_HOME/machine-id" /etc/machine-id; fi
if [ -n "$SOAK_HIDDEN" ]; then mount -t tmpfs none "$SOAK_HIDDEN"; fi
exec "$@"
"""


class Node:
    """One node's processes, life after life.

    Args:
        name: of the node.
        home: P2PREMAP_HOME.
        prefix: of the command that starts it, such as `ip netns exec`.
        variables: of its environment, beside the usual ones.

    Attributes:
        id: in hexadecimal; known once it has started.
        resident_first: bytes of memory that its daemon held when a trial first looked; 0: none has.
    """

    def __init__(
        self, name: str, home: Path, *, prefix: Sequence[str] = (), variables: dict[str, str] | None = None
    ) -> None:
        self.name, self.home, self.id = name, home, ""
        self.log = home / f"{name}.log"
        self.prefix = tuple(prefix)
        self.environment = {**environment(home), "PYTHONPATH": str(REPOSITORY), **(variables or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.freezer: Freezer | None = None
        self.resident_first = 0

    @property
    def paths(self) -> Paths:
        """Where its socket is."""
        return Paths(self.home / "config", self.home / "state", self.home / "run")

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether its daemon lives, frozen or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self.freezer is not None and self.freezer.frozen

    def begin(self, *options: str) -> None:
        """Start the daemon, and do not wait for it."""
        self._close()
        argv = [*self.prefix, sys.executable, "-m", "p2premap", "node", "--name", self.name, "--slots", "1", "--json"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "--until-eof", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def await_up(self, until: float) -> None:
        """Wait for the line that it prints when it is up.

        Raises:
            ClusterError: it did not start.
        """
        process = self.process
        assert process is not None
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], max(until - time.monotonic(), 0.0))
        line = process.stdout.readline() if ready else b""
        try:
            self.id = json.loads(line)["id"]
        except ValueError:
            last = self.log.read_text(errors="replace").strip()[-2000:]
            raise ClusterError(f"The node {self.name} did not start: {last}") from None

    def connect(self, *, patience_s: float = PATIENCE_S, tick: Callable[[], None] = lambda: None) -> Connection:
        """A line to this node and no other; see `local`."""
        return local(self.name, paths=self.paths, patience_s=patience_s, tick=tick)

    def kill(self) -> float:
        """SIGKILL; returns when it was sent, once the process is gone.

        Raises:
            AssertionError: it had ended before, or ended otherwise.
        """
        process = self.process
        assert process is not None
        assert process.poll() is None, f"{self.name} had ended by itself: {process.returncode}"
        at = time.monotonic()
        process.send_signal(signal.SIGKILL)
        code = process.wait(STOP_S)
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}, not by SIGKILL"
        return at

    def signal(self, number: int) -> None:
        """Send a signal to the daemon."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """However it is now: no process of it is left."""
        if self.freezer is not None:
            self.freezer.thaw()
        if self.runs:
            assert self.process is not None
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.freezer is not None:
            self.freezer.remove()
            self.freezer = None
        self._close()

    def _close(self) -> None:
        for stream in self._streams():
            with contextlib.suppress(OSError):
                stream.close()

    def _streams(self) -> Iterator[IO[bytes]]:
        if self.process is not None:
            yield from (s for s in (self.process.stdin, self.process.stdout) if s is not None)


class Cluster:
    """Some nodes that know each other; a context manager.

    Attributes:
        nodes: by name.
        work_dir: seen by all nodes.
        inputs_dir: seen where the first node runs.
        on_failed_start: called before what is there of the nodes is removed, where not all of them came up.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # /tmp and not TMPDIR, which may be a long path: Unix sockets have short names
        self.home = Path(tempfile.mkdtemp(prefix="p2p-", dir="/tmp"))
        self.work_dir = self.home / "work"
        self.inputs_dir = self.home / "inputs"
        for directory in (self.work_dir, self.inputs_dir):
            directory.mkdir()
        self.nodes: dict[str, Node] = {}
        self.on_failed_start: Callable[[], object] = lambda: None
        self._names = tuple(names)

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException as error:
            if isinstance(error, (ClusterError, TimeoutError)):
                self.on_failed_start()
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            if node.runs and not node.frozen:
                assert node.process is not None
                node.process.terminate()  # all at once: then they need not wait for one another
        for node in self.nodes.values():
            node.end()
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self) -> None:
        """Start all nodes; returns when each sees all of them."""
        raise NotImplementedError

    def restart(self, names: Sequence[str]) -> None:
        """Start these nodes again, all at once; returns when each says that it is up."""
        for name in names:
            self.nodes[name].begin()
        until = time.monotonic() + START_S
        for name in names:
            self.nodes[name].await_up(until)

    def by_id(self, node: bytes | str) -> Node:
        """The node of this id."""
        wanted = node if isinstance(node, str) else node.hex()
        return next(n for n in self.nodes.values() if n.id == wanted)

    def connect(
        self,
        *,
        but: Sequence[Node] = (),
        patience_s: float = PATIENCE_S,
        tick: Callable[[], None] = lambda: None,
    ) -> Connection:
        """A line to any node that lives and is not left out; see `local`.

        Raises:
            NodeUnavailable: none answers.
        """
        for node in self.nodes.values():
            if node.runs and node not in but and not node.frozen:
                with contextlib.suppress(P2PRemapError):
                    return node.connect(patience_s=patience_s, tick=tick)
        raise NodeUnavailable("No node of the trial answers.")

    def isolate(self, node: Node) -> None:
        """Cut this node's machine from the network."""
        raise NotImplementedError

    def heal(self) -> None:
        """Mend the network."""
        raise NotImplementedError

    def await_all(self, until: float) -> None:
        """Wait until each node sees as many living members as there are nodes."""
        for node in self.nodes.values():
            wait_until(lambda node=node: alive(node) == len(self.nodes), until, f"{node.name} does not see all others")  # type: ignore[misc]


class OneMachine(Cluster):
    """All nodes are one user's on this machine."""

    def start(self) -> None:
        """See `Cluster.start`."""
        until = time.monotonic() + START_S
        self.nodes = {name: Node(name, self.home) for name in self._names}
        for node in self.nodes.values():
            node.begin()
        for node in self.nodes.values():
            node.await_up(until)
        self.await_all(until)


class ManyMachines(Cluster):
    """Each node has a machine of its own: a network namespace, a home, a machine id. Needs root.

    The input files are on the first machine only.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.lab = Lab(len(names))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.lab.down()

    def start(self) -> None:
        """See `Cluster.start`."""
        until = time.monotonic() + START_S
        self.lab.__enter__()
        for number, name in enumerate(self._names, 1):
            home = self.home / name
            home.mkdir()
            (home / "machine-id").write_text(f"{number:032x}\n")
            hidden = {"SOAK_HIDDEN": str(self.inputs_dir)} if number > 1 else {}
            prefix = ("ip", "netns", "exec", self.lab.namespace(number), "sh", "-c", AS_MACHINE, "sh")
            self.nodes[name] = Node(name, home, prefix=prefix, variables=hidden)
        first, *others = self.nodes.values()
        first.begin()
        first.await_up(until)
        with first.connect() as connection:
            connection.ask(lambda n: MakeInvite(request=n), Invited)  # opens it to the network
        for other in others:
            # as after a join: the secret, and an address
            shutil.copytree(first.home / "config", other.home / "config")
            other.begin("--join", self.lab.ip(1))
        for other in others:
            other.await_up(until)
        self.await_all(until)

    def isolate(self, node: Node) -> None:
        """See `Cluster.isolate`."""
        port = f"p{self._names.index(node.name) + 1}"
        ways = (f"iifname {port}", f"oifname {port}")
        self.lab.nft("\n".join(f"add rule bridge lab cuts {way} counter drop" for way in ways))

    def heal(self) -> None:
        """See `Cluster.heal`."""
        self.lab.heal()


class Standing:
    """Nodes that stay up from one trial to the next; a context manager."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None

    def lend(self, make: Callable[[], Cluster]) -> Cluster:
        """The nodes: started now if there are none, or if one of them has ended.

        Raises:
            ClusterError, TimeoutError: they do not come up.
        """
        if self._cluster is None or not all(node.runs for node in self._cluster.nodes.values()):
            self.__exit__()
            self._cluster = make().__enter__()
        return self._cluster

    def __enter__(self) -> Standing:
        return self

    def __exit__(self, *_: object) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.__exit__()


def alive(node: Node) -> int:
    """How many living members this node sees; 0 where it does not answer."""
    try:
        with node.connect() as connection:
            views = connection.ask(lambda n: ListNodes(request=n), Nodes, timeout_s=5.0).views
    except P2PRemapError:
        return 0
    return sum(view.state == "alive" for view in views)


def wait_until(true: Callable[[], bool], until: float, otherwise: str) -> None:
    """Return when `true` says so.

    Raises:
        TimeoutError: the instant `until` (monotonic) has come; with the sentence `otherwise`.
    """
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(otherwise)
        time.sleep(LOOK_S)


def leftovers(home: Path) -> list[int]:
    """Pids of processes whose command line or environment names this home: none, once its cluster is closed."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.fsencode(home) in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found
