"""`@p2premap.remote`: a function that can be called here, and submitted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

from p2premap.client.connecting import current
from p2premap.client.future import Future

P = ParamSpec("P")
T = TypeVar("T")


class Remote(Generic[P, T]):
    """A function: called, it runs here; `submit` and `map` are those of the cluster that the program is connected to.

    Where it is not connected it connects, until it ends.
    """

    def __init__(self, function: Callable[P, T]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<remote {getattr(self._function, '__qualname__', self._function)}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it here and now."""
        return self._function(*args, **kwargs)

    def submit(self, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401  (futures may stand for what P says)
        """See `Cluster.submit`."""
        return current().submit(self._function, *args, **kwargs)

    def map(
        self,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[T]:
        """See `Cluster.map`."""
        return current().map(self._function, *iterables, timeout=timeout, chunksize=chunksize, ordered=ordered)


def remote(function: Callable[P, T]) -> Remote[P, T]:
    """Decorator: the function gets `submit` and `map`."""
    return Remote(function)
