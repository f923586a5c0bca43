"""The one entry point: `python -m bench` lists the benchmarks, `python -m bench NAME...` runs them, `all` runs all.

One JSON object a line on stdout: name, unit, n, min, median, max, target and whether it is met, CPU seconds of all
processes where they were counted, and what the benchmark wants to add. Progress goes to stderr.
"""

from __future__ import annotations

import importlib
import sys

from bench.report import Emitter

BENCHMARKS = {
    "start": "from starting 3 nodes to the first task's result",
    "idle": "memory, CPU and bytes a second of an idle node",
    "kill": "kill -9 of one of 8, 16, 32 nodes until all others know",
    "join": "a node's start until everybody sees everybody",
    "wordcount": "200 MB in 40 files on 2 slots, beside one process and a pool",
    "coordinator": "a million tasks through the pure cores: CPU and memory for each",
    "tasks": "20,000 calls that do nothing, beside Ray, Dask and pools; a job of a million tasks",
    "items": "map over 100,000 small items, beside ProcessPoolExecutor, Pool and joblib",
    "arrays": "an array of 100 MB for eight tasks, beside Ray and Dask",
    "exchange": "two processes of a gang: an empty exchange, and 8 MB each way",
    "sort": "1 GB of lines with 256 MB of memory, beside GNU sort",
    "graphs": "PageRank, components and BFS on R-MAT and a web graph, beside scipy's sparse product",
    "loading": "edges of a graph from text to partitions, on one core",
    "page": "the page in Chromium: 50 nodes, 200 task events a second",
    "vertices": "a program called for each vertex, beside a plain Pregel loop in one process",
    "gossip_sim": "the gossip in the simulator: detection, false alarms, healing, bytes",
}


def main(arguments: list[str]) -> int:
    """Run what is asked for; the exit code tells whether every name was known."""
    names = list(BENCHMARKS) if arguments == ["all"] else arguments
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not names:
        print("usage: python -m bench all | NAME...", *(f"  {n:12} {t}" for n, t in BENCHMARKS.items()), sep="\n")
        return 2 if unknown else 0
    for name in names:
        print(f"# {name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)
        importlib.import_module(f"bench.{name}").run(Emitter(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
