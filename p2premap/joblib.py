"""joblib on the cluster: ``import p2premap.joblib``, then ``joblib.parallel_config(backend="p2premap")``.

What uses joblib, such as scikit-learn with ``n_jobs=-1``, then runs on all nodes. The cluster is the one that the
program is connected to, or one given as ``parallel_config(backend="p2premap", cluster=...)``. joblib's own batches are
for calls of a fifth of a second; smaller ones are put together as all calls are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any

from joblib import ParallelBackendBase, register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, SequentialBackend

from p2premap.client.cluster import Cluster
from p2premap.client.connecting import current


class ClusterBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """See `joblib.ParallelBackendBase`.

    Args:
        cluster: None: the present one (`p2premap.current`).
    """

    supports_retrieve_callback = True

    def __init__(self, *, cluster: Cluster | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._given = cluster
        self._waiting: set[futures.Future[Any]] = set()

    def __reduce__(self) -> tuple[object, ...]:
        """In a worker process it is another program's backend."""
        return ClusterBackend, ()

    @property
    def cluster(self) -> Cluster:
        """Where the calls go."""
        return self._given if self._given is not None else current()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run side by side: -1 for as many as there are slots.

        Raises:
            ValueError: 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(self.cluster.slots + 1 + n_jobs, 1)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> futures.Future[Any]:
        """Have a batch made somewhere."""
        future = self.cluster.submit(func)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: futures.Future[Any]) -> object:
        """A batch's results.

        Raises:
            Exception: what one of its calls raised.
        """
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Nobody wants the results of what has been handed in."""
        for future in list(self._waiting):
            future.cancel()

    def terminate(self) -> None:
        """A `Parallel` is over; the cluster stays connected."""
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """What a worker process does with a `Parallel` inside: one call after the other, as every slot has work."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


register_parallel_backend("p2premap", ClusterBackend)
