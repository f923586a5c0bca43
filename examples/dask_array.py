"""A dask array on the cluster: dask cuts the work into tasks, and the nodes run them.

    python examples/dask_array.py

It needs dask and numpy here and on the nodes (pip install "dask[array]"). Any `concurrent.futures.Executor` is a
scheduler to dask, and a cluster is one.
"""

import dask
import dask.array

import p2premap

if __name__ == "__main__":
    numbers = dask.array.random.default_rng(7).random((4_000, 1_000), chunks=(1_000, 1_000))
    spread = (numbers - numbers.mean(axis=0)).std()
    with p2premap.connect() as cluster, dask.config.set(scheduler=cluster):
        print(f"{numbers.size:,} numbers, standard deviation {spread.compute():.4f}")
