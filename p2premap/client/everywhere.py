"""A call on every node: for what is about the node, and not about data."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.ids import NodeId

if TYPE_CHECKING:
    from p2premap.client.cluster import Cluster
    from p2premap.client.future import Future

T = TypeVar("T")

LOOK_S: Final = 0.2
"""How often it is looked who is there."""
PATIENCE_S: Final = 10.0


def alive(cluster: Cluster) -> list[NodeView]:
    """The nodes that can work now."""
    with cluster.connection() as connection:
        views = connection.ask(lambda n: ListNodes(request=n), Nodes).views
    return [view for view in views if view.state == "alive" and view.slots]


def on_each_node(
    cluster: Cluster,
    function: Callable[..., T],
    arguments: Iterable[tuple[object, ...]] = repeat(()),
    *,
    patience_s: float = PATIENCE_S,
) -> dict[str, T]:
    """What a function returns on each node, by the nodes' names; of two with one name by their ids, too.

    Each node is given a call of its own, those that come before all have answered, too.

    Args:
        arguments: of the call on each node, in no order; where there are fewer, some nodes are left out.
        patience_s: nodes that are busy for longer are left out, as are those that go away.

    Raises:
        Exception: what a call raised.
    """
    found: dict[NodeId, T] = {}
    views: dict[NodeId, NodeView] = {}
    out: dict[NodeId, tuple[tuple[object, ...], Future[T]]] = {}
    rest, back = iter(arguments), deque[tuple[object, ...]]()
    until = time.monotonic() + patience_s
    try:
        while time.monotonic() < until:
            nodes = {NodeId(view.node): view for view in alive(cluster)}
            views |= nodes
            for node in [node for node in out if node not in nodes and not out[node][1].done()]:
                args, future = out.pop(node)
                future.cancel()
                back.append(args)
            for node in nodes.keys() - found.keys() - out.keys():
                for args in islice(chain([back.popleft()] if back else [], rest), 1):
                    out[node] = args, cluster.submit_to(node, function, *args)
            if not out:
                break
            wait([future for _, future in out.values()], timeout=LOOK_S)
            for node in [node for node in out if out[node][1].done()]:
                found[node] = out.pop(node)[1].result()
    finally:
        for _, future in out.values():
            future.cancel()
    return {_name(views[node], list(views.values())): found[node] for node in found}


def _name(view: NodeView, nodes: list[NodeView]) -> str:
    alike = sum(other.name == view.name for other in nodes)
    return view.name if alike == 1 else f"{view.name} ({view.node.hex()[:8]})"


# --- what is asked of nodes by hand -------------------------------------------------------------------------------


class HostStatistics(NamedTuple):
    """A machine as a worker process on it sees it. Memory in bytes."""

    host: str
    cpus: int
    load: float
    memory: int
    memory_free: int
    python: str
    system: str


def host_statistics() -> HostStatistics:
    """Of the machine that this runs on."""
    import os
    import platform

    import psutil

    memory = psutil.virtual_memory()
    return HostStatistics(
        host=socket.gethostname(),
        cpus=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        memory=memory.total,
        memory_free=memory.available,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
    )


def evaluate(source: str, argument: object) -> object:
    """What a function that was typed as an expression gives, such as "lambda text: len(text)".

    Raises:
        TypeError: it is no function.
        Exception: what it raises.
    """
    import os
    import re
    import sys

    function = eval(source, {"os": os, "re": re, "socket": socket, "sys": sys})  # noqa: S307  (the user's own)
    if not callable(function):
        raise TypeError(f"{source} is no function: write lambda text: ...")
    found = function(argument)
    return list(found) if hasattr(found, "__next__") else found
