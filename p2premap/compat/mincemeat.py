"""mincemeat's interface over a cluster: `Server` with its functions and data source, `run_server`, `results`.

The original (Fairley, 2010, with the additions of Kundert's version) has a server hand out tasks to clients that
connect to it with a password. Here the nodes of the cluster are the clients, whoever runs the script is the server, and
passwords and ports are ignored: who may join is the cluster's own business.

::

    datasource   any iterable of keys that can be indexed with each of them; it may be lazy
    mapfn        (key, value) -> yields (key, value)                                    on the nodes
    collectfn    (key, values) -> value, or (iterator of (key, values)) -> yields pairs  there, on what one mapfn gave
    reducefn     the same                                                               on the nodes
    finishfn     the same, of (key, value)                                              here
    resultfn     (transaction, results)                                                 here

Without `reducefn` the values of each key are the results; without `mapfn` what the data source holds is reduced. With
``allocation = TaskManager.ONESHOT`` each node has one key mapped, those that join meanwhile too.
"""

from __future__ import annotations

import collections
import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from p2premap.errors import P2PRemapError

DEFAULT_PORT: Final = 11235
VERSION: Final = "p2premap"

Pairs = Iterable[tuple[Any, Any]]

_node, _name = "", ""
"""What `p2premap.connect` is called with."""


class TaskManager:
    """Names for what a transaction is to do."""

    MAPREDUCE = None
    MAPONLY = 1
    REDUCEONLY = 2

    CONTINUOUS = 1
    """Every key of the data source is mapped."""
    ONESHOT = 2
    """Every node maps one key."""

    SINGLEUSE = 1
    PERMANENT = 2


class MincemeatError(P2PRemapError):
    """The script asks for what cannot be."""


class Server:
    """One or more transactions over a data source.

    Args:
        attributes: any of the functions above, `datasource`, `allocation`; others are ignored.
    """

    FUNCTIONS: Final = ("mapfn", "collectfn", "reducefn", "finishfn", "resultfn")

    mapfn: Callable[..., Any] | None = None
    collectfn: Callable[..., Any] | None = None
    reducefn: Callable[..., Any] | None = None
    finishfn: Callable[..., Any] | None = None
    resultfn: Callable[..., Any] | None = None

    def __init__(self, **attributes: object) -> None:
        self.output: collections.deque[tuple[Any, dict[Any, Any]]] = collections.deque()
        self._queue: collections.deque[dict[str, Any]] = collections.deque()
        self._numbers = itertools.count(1)
        self._take(attributes)

    @property
    def datasource(self) -> object:
        """Of the transaction that was set last."""
        return self._queue[-1]["datasource"] if self._queue else None

    @datasource.setter
    def datasource(self, source: object) -> None:
        self._queue.clear()
        self.set_datasource(source)

    def set_datasource(self, datasource: object, **more: object) -> None:
        """One more transaction; whatever is not said is as for the server.

        Args:
            more: the functions, `allocation`, `txn`.
        """
        if datasource is not None:
            self._queue.append({"datasource": datasource, **more})

    def _take(self, attributes: Mapping[str, Any]) -> None:
        for name in self.FUNCTIONS:
            if attributes.get(name) is not None:
                setattr(self, name, attributes[name])
        if attributes.get("datasource") is not None:
            self.set_datasource(attributes["datasource"], allocation=attributes.get("allocation"))

    def run_server(self, password: str = "", port: int = DEFAULT_PORT, **attributes: object) -> dict[Any, Any] | None:
        """Run all transactions, and return the results of the last one.

        Args:
            password, port: ignored.
            attributes: as for the class.

        Raises:
            MincemeatError: there is nothing to do.
            Exception: what one of the functions raised.
        """
        self._take(attributes)
        if not self._queue:
            raise MincemeatError("The mincemeat server has no datasource.")
        import p2premap

        results: dict[Any, Any] | None = None
        with p2premap.connect(_node, name=_name) as cluster:
            while self._queue:
                transaction = self._queue.popleft()
                results = self._run(cluster, transaction)
                name = transaction.get("txn", next(self._numbers))
                resultfn = self._function("resultfn", transaction)
                if resultfn is not None:
                    resultfn(name, results)
                else:
                    self.output.append((name, results))
        return results

    def results(self) -> dict[Any, Any] | None:
        """The results of the earliest transaction that has not been asked about; None: there are none."""
        return self.output.popleft()[1] if self.output else None

    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._queue

    def _function(self, name: str, transaction: Mapping[str, Any]) -> Callable[..., Any] | None:
        found = transaction.get(name)
        return found if found is not None else getattr(self, name)  # type: ignore[no-any-return]

    def _run(self, cluster: Any, transaction: Mapping[str, Any]) -> dict[Any, Any]:  # noqa: ANN401
        mapfn, collectfn, reducefn, finishfn = (self._function(name, transaction) for name in self.FUNCTIONS[:4])
        source = transaction["datasource"]
        if mapfn is None and reducefn is None:
            raise MincemeatError("The mincemeat server has neither a mapfn nor a reducefn.")
        if mapfn is None:
            mapped = {key: source[key] for key in source}
        elif transaction.get("allocation") == TaskManager.ONESHOT:
            mapped = self._on_each(cluster, source, _Mapper(mapfn, collectfn))
        else:
            keys, again = itertools.tee(iter(source))
            parts = cluster.map(_Mapper(mapfn, collectfn), keys, (source[key] for key in again))
            mapped = _merged(parts)
        results: dict[Any, Any] = mapped
        if reducefn is not None:
            results = {}
            for part in cluster.map(_Reducer(reducefn), mapped.items()):
                results.update(part)
        return dict(apply_over(finishfn, results.items())) if finishfn is not None else results

    @staticmethod
    def _on_each(cluster: Any, source: Any, mapper: _Mapper) -> dict[Any, list[Any]]:  # noqa: ANN401
        from p2premap.client.everywhere import on_each_node

        return _merged(on_each_node(cluster, mapper, ((key, source[key]) for key in source)).values())


class Server_daemon(threading.Thread):
    """A server in a thread of its own.

    Args:
        credentials: as for `Server`.
        cls: the class to make.
    """

    def __init__(self, credentials: Mapping[str, Any] | None = None, cls: type[Server] = Server, **_: object) -> None:
        super().__init__(daemon=True)
        self.endpoint = self.mincemeat = cls(**(credentials or {}))
        self._state = "idle"

    def run(self) -> None:
        """Run all transactions."""
        self._state = "processing"
        try:
            self.endpoint.run_server()
        except Exception as error:
            self._state = f"failed: {error}"
        else:
            self._state = "success"

    def process(self) -> None:
        """The same in this thread."""
        self.run()

    def stop(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self.is_alive():
            self.join(timeout)

    def results(self) -> dict[Any, Any] | None:
        """See `Server.results`."""
        return self.endpoint.results()

    def state(self) -> str:
        """What it does: "idle", "processing", "success", or "failed: ..."."""
        return self._state


class Client:
    """The original's worker. The nodes of the cluster do its work: connecting one returns at once."""

    def conn(self, *address: object, **more: object) -> None:
        """There is nothing to do."""

    def finished(self) -> bool:
        """It is."""
        return True


class _Mapper:
    """Runs `mapfn` and `collectfn` on a node."""

    def __init__(self, mapfn: Callable[..., Pairs], collectfn: Callable[..., Any] | None) -> None:
        self._mapfn, self._collectfn = mapfn, collectfn

    def __call__(self, key: object, value: object) -> dict[Any, list[Any]]:
        install()
        found: dict[Any, list[Any]] = {}
        for name, one in self._mapfn(key, value):
            found.setdefault(name, []).append(one)
        if self._collectfn is None:
            return found
        collected = apply_over(self._collectfn, found.items())
        return {name: values if isinstance(values, list) else [values] for name, values in collected}


class _Reducer:
    """Runs `reducefn` on a node."""

    def __init__(self, reducefn: Callable[..., Any]) -> None:
        self._reducefn = reducefn

    def __call__(self, item: tuple[Any, Any]) -> dict[Any, Any]:
        install()
        return dict(apply_over(self._reducefn, [item]))


def apply_over(function: Callable[..., Any], items: Pairs) -> Iterator[tuple[Any, Any]]:
    """Apply a function in either of its forms: of a key and its value, or of an iterator over both."""
    if _takes(function) == 1:
        yield from function(iter(items))
    else:
        for key, value in items:
            yield key, function(key, value)


def _takes(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in plain and one.default is one.empty for one in parameters)


def _merged(parts: Iterable[Mapping[Any, list[Any]]]) -> dict[Any, list[Any]]:
    merged: dict[Any, list[Any]] = {}
    for part in parts:
        for key, values in part.items():
            merged.setdefault(key, []).extend(values)
    return merged


def install() -> None:
    """Have ``import mincemeat`` mean this module in this process."""
    sys.modules["mincemeat"] = sys.modules[__name__]


def connect_as(node: str, name: str) -> None:
    """What servers of this process call `p2premap.connect` with."""
    global _node, _name
    _node, _name = node, name
