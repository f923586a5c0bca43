"""What this node says of itself on every connection, and what it notes of whoever answers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

import trio

from p2premap.event import Event
from p2premap.gossip.messages import ADDRESSES_MAX
from p2premap.ids import Address, NodeId
from p2premap.node.hello import Hello, Peer, Purpose
from p2premap.node.identity import Identity
from p2premap.node.keys import Keys
from p2premap.node.seal import Sealer

FOREIGN_AGAIN_S: Final = 60.0
FOREIGN_MAX: Final = 256
CLONE_DOUBT_S: Final = 2.0


class ForeignSeen(Event, frozen=True, kw_only=True):
    """Somebody who does not know our secret was met.

    Args:
        address: where we dialled it; None where it dialled us.
        host: whence or whither.
        tag: the cluster that it claims to be of; "" where it does not say, or is not p2premap at all.
        node: whose key it has proved; None where it has not.
    """

    address: Address | None
    host: str
    tag: str
    node: NodeId | None = None


class Greeter:
    """This node's part in every hello.

    Args:
        identity: who this node is.
        keys: the cluster's secrets.
        name, version: for people.
        sealer: whose salt is told, and which is told the peers' salts.
        addresses: where this node listens now.
        foreign: told of strangers; about each host and cluster once a minute at most.
        clashed: told, with a sentence, when another process has this node's id and has had it for longer.
        counts: where what happens is counted.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        keys: Keys,
        name: str,
        version: str,
        sealer: Sealer,
        addresses: Callable[[], tuple[Address, ...]],
        foreign: Callable[[ForeignSeen], None],
        clashed: Callable[[str], None],
        counts: Counter[str],
    ) -> None:
        self.me = identity.node
        self.keys = keys
        self.counts = counts
        self._identity = identity
        self._name = name[:255]
        self._version = version[:255]
        self._sealer = sealer
        self._addresses = addresses
        self._foreign = foreign
        self._clashed = clashed
        self._told: OrderedDict[tuple[str, str, NodeId | None], float] = OrderedDict()
        self._born = trio.current_time()

    def hello(self, purpose: Purpose, *, answers: int = 0) -> Hello:
        """What to say now; of a RETURN, with the number that it answers."""
        return Hello(
            purpose=purpose,
            node=self._identity.node,
            boot=self._identity.boot,
            version=self._version,
            name=self._name,
            addresses=tuple((a.host, a.port) for a in self._addresses()[:ADDRESSES_MAX]),
            salt=self._sealer.salt,
            counter=self._sealer.counter,
            up_s=trio.current_time() - self._born,
            answers=answers,
        )

    def met(self, peer: Peer, where: Address) -> None:
        """A peer has said hello: believe its salt, unless it is ourselves; and if it has our id and is not, say so."""
        if peer.node != self.me:
            if peer.purpose is not Purpose.CLIENT:
                self._sealer.trust(peer.node, peer.salt, peer.counter)
        elif peer.salt != self._sealer.salt:
            self.counts["clones"] += 1
            older_by = peer.up_s - (trio.current_time() - self._born)
            if older_by > CLONE_DOUBT_S or (abs(older_by) <= CLONE_DOUBT_S and peer.salt < self._sealer.salt):
                self._clashed(f"Another process is running under this node's identity at {where}, for longer.")

    def met_stranger(self, seen: ForeignSeen) -> None:
        """Tell of a stranger, unless that has been done lately."""
        now = trio.current_time()
        key = (seen.host, seen.tag, seen.node)
        if now - self._told.get(key, -FOREIGN_AGAIN_S) < FOREIGN_AGAIN_S:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > FOREIGN_MAX:
            self._told.popitem(last=False)
        self._foreign(seen)
