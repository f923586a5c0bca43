"""What a house is built from: everything in it that touches the world outside. The simulator puts in its own."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import trio

from p2premap.ids import Boot, NodeId
from p2premap.node import installed, machine, sockets
from p2premap.node.blobs import BlobStore
from p2premap.node.capabilities import Capabilities
from p2premap.node.driver import Driver
from p2premap.node.environments import Environments
from p2premap.node.events import NodeEffect, NodeEvent
from p2premap.node.executor import Executor
from p2premap.node.kinds import Kinds
from p2premap.node.ledger_store import LedgerStore
from p2premap.node.load import LoadSampler
from p2premap.node.search import Search
from p2premap.node.software import Software
from p2premap.node.staging import Stager
from p2premap.node.store import Store
from p2premap.node.transport import TrioTransport
from p2premap.node.unix import serve_unix
from p2premap.ports import Randomness, StreamHandler


def _random() -> Random:
    return Random(int.from_bytes(os.urandom(8), "big"))


async def _unix_door(directory: Path, node: NodeId, handler: StreamHandler, nursery: trio.Nursery) -> None:
    await nursery.start(serve_unix, sockets.publish(directory, node), handler)


class Parts(NamedTuple):
    """Makers of the parts, called with the arguments of the classes that stand here.

    Args:
        randomness: for keys and salts.
        random: makes a generator for protocol choices.
        wall_s: what this machine takes for the time, in seconds since 1970: for people.
        door: given the directory of sockets, the node's id, who serves a client, and a nursery: lets the clients of
            this machine in.
    """

    randomness: Randomness = os.urandom
    random: Callable[[], Random] = _random
    wall_s: Callable[[], float] = time.time
    store: Callable[[Path], Store] = Store
    blobs: Callable[[Path], BlobStore] = BlobStore
    ledger: Callable[[Path, Boot], LedgerStore] = LedgerStore
    transport: Callable[..., TrioTransport] = TrioTransport
    stager: Callable[..., Stager] = Stager
    executor: Callable[..., Executor] = Executor
    environments: Callable[..., Environments] = Environments
    search: Callable[..., Search] = Search
    capabilities: Callable[..., Capabilities] = machine.collect
    software: Callable[[], Software] = installed.look
    load: Callable[[], LoadSampler] = LoadSampler
    driver: Callable[..., Driver[NodeEvent, NodeEffect]] = Driver
    kinds: Callable[[], Kinds] = Kinds
    door: Callable[[Path, NodeId, StreamHandler, trio.Nursery], Awaitable[None]] = _unix_door
