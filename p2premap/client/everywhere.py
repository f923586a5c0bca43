"""A call on every node: for what is about the node, and not about data."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from p2premap.control.nodes import ListNodes, Nodes, NodeView

if TYPE_CHECKING:
    from p2premap.client.cluster import Cluster

T = TypeVar("T")

HOLD_S: Final = 0.2
"""Each call keeps its slot for so long, so that its brothers go elsewhere."""
PATIENCE_S: Final = 10.0


class Where(NamedTuple):
    """A node as its worker processes see it: the name of the machine, and the id of the daemon's process."""

    host: str
    pid: int


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

    It is called by as many tasks at the same time as there are slots, until every node has answered, those that have
    come meanwhile too.

    Args:
        arguments: of the call on each node, in no order; where there are fewer, some nodes are left out.
        patience_s: nodes that are busy for longer are left out.

    Raises:
        Exception: what a call raised.
    """
    found: dict[Where, T] = {}
    rest, back = iter(arguments), deque[tuple[object, ...]]()
    until = time.monotonic() + patience_s
    while True:
        nodes = alive(cluster)
        missing = {_where(view) for view in nodes} - found.keys()
        if not missing or time.monotonic() > until:
            break
        slots = sum(view.slots for view in nodes)
        given = list(islice(chain(list(back), rest), slots))
        back.clear()
        if not given:
            break
        known = tuple(found)
        fillers = repeat(None, slots - len(given))
        probes = [(args, cluster.submit(_probe, function, known, args)) for args in chain(given, fillers)]
        for args, probe in probes:
            where, answer = probe.result()
            if answer and where not in found:
                found[where] = answer[0]
            elif args is not None:
                back.append(args)
    return {_name(view, nodes): found[_where(view)] for view in nodes if _where(view) in found}


def _probe(
    function: Callable[..., T], known: tuple[Where, ...], args: tuple[object, ...] | None
) -> tuple[Where, tuple[T, ...]]:
    """In a worker process; None: only to keep its slot."""
    import psutil

    started = time.monotonic()
    daemon = psutil.Process().parent()  # the supervisor, whose parent is the daemon
    above = daemon.parent() if daemon is not None else None
    here = Where(socket.gethostname(), above.pid if above is not None else 0)
    answer = () if args is None or here in known else (function(*args),)
    time.sleep(max(0.0, HOLD_S - (time.monotonic() - started)))
    return here, answer


def _where(view: NodeView) -> Where:
    return Where(view.host, view.pid)


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
