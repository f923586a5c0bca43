"""Who may come in: tokens, joining, leaving."""

from __future__ import annotations

from p2premap.ids import RequestId
from p2premap.wire import Count, Message, Seconds, Text


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
