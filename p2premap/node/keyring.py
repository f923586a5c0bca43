"""The secrets that a node knows of its cluster, and what changes them: rotation. Pure.

A rotation has two steps, and needs no third party::

    prepare   the node that was asked draws S', and gives it to each living member over a connection on which that
              member has proved its own key. Each writes S' down before it says so, and from then on understands whoever
              speaks under S' as well as under S; it goes on speaking under S
    switch    the node that was asked writes down that S' is the secret now: this one write is the decision. From then
              on it speaks under S'; and who hears anybody prove S', or is told so, switches too

S' is proved by nobody before the decision, so it is evidence of it, whoever brings it: the decision spreads by itself
when the node that took it dies at once. A crash before the decision leaves everybody in S, and what was prepared
harms nobody; a crash after it leaves nobody outside who had prepared.

Members that were away know S only. For a time of grace those that switched still understand S, and give S' to whoever
proves the key of a node that was a member at the rotation, and to nobody else. An eviction has no such time: whoever
is evicted knows S as well, and could pass for the cluster with somebody who knows no other. Then who was away joins
anew, by an invitation; it keeps its id and its work, as directories are named by the cluster's first secret.

Two rotations at once: the second is refused while the first is fresh. Where the network was cut and each side has made
one, both sides still understand S; they dial each other under it too, and the secrets have an order (`rank`), in which
a node only goes up: so all that meet end under one. After an eviction on one side they do not; the other side joins.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from p2premap.errors import P2PRemapError
from p2premap.ids import NodeId
from p2premap.node.secret import ClusterSecret

GRACE_S: Final = 86_400.0
"""A laptop that was asleep over night finds back by itself."""
FRESH_S: Final = 10.0
"""So long another rotation is refused; one that takes longer has been cut off."""
PENDING_MAX: Final = 4
FORMER_MAX: Final = 8
"""Twice as many as can be pending: a rotation that was cut off four times must not push out what members still show."""
SHUT_MAX: Final = 16
LISTED_MAX: Final = 10_000


class RotationRefused(P2PRemapError):
    """This node does not take part in the rotation; the sentence says why."""


class Offer(msgspec.Struct, frozen=True):
    """A new secret, not decided yet.

    Args:
        secret: with its epoch and origin.
        grace_s: how long the present one is understood after the switch; 0 for an eviction.
        listed: the members that may have it, whether they are here now or not.
        since_s: when this node heard of it, in seconds since 1970.
    """

    secret: ClusterSecret
    grace_s: float
    listed: Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=LISTED_MAX)]
    since_s: float = 0.0


class Former(msgspec.Struct, frozen=True):
    """A secret that is not the cluster's any more, and is still understood.

    Args:
        until_s: for so long, in seconds since 1970.
        listed: to whom the present one is given.
    """

    secret: ClusterSecret
    until_s: float
    listed: tuple[NodeId, ...]


class Keyring(msgspec.Struct, frozen=True):
    """What one machine knows.

    Args:
        current: the secret under which it speaks.
        pending: prepared, not decided as far as it knows.
        former: understood for a time.
        shut: tags of secrets of this cluster that are not understood any more; for a sentence.
    """

    current: ClusterSecret
    pending: tuple[Offer, ...] = ()
    former: tuple[Former, ...] = ()
    shut: tuple[str, ...] = ()

    def secret_of(self, tag: str) -> ClusterSecret | None:
        """The secret of this tag, if it is one that this node understands or has prepared."""
        known = (self.current, *(o.secret for o in self.pending), *(f.secret for f in self.former))
        return next((secret for secret in known if secret.tag == tag), None)

    def understood(self, now_s: float) -> tuple[str, ...]:
        """The tags of the secrets besides the current one under which others may speak to this node."""
        former = (former.secret.tag for former in self.former if now_s < former.until_s)
        return (*(offer.secret.tag for offer in self.pending), *former)

    def is_pending(self, tag: str) -> bool:
        """Whether this is a secret that was prepared and not decided as far as this node knows."""
        return any(offer.secret.tag == tag for offer in self.pending)

    def was_ours(self, tag: str) -> bool:
        """Whether this is a secret that the cluster had before."""
        return tag in self.shut or any(former.secret.tag == tag for former in self.former)


def rank(secret: ClusterSecret) -> tuple[int, str]:
    """Of two secrets of one cluster, the higher one stays."""
    return secret.epoch, secret.tag


def next_offer(ring: Keyring, value: bytes, *, listed: tuple[NodeId, ...], evicts: bool) -> Offer:
    """The secret that follows all that this node knows.

    Args:
        value: 32 bytes that nobody knows.
        listed: the members that may have it.
        evicts: somebody who knows the present one shall not have it.
    """
    epoch = max(ring.current.epoch, *(offer.secret.epoch for offer in ring.pending), 0) + 1
    secret = ClusterSecret(value, "", epoch, ring.current.place)
    return Offer(secret, 0.0 if evicts else GRACE_S, listed)


def prepare(ring: Keyring, offer: Offer, now_s: float) -> Keyring:
    """Understand a new secret too.

    Args:
        now_s: seconds since 1970.

    Raises:
        RotationRefused: it is not one for this node, or not now.
    """
    secret = offer.secret
    if secret.tag == ring.current.tag or ring.is_pending(secret.tag):
        return ring
    if ring.current.open_name:
        raise RotationRefused("This node is in an open cluster, whose secret everybody knows.")
    if secret.place != ring.current.place or secret.epoch <= ring.current.epoch:
        raise RotationRefused("This node knows a later secret of the cluster; ask it to rotate.")
    if any(0 <= now_s - other.since_s < FRESH_S for other in ring.pending):
        raise RotationRefused("Another rotation is going on; try again in a few seconds.")
    heard = msgspec.structs.replace(offer, since_s=now_s)
    return msgspec.structs.replace(ring, pending=(*ring.pending, heard)[-PENDING_MAX:])


def drop(ring: Keyring, tag: str) -> Keyring:
    """A rotation was given up by who began it, before its decision."""
    return msgspec.structs.replace(ring, pending=tuple(o for o in ring.pending if o.secret.tag != tag))


def switch(ring: Keyring, tag: str, now_s: float) -> Keyring:
    """A prepared secret is decided; of any other, nothing changes."""
    offer = next((offer for offer in ring.pending if offer.secret.tag == tag), None)
    if offer is None:
        return ring
    others = [o.secret for o in ring.pending if o is not offer]
    former: tuple[Former, ...] = ()
    if offer.grace_s > 0:
        until_s = now_s + offer.grace_s
        former = tuple(Former(secret, until_s, offer.listed) for secret in (ring.current, *others))
        former = (*former, *(f for f in ring.former if f.until_s > now_s))[:FORMER_MAX]
    understood = {f.secret.tag for f in former}
    known = [ring.current.tag, *(o.tag for o in others), *(f.secret.tag for f in ring.former), *ring.shut]
    shut = tuple(dict.fromkeys(t for t in known if t not in understood))[:SHUT_MAX]
    return Keyring(offer.secret, (), former, shut)


def take(ring: Keyring, secret: ClusterSecret, now_s: float) -> Keyring:
    """A member that has switched gives the present secret to this node, which was away.

    It was given under a secret since which nobody was evicted: so what was understood here still may be. Who gets the
    present one for that secret is not known here (nobody, then); but others may understand this node under it.
    """
    if secret.place != ring.current.place or rank(secret) <= rank(ring.current) or ring.current.open_name:
        return ring
    pending = tuple(offer for offer in ring.pending if rank(offer.secret) > rank(secret))
    former = (Former(ring.current, now_s + GRACE_S, ()), *ring.former)[:FORMER_MAX]
    return Keyring(secret, pending, former, ring.shut)


def entitled(ring: Keyring, tag: str, node: NodeId, now_s: float) -> bool:
    """Whether the present secret is given to a node that has proved its key under this former one."""
    return any(f.secret.tag == tag and now_s < f.until_s and node in f.listed for f in ring.former)
