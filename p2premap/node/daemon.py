"""The daemon: runs a node until it is told to stop, again and again where a run ends for another to begin.

Joining, leaving, and taking a new identity all end a run and begin another under what is in the config and state
directories then; there is no second way to change who a node is.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import trio
from msgspec.structs import replace

from p2premap.config import NodeConfig
from p2premap.control.nodes import Status
from p2premap.errors import ConfigError
from p2premap.node import identity as identities
from p2premap.node.endings import Ending
from p2premap.node.house import House
from p2premap.node.joins import parse_join
from p2premap.node.ledger_file import LedgerLost
from p2premap.node.paths import Paths
from p2premap.node.secret import ClusterSecret, load, load_or_make, open_secret

DESCRIPTORS: Final = 16_384
HOST_CHARACTERS_MAX: Final = 60
SWITCH_S: Final = 0.0005
"""A thread that writes facts, and the event loop, wait for each other no longer than this; Python's default is 5 ms,
five times what a call takes there and back."""

log = logging.getLogger(__name__)


def run_node(config: NodeConfig, *, started: Callable[[Status], None] = lambda _: None) -> int:
    """Run a node until SIGTERM, SIGINT or a client's `Stop`.

    Args:
        config: what the user asked for.
        started: told how the node is, each time that it begins to serve clients.

    Returns:
        The exit code: 0.

    Raises:
        ConfigError: it cannot start; one sentence says why.
    """
    for text in config.joins:
        parse_join(text, default_port=config.transport.port_first)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _raise_descriptor_limit()
    gc.freeze()  # what has been imported stays
    sys.setswitchinterval(SWITCH_S)
    trio.run(_main, config, started)
    return 0


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows, within reason: each link, client and worker needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _main(config: NodeConfig, started: Callable[[Status], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            lives = Lives(config, started)
            nursery.start_soon(_stop_at_signal, signals, lives)
            await lives.run()
            nursery.cancel_scope.cancel()


async def _stop_at_signal(signals: object, lives: Lives) -> None:
    async for _ in signals:  # type: ignore[attr-defined]  # trio names no type for it
        lives.stop()


class Lives:
    """One run of a node after the other.

    Args:
        config: what the user asked for.
        started: told at the beginning of each.
    """

    def __init__(self, config: NodeConfig, started: Callable[[Status], None]) -> None:
        self._config = config
        self._started = started
        self._house: House | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the present run; begin no other."""
        self._stopped = True
        if self._house is not None:
            self._house.end(Ending.STOP)

    async def run(self) -> None:
        """Until stopped."""
        ending, warnings = Ending.RESTART, list[str]()
        while ending is not Ending.STOP and not self._stopped:
            ending = await self._live(warnings)

    async def _live(self, warnings: list[str]) -> Ending:
        """One run."""
        user = Paths.of_user()
        secret = _secret(self._config, user)
        paths, moved = identities.state_paths(user)
        identity = identities.claim(paths, secret, name=self._config.name, host=_host())
        try:
            while True:
                try:
                    house = self._house = House(
                        config=self._config,
                        user=user,
                        paths=paths,
                        secret=secret,
                        identity=identity,
                        started=partial(self._begun, user, secret),
                        warnings=(*warnings, moved),
                    )
                except LedgerLost as error:
                    log.warning("taking a new identity: %s", error)
                    warnings.append(f"This node took a new identity, under which it has promised nothing: {error}")
                    identity = identities.take_new(paths, secret, identity)
                    continue
                ending = await house.run()
                self._house = None
                if ending is not Ending.NEW_IDENTITY or self._stopped:
                    break
                identity = identities.take_new(paths, secret, identity)
                warnings[:] = house.warnings.all()
            if ending is Ending.REOPEN:
                warnings[:] = house.warnings.all()
        finally:
            identity.release()
        if ending is Ending.RESTART and self._config.open_name:
            # a join or a leave is a decision against the open cluster that this node was started with
            self._config = replace(self._config, open_name="")
        return ending

    def _begun(self, user: Paths, secret: ClusterSecret, status: Status) -> None:
        """The run serves clients. Until then `join` found no node here, and may have changed the cluster by itself."""
        self._started(status)
        if self._house is None or secret.open_name:
            return
        with contextlib.suppress(ConfigError):
            now = load(user.config)
            if now is not None and now.place != secret.place:
                self._house.end(Ending.RESTART)


def _host() -> str:
    """What the machine calls itself, as a name for its node."""
    return socket.gethostname().partition(".")[0][:HOST_CHARACTERS_MAX] or "node"


def _secret(config: NodeConfig, paths: Paths) -> ClusterSecret:
    return open_secret(config.open_name) if config.open_name else load_or_make(paths.config)
