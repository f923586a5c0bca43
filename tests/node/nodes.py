"""Real transports on loopback for tests: ephemeral ports, everything that is delivered written down.

Both ends share one loop: a machine that stands still for seconds lets all of their time run out. So they have a minute,
where a test is not about just that.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from msgspec.structs import replace

from p2premap.config import TransportConfig
from p2premap.gossip.events import DialEnded, GossipEvent
from p2premap.ids import Address, NodeId
from p2premap.node import dialler
from p2premap.node.greeting import ForeignSeen
from p2premap.node.identity import Identity, claim
from p2premap.node.invite import Inviter
from p2premap.node.keys import Keys
from p2premap.node.paths import Paths
from p2premap.node.secret import ClusterSecret
from p2premap.node.transport import TrioTransport
from p2premap.ports import FrameReceived, FrameStream

PATIENCE_S = 60.0
CONFIG = TransportConfig(port_first=0, hello_s=PATIENCE_S, dial_s=PATIENCE_S)

T = TypeVar("T")


async def unserved(stream: FrameStream) -> None:
    """A service for tests that need none."""


@dataclass
class Node:
    """One transport and what it has delivered."""

    identity: Identity
    transport: TrioTransport
    inviter: Inviter
    keys: Keys
    events: list[GossipEvent | FrameReceived] = field(default_factory=list)
    foreign: list[ForeignSeen] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    dials: int = 0

    @property
    def id(self) -> NodeId:
        return self.identity.node

    @property
    def address(self) -> Address:
        return self.transport.local_addresses[0]

    def deliver(self, event: GossipEvent | FrameReceived) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def all(self, kind: type[T]) -> list[T]:
        """Events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for it; it is looked at after each event."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await self.changed.wait()

    async def dial(self, address: Address, *, keep: bool = True, timeout_s: float = PATIENCE_S) -> DialEnded:
        """Dial and wait for the outcome."""
        self.dials += 1
        number = self.dials
        self.transport.dial(number, address, keep=keep, timeout_s=timeout_s)
        await self.until(lambda: any(e.dial == number for e in self.all(DialEnded)))
        return next(e for e in self.all(DialEnded) if e.dial == number)


def paths(home: Path) -> Paths:
    """Directories under `home`."""
    return Paths(home / "config", home / "state", home / "run")


@asynccontextmanager
async def node(
    home: Path,
    secret: ClusterSecret,
    *,
    config: TransportConfig = CONFIG,
    addresses_of: Callable[[NodeId], Sequence[Address]] = lambda _: (),
    serve_control: Callable[[FrameStream], object] = unserved,
    serve_bulk: Callable[[FrameStream], object] = unserved,
    serve_gang: Callable[[trio.SocketStream], object] = unserved,
    identity: Identity | None = None,
    ring: Path | None = None,
) -> AsyncIterator[Node]:
    """A running transport; ended, with all its connections, at the end. `ring`: the directory of its keyring."""
    identity = identity or claim(paths(home), secret)
    made: list[Node] = []
    inviter = Inviter(
        secret=secret,
        credentials=identity.credentials,
        addresses=lambda: made[0].transport.local_addresses,
        randomness=os.urandom,
    )
    keys = Keys(identity=identity, secret=secret, config=ring, wall_s=time.time)
    transport = TrioTransport(
        identity=identity,
        keys=keys,
        config=config,
        deliver=lambda event: made[0].deliver(event),
        addresses_of=addresses_of,
        serve_control=serve_control,
        serve_bulk=serve_bulk,
        serve_gang=serve_gang,
        inviter=inviter,
        hello_name="test",
        version="1.2.3",
        foreign=lambda seen: (made[0].foreign.append(seen), made[0].wake()),
        clashed=lambda text: (made[0].clashes.append(text), made[0].wake()),
        randomness=os.urandom,
    )
    made.append(Node(identity, transport, inviter, keys))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialler, "LOOK_S", PATIENCE_S)
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.run)
            try:
                yield made[0]
            finally:
                nursery.cancel_scope.cancel()
    identity.release()


def cloned(identity: Identity) -> Identity:
    """The same identity in another process, as far as others can tell."""
    return replace(identity, lock=os.dup(identity.lock))
