"""A learning Ethernet switch in user space, with faults. Started by `netlab.Lab(fabric="tap")`, not by hand.

It makes one TAP device for each node, moves it into the node's namespace as eth0, prints "ready" and forwards frames
until it is killed. The control file is JSON, read again when it changes:
{"cut": [[from, to], ...], "delay": s, "jitter": s, "loss": p, "dup": p, "reorder": p, "corrupt": p, "rate": bytes/s}.
Its choices come from one seeded generator, though the timing of a real kernel never repeats.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from typing import Any

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
LOOK_S = 0.02
BURST = 64


def open_port(lab: str, node: int) -> int:
    """A TAP device whose other end is eth0 of the node."""
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH", f"t{node}".encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", f"t{node}", "netns", f"{lab}-n{node}", "name", "eth0"], check=True)
    return port


class Switch:
    """Ports by node, learnt addresses, frames under way, and the faults of now."""

    def __init__(self, ports: dict[int, int], control: str) -> None:
        self._ports, self._control = ports, control
        self._nodes = {port: node for node, port in ports.items()}
        self._rng = random.Random(1)
        self._where: dict[bytes, int] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._busy_until: dict[int, float] = {}
        self._faults: dict[str, Any] = {}
        self._cuts: set[tuple[int, ...]] = set()
        self._seen: tuple[int, int] | None = None

    def run(self) -> None:
        """Forward until killed."""
        poll, looked = select.epoll(), 0.0
        for port in self._nodes:
            poll.register(port, select.EPOLLIN)
        while True:
            now = time.monotonic()
            if now - looked > LOOK_S:
                looked = now
                self._look()
            while self._queue and self._queue[0][0] <= now:
                _, _, node, frame = heapq.heappop(self._queue)
                with contextlib.suppress(OSError):  # the device is down, or its queue is full
                    os.write(self._ports[node], frame)
            wait = min(LOOK_S, self._queue[0][0] - now) if self._queue else LOOK_S
            for port, _ in poll.poll(max(0.0, wait)):
                self._read(port)

    def _look(self) -> None:
        status = os.stat(self._control)
        if (seen := (status.st_mtime_ns, status.st_ino)) != self._seen:
            self._seen = seen
            with open(self._control) as file:
                self._faults = json.load(file)
            self._cuts = {tuple(pair) for pair in self._faults.get("cut", ())}

    def _read(self, port: int) -> None:
        source = self._nodes[port]
        for _ in range(BURST):
            try:
                frame = os.read(port, 65_536)
            except OSError:
                return
            self._where[frame[6:12]] = source
            known = None if frame[0] & 1 else self._where.get(frame[:6])
            for target in [known] if known else self._ports:
                if target != source:
                    self._forward(source, target, frame)

    def _chance(self, fault: str) -> bool:
        return self._rng.random() < self._faults.get(fault, 0)

    def _forward(self, source: int, target: int, frame: bytes) -> None:
        if (source, target) in self._cuts or self._chance("loss"):
            return
        if self._chance("corrupt"):
            place = self._rng.randrange(14, len(frame))
            flipped = frame[place] ^ 1 << self._rng.randrange(8)
            frame = frame[:place] + bytes([flipped]) + frame[place + 1 :]
        at = time.monotonic() + self._faults.get("delay", 0) + self._rng.random() * self._faults.get("jitter", 0)
        if rate := self._faults.get("rate"):  # a slow link: frames wait in line
            at = self._busy_until[target] = max(at, self._busy_until.get(target, 0.0)) + len(frame) / rate
        if self._chance("reorder"):
            at += 0.05 * self._rng.random()
        for _ in range(2 if self._chance("dup") else 1):
            self._count += 1
            heapq.heappush(self._queue, (at, self._count, target, frame))


def main(lab: str, nodes: int, control: str) -> None:
    """Build and run."""
    switch = Switch({node: open_port(lab, node) for node in range(1, nodes + 1)}, control)
    print("ready", flush=True)
    switch.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
