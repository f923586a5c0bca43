"""Nodes of one user on one machine find each other at once, through the runtime directory; nothing is polled.

::

    starting node                          each node that is there (at most `neighbours_max`)
      publish own socket, then list -------------------------------------------------------
      connect, Announce(me, my addresses) ---> hints its gossip
      hints its gossip <--- Welcome, Announced(it, its addresses)

Two nodes that start together: each publishes before it lists, so at least one of the two sees the other, and one
exchange tells both. Where there are many, the oldest and a random choice of the rest are asked; all ask the same
oldest ones, so their graph is connected, and gossip does the rest.

A socket that refuses has no owner any more (see `p2premap.node.sockets`): it is removed, and another is asked in its
place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

import trio

from p2premap.config import DiscoveryConfig
from p2premap.control.nodes import Announce, Announced
from p2premap.errors import ProtocolError
from p2premap.gossip.events import Hinted
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node.interfaces import is_loopback
from p2premap.node.sockets import identity_of, listed, node_of, remove_stale
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.wire import FrameDecoder, encode_frame

RETRY_S = 0.005
RETRY_MAX_S = 0.1
READ_BYTES = 65_536
ADDRESSES_MAX = 64


def hints_of(node: NodeId, addresses: Iterable[Address]) -> tuple[Hinted, ...]:
    """Hints for a node of this machine: loopback first, it needs no interface to be up."""
    ordered = sorted(list(addresses)[:ADDRESSES_MAX], key=lambda address: not is_loopback(address.host))
    return tuple(Hinted(address=address, node=node) for address in ordered)


def answer(asked: Announce, me: NodeId, mine: Sequence[Address]) -> tuple[Announced, tuple[Hinted, ...]]:
    """What the daemon answers to an `Announce` on its control socket, and the hints for its gossip."""
    reply = Announced(request=asked.request, node=me, addresses=tuple(mine)[:ADDRESSES_MAX])
    return reply, hints_of(asked.node, asked.addresses) if asked.node != me else ()


class Neighbours:
    """Announces a starting node to the others of its user on this machine.

    Args:
        directory: the cluster's runtime directory (`Paths.sockets(tag)`); our own socket is in it already.
        addresses: where we listen.
        hint: called with each hint.
        rng: chooses whom to ask where there are many.
    """

    def __init__(
        self,
        *,
        directory: Path,
        me: NodeId,
        addresses: Sequence[Address],
        hint: Callable[[Hinted], None],
        config: DiscoveryConfig,
        rng: Random,
    ) -> None:
        self._directory, self._me, self._config, self._rng = directory, me, config, rng
        self._hint = hint
        self._frame = encode_frame(
            FROM_CLIENT, Announce(request=RequestId(1), node=me, addresses=tuple(addresses)[:ADDRESSES_MAX])
        )

    async def run(self) -> None:
        """Tell those who are there. Returns when all who were asked have answered or are dead.

        A stopped owner is waited for without bound: it is the only way to tell it once it goes on.
        """
        others = [path for path in listed(self._directory) if node_of(path) != self._me]
        # half of them the oldest, which everybody asks
        limit = self._config.neighbours_max
        oldest, rest = others[: (limit + 1) // 2], others[(limit + 1) // 2 :]
        chosen = oldest + self._rng.sample(rest, min(limit - len(oldest), len(rest)))
        spare = [path for path in rest if path not in chosen]

        async def ask(path: Path) -> None:
            if not await self._ask(path) and spare:
                nursery.start_soon(ask, spare.pop(0))

        async with trio.open_nursery() as nursery:
            for path in chosen:
                nursery.start_soon(ask, path)

    async def _ask(self, path: Path) -> bool:
        """Whether the owner of this socket answered; a socket without an owner is removed."""
        retry_s = RETRY_S
        while True:
            seen = identity_of(path)
            if seen is None:
                return False
            try:
                stream = await trio.open_unix_socket(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                remove_stale(path, seen)
                return False
            except OSError:
                pass
            else:
                try:
                    return await self._exchange(stream)
                except (trio.BrokenResourceError, OSError):
                    pass
                except ProtocolError:
                    return False
                finally:
                    await trio.aclose_forcefully(stream)
            # its queue of waiting connections is full, or it ends just now
            await trio.sleep(retry_s * self._rng.uniform(0.5, 1.0))
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _exchange(self, stream: trio.SocketStream) -> bool:
        await stream.send_all(self._frame)
        decoder = FrameDecoder(FROM_DAEMON, payload_bytes_max=0)
        while data := await stream.receive_some(READ_BYTES):
            for frame in decoder.feed(data):
                if isinstance(frame.message, Announced):
                    for hint in hints_of(frame.message.node, frame.message.addresses):
                        self._hint(hint)
                    return True
        raise trio.BrokenResourceError("closed before it answered")
