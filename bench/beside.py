"""Systems beside each other: each measured in a process of its own (`bench.peers`), in turns, on the same machine.

What the interpreter at hand lacks, such as Ray, is measured with the one that BENCH_PYTHON names, or left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.children import ROOT, said_by
from bench.nodes import Cluster
from bench.peers import PACKAGES

OURS = "p2premap"
LIMIT_S = 300.0
Figures = dict[str, Any]


def measure(
    what: str,
    system: str,
    python: str = sys.executable,
    *,
    pids: Sequence[int] = (),
    home: str = "",
    inputs: Sequence[str] = (),
) -> Figures | None:
    """The figures of one run, by `bench.peers`; None: it gave none.

    Args:
        what, system: see there.
        pids: processes whose trees work for the system too.
        home: of the node that is to be used.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_DISABLE_IMPORT_WARNING": "1"}
    if home:
        environment["P2PREMAP_HOME"] = home
    command = [python, "-m", "bench.peers", what, system, ",".join(map(str, pids)), *inputs]
    try:
        said = said_by(command, env=environment, limit_s=LIMIT_S, quiet=True)
        found: Figures = json.loads(said.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None
    return found


def on_nodes(
    what: str, names: Sequence[str], *, slots: int, system: str = OURS, inputs: Sequence[str] = ()
) -> Figures | None:
    """The figures of p2premap on nodes that are started for them.

    Args:
        system: a way to use it.
        inputs: see `bench.peers`.
    """
    with Cluster(names, slots=slots) as cluster:
        return measure(what, system, pids=cluster.pids, home=cluster.home, inputs=inputs)


def interpreters(systems: Sequence[str]) -> dict[str, str]:
    """By which interpreter each of these systems can be run; who lacks one is told on stderr."""
    python = os.environ.get("BENCH_PYTHON", sys.executable)
    found: dict[str, str] = {}
    for system in systems:
        package = PACKAGES.get(system)
        if package is None:
            found[system] = sys.executable
        elif _has(python, package):
            found[system] = python
        else:
            print(f"# {system} is left out: {python} does not have it; BENCH_PYTHON may name one.", file=sys.stderr)
    return found


def _has(python: str, package: str) -> bool:
    looked = subprocess.run([python, "-c", f"import {package}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return looked.returncode == 0


def in_turns(
    what: str, ours: Callable[[], Figures | None], systems: Sequence[str], *, repeat: int, inputs: Sequence[str] = ()
) -> dict[str, list[Figures]]:
    """p2premap and these systems one after the other, so many times.

    Returns:
        By system, the figures of every turn; a system that failed once is left out.

    Raises:
        RuntimeError: p2premap failed.
    """
    others = interpreters(systems)
    runs: dict[str, list[Figures]] = {OURS: [], **{system: [] for system in others}}
    for _ in range(repeat):
        for system in tuple(runs):
            found = ours() if system == OURS else measure(what, system, others[system], inputs=inputs)
            if found is not None:
                runs[system].append(found)
            elif system == OURS:
                raise RuntimeError(f"{OURS} gave no figures")
            else:
                print(f"# {system} gave no figures, and is left out.", file=sys.stderr)
                del runs[system]
    return runs
