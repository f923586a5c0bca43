"""Which cluster this machine belongs to: inviting, joining, leaving. What changes is in the config directory only;
the node's next run begins with it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import trio

from p2premap.node import scope, secret, sockets
from p2premap.node.certificates import KEY_BYTES, issue
from p2premap.node.paths import Paths
from p2premap.node.token import hash_of_ca, read_token

if TYPE_CHECKING:
    from p2premap.node.house import House

MEMBER: Final = "This machine is a member now; `p2premap nodes` shows the others."


async def invite(house: House, *, uses: int, valid_s: float) -> str:
    """A token; the node is open to the network from now on.

    Raises:
        ConfigError: no interface is up, a wrong number of uses, ...
    """
    house.search.open("a user invites")
    return house.inviter.invite(uses=uses, valid_s=valid_s)


async def join(house: House, token: str) -> str:
    """Make this machine a member of the token's cluster; the caller ends this run.

    Returns:
        One sentence for the user.

    Raises:
        ConfigError, JoinRefused, PeerUnreachable: see `guest.join`; nothing has changed.
    """
    stored = secret.load(house.user.config)
    if stored is not None and is_of(stored, token):
        return MEMBER  # a command that found no node has joined while this one was starting
    return await trio.to_thread.run_sync(join_alone, house.user, token)


def is_of(cluster: secret.ClusterSecret, token: str) -> bool:
    """Whether the token invites into this cluster.

    Raises:
        ConfigError: it is no token.
    """
    ca = ssl.PEM_cert_to_DER_cert(issue(cluster, bytes(KEY_BYTES)).ca.decode())
    return read_token(token).ca_hash == hash_of_ca(ca)


def join_alone(paths: Paths, token: str) -> str:
    """The same where no daemon runs: the next node that starts is a member.

    Args:
        paths: the user's.
    """
    from p2premap.node import guest  # selectors and certificates that only a joining machine needs

    joined = guest.join(token)
    secret.replace(paths.config, joined.secret)
    scope.remember_open(paths, joined.addresses)
    return MEMBER


async def leave(house: House) -> str:
    """Forget the cluster; the caller ends this run, which says good-bye to the others.

    Returns:
        One sentence for the user.
    """
    here = len(sockets.listed(house.paths.sockets(house.keys.secret.place))) - 1
    secret.forget(house.user.config)
    scope.forget_open(house.user)
    text = "This machine has left the cluster, and is a cluster of its own."
    stay = "1 other node of it stays" if here == 1 else f"{here} other nodes of it stay"
    return f"{text} {stay} in the old one until stopped." if here > 0 else text
