"""The one entry point: `python -m bench --help` lists the benchmarks, `python -m bench NAME...` runs them, `all` all.

One JSON object a line on stdout: name, unit, n, min, median, max, target and whether it is met, CPU seconds of all
processes where they were counted, and what the benchmark wants to add. Progress goes to stderr.

Every benchmark is a module with a function `run`, and with `QUICK`: what `run` is to be given so that it takes seconds.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from typing import Any

from bench.children import command
from bench.report import Emitter

BENCHMARKS = {
    "start": "from starting 3 nodes to the first task's result, beside dispy, Dask and Ray",
    "idle": "memory, CPU and bytes a second of an idle node",
    "kill": "kill -9 of one of 8, 16, 32 nodes until all others know",
    "join": "a node's start until everybody sees everybody",
    "wordcount": "200 MB in 40 files on 2 slots, beside one process, two, a pool, Ray and Dask",
    "coordinator": "a million tasks through the pure cores: CPU and memory for each",
    "tasks": "20,000 calls that do nothing, beside Ray, Dask and pools; a job of a million tasks",
    "items": "map over 100,000 small items, beside ProcessPoolExecutor, Pool and joblib",
    "arrays": "an array of 100 MB for eight tasks, beside Ray and Dask",
    "exchange": "two processes of a gang: an empty exchange, and 8 MB each way",
    "sort": "1 GB of lines with 256 MB of memory, beside GNU sort",
    "graphs": "PageRank, components and BFS on R-MAT and a web graph, beside scipy's sparse product",
    "loading": "edges of a graph from text to partitions, on one core",
    "vertices": "a program called for each vertex, beside a plain Pregel loop in one process",
    "supersteps": "a superstep in which nothing happens, over two nodes, on one machine and on two",
    "checkpoints": "PageRank with checkpoints and without, on one node and on two",
    "footprint": "bytes an edge and a vertex of vertex jobs: between processes, on disk, in memory",
    "page": "the page in Chromium: 50 nodes, 200 task events a second",
    "gossip_sim": "the gossip in the simulator: detection, false alarms, healing, bytes",
}

_VARIABLES = """
environment:
  BENCH_PYTHON  an interpreter that has Ray, Dask, dispy or joblib, with psutil; without it they are left out
  BENCH_TEXTS   a directory of .txt files for the word count [Python's standard library]
  BENCH_GRAPHS  a directory with cnr-2000.graph-txt.gz, for graphs
  BENCH_DISK    where sort has its files [the usual place for temporary ones]
"""


def main() -> int:
    """Run what is asked for."""
    listed = "\n".join(f"  {name:12}  {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure; a JSON object a figure on stdout.",
        epilog=f"benchmarks:\n{listed}\n{_VARIABLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a benchmark, or all")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it runs; figures say nothing")
    parser.add_argument("--repeat", type=int, metavar="N", help="how often each thing is measured")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in (*BENCHMARKS, "all")]:
        parser.error(f"there is no benchmark {unknown[0]!r}; --help lists them")
    if options.repeat is not None and options.repeat < 1:
        parser.error("--repeat wants a number from 1 on")
    if not options.names:
        parser.print_help()
    for name in BENCHMARKS if "all" in options.names else options.names:
        print(f"# {name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)
        _run(name, quick=options.quick, repeat=options.repeat)
    return 0


def _run(name: str, *, quick: bool, repeat: int | None) -> None:
    module = importlib.import_module(f"bench.{name}")
    given: dict[str, Any] = dict(module.QUICK) if quick else {}
    if repeat is not None:
        if "repeat" in inspect.signature(module.run).parameters:
            given["repeat"] = repeat
        else:
            print(f"# {name} repeats nothing: its figures do not depend on this machine.", file=sys.stderr)
    module.run(Emitter(name), **given)


if __name__ == "__main__":
    command(main)
