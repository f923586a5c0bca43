"""Reaching the cluster from a machine whose own node is gone: over TLS, at members that it knew.

What this can do is what any node can do for any client: look, follow, fetch, cancel. Handing in a job it cannot, as
the job's inputs are files of a machine that has no node to hand them out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import islice

from p2premap import __version__
from p2premap.client.connection import PATIENCE_S, Connection, NodeSilent, local
from p2premap.errors import ConfigError, NodeUnavailable, PeerUnreachable, RemoteProtocolError
from p2premap.ids import Address
from p2premap.node.paths import Paths

TRIED_MAX = 4
CONNECT_S = 1.5
_OPEN_NAMES: dict[Paths, str] = {}
"""The NAME of the open cluster that a user's node was of when this process talked to it; "" for one with a secret."""


def anywhere(
    node: str = "",
    *,
    insist: bool = True,
    paths: Paths | None = None,
    told: Callable[[str], None] = lambda _: None,
    patience_s: float = PATIENCE_S,
    tick: Callable[[], None] = lambda: None,
) -> Connection:
    """A connection to a daemon of this machine or, where none answers, to a member that it remembers.

    Args:
        node: as of `local`.
        insist: it must be this node; else it is only asked first. One that says nothing is then waited for only where
            no other will do.
        told: hears one sentence when the answer comes from elsewhere.
        patience_s, tick: as of `local`.

    Raises:
        NodeUnavailable: neither answers.
    """
    paths = paths or Paths.of_user()
    try:
        found = local(node, paths=paths, patience_s=patience_s if insist else 0.0, tick=tick)
    except NodeUnavailable as error:
        if node:
            if insist:
                raise
            return anywhere(paths=paths, told=told, patience_s=patience_s, tick=tick)
        if (member := _remembered_member(paths)) is None:
            if insist or not patience_s or not isinstance(error, NodeSilent):
                raise
            return local(paths=paths, patience_s=patience_s, tick=tick)  # nobody else will do
        found = member
    else:
        _OPEN_NAMES[paths] = found.welcome.open_name
        return found
    told(f"No node runs on this machine; {found.welcome.name} answers.")
    return found


def _remembered_member(paths: Paths) -> Connection | None:
    from p2premap.node import secret  # with OpenSSL's hashes

    try:
        name = _OPEN_NAMES.get(paths)
        known = secret.open_secret(name) if name else secret.load(paths.config)
    except ConfigError:
        return None
    if known is None:
        return None
    for address in islice(_addresses(paths, known.place), TRIED_MAX):
        from p2premap.client.tlsstream import TlsStream
        from p2premap.node import remote  # TLS costs 0.1 s, and is rarely needed

        with contextlib.suppress(PeerUnreachable, RemoteProtocolError):
            stream, _ = remote.connect_member(known, address, name="client", version=__version__, timeout_s=CONNECT_S)
            return Connection(TlsStream(stream), str(address), welcome_s=CONNECT_S)
    return None


def _addresses(paths: Paths, place: str) -> Iterator[Address]:
    """Where members were, the most recently seen first; each once."""
    import sqlite3

    from p2premap.node import scope
    from p2premap.node.identity import state_paths

    local_paths, _ = state_paths(paths)
    seen: list[tuple[float, Address]] = []
    for database in (local_paths.state / place).glob("*/*/node.db"):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db,
        ):
            rows = db.execute("SELECT seen, host, port FROM peers")
            seen += [(when, Address(host, port)) for when, host, port in rows]
    yield from dict.fromkeys([*(address for _, address in sorted(seen, reverse=True)), *scope.addresses(paths)])
