"""Graphs for benchmarks: R-MAT with the parameters of Graph500, and graphs of the web in WebGraph's plain form.

Source: Chakrabarti, Zhan and Faloutsos, R-MAT: a recursive model for graph mining (SDM 2004); the Graph 500 benchmark.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Vertices = npt.NDArray[np.int64]

EDGE_FACTOR: Final = 16
A, B, C = 0.57, 0.19, 0.19
"""The chances of the quarters of the matrix into which an edge falls, bit by bit; the fourth has the rest."""
_SUFFIX: Final = ".graph-txt.gz"


def rmat(scale: int, *, factor: int = EDGE_FACTOR, seed: int = 1) -> tuple[Vertices, Vertices]:
    """Sources and targets of `factor` edges a vertex, of 2 ** `scale` vertices.

    Vertices are numbered at random, as Graph500 demands; edges are repeated now and then, and some are loops.
    """
    rng = np.random.default_rng(seed)
    count = factor << scale
    sources, targets = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for bit in range(scale):
        chance = rng.random(count, dtype=np.float32)
        lower = chance > A + B
        right = ((chance > A) & ~lower) | (chance > A + B + C)
        sources |= lower.astype(np.int64) << bit
        targets |= right.astype(np.int64) << bit
    numbers = rng.permutation(1 << scale)
    return numbers[sources], numbers[targets]


def successors(path: Path) -> tuple[Vertices, Vertices]:
    """The edges of a graph in ASCIIGraph form: first the number of vertices, then a line of successors for each."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        count = int(next(file))
        lists = [np.array(line.split(), np.int64) for line in file]
    assert len(lists) == count, f"{path} has {len(lists)} lines of successors and says {count}"
    sources = np.repeat(np.arange(count), [len(line) for line in lists])
    return sources, np.concatenate(lists)


def edges_of(name: str, directory: str = "") -> tuple[Vertices, Vertices] | None:
    """The edges of "rmat-18", or of the graph of that name in a directory; None: it is not there."""
    kind, _, scale = name.partition("-")
    if kind == "rmat":
        return rmat(int(scale))
    path = Path(directory) / f"{name}{_SUFFIX}"
    return successors(path) if directory and path.exists() else None
