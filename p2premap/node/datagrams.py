"""Datagrams between members: sealed messages over the node's UDP sockets. Best effort, never blocks.

What comes is drained in gulps, so that after a stall everything that waited in the kernel is heard in one turn.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import trio

from p2premap.errors import LocalProtocolError, RemoteProtocolError
from p2premap.gossip.events import Received
from p2premap.ids import Address, NodeId
from p2premap.node.listeners import address_from, socket_address
from p2premap.node.seal import DATAGRAM_BYTES_MAX, Refusal, Sealer
from p2premap.wire import Message, Registry

GULP: Final = 256
"""Datagrams taken from one socket before other tasks get their turn."""

Deliver: TypeAlias = Callable[[Received], None]

log = logging.getLogger(__name__)


class Datagrams:
    """Sends and receives on whatever sockets it is given.

    Args:
        sealer: this node's.
        registry: what a datagram may carry.
        deliver: where messages go; sync.
        salt_idle_s: after sending nothing for so long by the wall clock, this node may have been suspended or
            restored from an image: it draws a new salt first.
        clock: the wall clock, which goes on while a machine sleeps.
    """

    def __init__(
        self,
        *,
        sealer: Sealer,
        registry: Registry,
        deliver: Deliver,
        salt_idle_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sealer = sealer
        self._registry = registry
        self._deliver = deliver
        self._salt_idle_s = salt_idle_s
        self._clock = clock
        self._sent_at = clock()
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._counts: Counter[str] = Counter()

    def statistics(self) -> Mapping[str, int]:
        """Counters by name."""
        return {**self._sealer.statistics(), **self._counts}

    def send(self, peer: NodeId, address: Address, message: Message) -> None:
        """Send once; what cannot leave is dropped and counted, for gossip repeats what matters."""
        now = self._clock()
        if not 0 <= now - self._sent_at <= self._salt_idle_s:
            self._sealer.renew()
        self._sent_at = now
        try:
            data = self._sealer.seal(peer, self._registry.encode(message))
            family, where = socket_address(address)
            self._sockets[family].sendto(data, where)
            self._counts["sent_bytes"] += len(data)
        except LocalProtocolError as error:
            self._counts["unsent"] += 1
            log.warning("a datagram is not sent: %s", error)
        except (OSError, ValueError, KeyError):  # a full buffer, no route, no such interface, no such family
            self._counts["unsent"] += 1

    async def serve(self, one: socket.socket) -> None:
        """Receive on a socket, and send on it what is for its family, until cancelled."""
        self._sockets[one.family] = one
        try:
            while True:
                await trio.lowlevel.wait_readable(one)
                self.drain(one)
                await trio.lowlevel.checkpoint()
        finally:
            if self._sockets.get(one.family) is one:
                del self._sockets[one.family]

    def drain(self, one: socket.socket) -> None:
        """Take what waits in a socket, at most GULP."""
        for _ in range(GULP):
            try:
                data, name = one.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier send
                self._counts["errors"] += 1
                continue
            self._open(one, data, name)

    def _open(self, one: socket.socket, data: bytes, name: tuple[str, int]) -> None:
        opened = self._sealer.open(trio.current_time(), data)
        if isinstance(opened, Refusal):
            return
        self._counts["received_bytes"] += len(data)
        if opened.reply:
            with contextlib.suppress(OSError):
                one.sendto(opened.reply, name)
        for content in opened.messages:
            try:
                message = self._registry.decode(content)
            except RemoteProtocolError:
                self._counts["undecodable"] += 1
                continue
            self._deliver(Received(sender=opened.sender, address=address_from(name), message=message))
