"""A node carries out what it has begun, also for a client that has gone; and lives where descriptors are scarce."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

from p2premap.client.connection import local
from p2premap.control.membership import LeaveCluster
from p2premap.control.nodes import GetStatus, Status, Stop
from p2premap.ids import RequestId
from p2premap.node import secret
from p2premap.node.paths import Paths
from p2premap.node.sockets import listed
from p2premap.protocol import FROM_CLIENT
from p2premap.wire import Message, encode_frame
from tests.cluster import COMMAND, environment, eventually, start


def say_and_hang_up(paths: Paths, message: Message) -> None:
    """Send one request to the only node there, and close before it can answer."""
    (directory,) = paths.runtime.iterdir()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(listed(directory)[0]))
        stream.sendall(encode_frame(FROM_CLIENT, message))


def test_a_node_stops_although_the_client_has_gone(home: Path, paths: Paths) -> None:
    node = start(home, "node", "--json")
    try:
        assert node.stdout is not None
        assert node.stdout.readline()
        say_and_hang_up(paths, Stop(request=RequestId(1)))
        assert node.wait(60) == 0
    finally:
        node.kill()
        node.communicate()


def test_a_node_leaves_although_the_client_has_gone(home: Path, paths: Paths) -> None:
    node = start(home, "node", "--json")
    try:
        assert node.stdout is not None
        assert node.stdout.readline()
        before = secret.load(paths.config)
        say_and_hang_up(paths, LeaveCluster(request=RequestId(1)))
        assert node.stdout.readline()  # it is up again, as a cluster of its own
        after = secret.load(paths.config)
        assert before is not None
        assert after is not None
        assert after.tag != before.tag
        with local(paths=paths) as line:
            assert line.welcome.cluster == after.tag
    finally:
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=60)


def test_a_node_without_free_descriptors_lives_on(home: Path, paths: Paths) -> None:
    node = subprocess.Popen(
        [*COMMAND, "node", "--json"],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
    )
    lines: list[socket.socket] = []
    try:
        assert node.stdout is not None
        assert node.stdout.readline()
        (directory,) = paths.runtime.iterdir()
        where = str(listed(directory)[0])
        for _ in range(100):
            lines.append(socket.socket(socket.AF_UNIX))
            lines[-1].connect(where)
        open_descriptors = Path(f"/proc/{node.pid}/fd")
        eventually(lambda: len(os.listdir(open_descriptors)) >= 99)
        looked = _switches(node.pid)
        eventually(lambda: _switches(node.pid) > looked + 3 or node.poll() is not None)
        assert node.poll() is None
        for line in lines:
            line.close()
        with local(paths=paths) as again:
            assert again.ask(lambda n: GetStatus(request=n), Status).members == 1
    finally:
        for line in lines:
            line.close()
        node.kill()
        node.communicate()


def _switches(pid: int) -> int:
    """How often a process has waited for something: it grows while its loop runs."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    return 0
