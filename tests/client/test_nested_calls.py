"""Calls that make calls, on a node with one slot: whoever waits gives it back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import environment, private

PROGRAM = """
import p2premap

def leaf(x):
    return x + 1

def by_result(x):
    with p2premap.connect() as inner:
        return inner.submit(leaf, x).result(timeout=150)

def by_map(x):
    with p2premap.connect() as inner:
        return sum(inner.map(leaf, range(x)))

def by_as_completed(x):
    with p2premap.connect() as inner:
        return sum(f.result() for f in p2premap.as_completed([inner.submit(leaf, i) for i in range(x)]))

def deep(depth):
    if not depth:
        return 0
    with p2premap.connect() as inner:
        return 1 + inner.submit(deep, depth - 1).result(timeout=150)

if __name__ == "__main__":
    with p2premap.connect() as cluster:
        fs = [cluster.submit(f, 3) for f in (by_result, by_map, by_as_completed, deep)]
        print([f.result(timeout=150) for f in fs], flush=True)
"""


def test_calls_may_wait_for_calls_that_they_make_themselves(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with private(("n1",)) as cluster:
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment(cluster.home) | {"PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.stdout == "[4, 6, 6, 3]\n", done.stderr
