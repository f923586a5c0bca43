"""Who may come in: tokens, joining, leaving, and the rotation of the secret."""

from typing import Annotated

import msgspec

from p2premap.ids import RequestId
from p2premap.wire import Count, Message, NodeIdField, Seconds, Short, Text


class MakeInvite(Message, tag=118, frozen=True, kw_only=True):
    """Make a token that lets machines in. Answered by `Invited`. Opens the node to the network."""

    request: RequestId
    uses: Count = 1
    valid_s: Seconds = 600.0


class Invited(Message, tag=119, frozen=True, kw_only=True):
    """The token to paste on the other machine."""

    request: RequestId
    token: Text
    uses: Count
    valid_s: Seconds


class Join(Message, tag=120, frozen=True, kw_only=True):
    """Leave the present cluster for the token's. `Done` when the node is a member there.

    Args:
        leave: also where the present cluster has other members or jobs.
    """

    request: RequestId
    token: Text
    leave: bool = False


class LeaveCluster(Message, tag=121, frozen=True, kw_only=True):
    """Say good-bye, forget the cluster's secret, and start again as a cluster of one. `Done` when said."""

    request: RequestId


class Rotate(Message, tag=150, frozen=True, kw_only=True):
    """Give the cluster a new secret. Answered by `Rotated`.

    Args:
        evict: names or ids of members that shall not have it.
    """

    request: RequestId
    evict: tuple[Short, ...] = ()


class Rotated(Message, tag=151, frozen=True, kw_only=True):
    """The cluster has a new secret.

    Args:
        epoch: how many it has had.
        switched: names of the members that have it already, this node's too.
        away: of those that did not answer.
        evicted: of those that shall not have it.
        grace_s: for so long a member that was away gets it by itself; 0: it has to join anew.
    """

    request: RequestId
    epoch: Count
    switched: tuple[Short, ...] = ()
    away: tuple[Short, ...] = ()
    evicted: tuple[Short, ...] = ()
    grace_s: Seconds = 0.0


class PrepareSecret(Message, tag=152, frozen=True, kw_only=True):
    """Write this down, and understand who speaks under it. A member asks, one of whose users rotates. `Done` then.

    Args:
        secret: 32 bytes.
        epoch, origin: as of `p2premap.node.secret.ClusterSecret`.
        grace_s, listed: as of `p2premap.node.keyring.Offer`.
    """

    request: RequestId
    secret: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    epoch: Count
    origin: Short
    grace_s: Seconds
    listed: tuple[NodeIdField, ...]


class SwitchSecret(Message, tag=153, frozen=True, kw_only=True):
    """The prepared secret with this tag is the cluster's from now on. A member says so. `Done` then."""

    request: RequestId
    tag: Short


class DropSecret(Message, tag=154, frozen=True, kw_only=True):
    """The prepared secret with this tag will not be the cluster's. A member says so. `Done` then."""

    request: RequestId
    tag: Short
