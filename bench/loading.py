"""Edges from text to the graphs of two partitions, on one core: what a slot does in the first two stages of `graph`.

CPU seconds of this process, after a first run that imports what is needed; digests are taken and files written, as on a
node. Bytes are of an edge: in the input, on the way from loading to building, and in the graph.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.direct import HOME, JOB, Slot
from bench.report import Emitter
from bench.rmat import rmat
from p2premap.client.graphs import plan_algorithm
from p2premap.client.graphwish import Wish
from p2premap.client.planning import Asked
from p2premap.tasks.director import Pinned
from p2premap.tasks.job import StageId
from p2premap.vertex.director import VertexDirector

QUICK: Final = {"repeat": 1, "scale": 10}
SCALE = 16
REPEAT = 3
LOAD_TARGET = 5e6
"""Edges a second and core."""


def run(emit: Emitter, *, repeat: int = REPEAT, scale: int = SCALE) -> None:
    """Load the same graph in several forms."""
    sources, targets = rmat(scale)
    edges = list(zip(sources.tolist(), targets.tolist(), strict=True))
    with tempfile.TemporaryDirectory() as directory:
        for name, wish, lines in _forms(edges):
            path = Path(directory) / f"{name.replace(' ', '-')}.txt"
            path.write_text("".join(lines))
            _measure(emit, name, path, wish, len(edges), LOAD_TARGET if name == "integers" else None, repeat=repeat)


def _forms(edges: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Wish, list[str]]]:
    draw = random.Random(1)
    yield "integers", Wish(), [f"{source}\t{target}\n" for source, target in edges]
    yield "weights", Wish(weights=True), [f"{a} {b} {draw.random():.4f}\n" for a, b in edges]
    yield "text ids", Wish(ids="str"), [f"v{source} v{target}\n" for source, target in edges]


def _measure(
    emit: Emitter, name: str, path: Path, wish: Wish, edges: int, target: float | None, *, repeat: int
) -> None:
    loads, builds = [], []
    sizes: tuple[float, float] = (0.0, 0.0)
    for repetition in range(repeat + 1):
        load_s, build_s, sizes = _once(path, wish)
        if repetition:
            loads.append(edges / load_s)
            builds.append(edges / build_s)
    input_bytes = round(path.stat().st_size / edges, 2)
    emit(f"loaded, {name}", loads, "edges/s", target=target, at_least=True, input_bytes=input_bytes, edges=edges)
    between, graph = (round(size / edges, 2) for size in sizes)
    emit(f"built, {name}", builds, "edges/s", bytes_between=between, graph_bytes=graph)


def _once(path: Path, wish: Wish) -> tuple[float, float, tuple[float, float]]:
    """CPU seconds of loading and of building, and the bytes that each wrote."""
    asked = Asked(file="", inputs=[str(path)], slots=1, partitions=2)
    (_, bundle), (_, plan) = plan_algorithm("pagerank", wish, {}, asked).blobs
    director = VertexDirector(job=JOB, home=HOME, plan=plan)
    seconds, written = [], []
    with tempfile.TemporaryDirectory() as directory:
        slot = Slot(director.runtime, bundle, directory)
        stage = director.first()
        for number in range(2):
            began = time.process_time()
            name = StageId(number, b"lineage." * bool(number))
            results: list[Pinned] = [
                slot.run(stage.function, name, task, director.task(name, task))[0] for task in range(stage.tasks)
            ]
            seconds.append(time.process_time() - began)
            written.append(float(sum(blob.size for result in results for blob in result.blobs)))
            following = director.next(number, results)
            assert following is not None, "supersteps follow"
            stage = following
    return seconds[0], seconds[1], (written[0], written[1])
