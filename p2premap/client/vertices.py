"""`Cluster.run_vertex`: vertex jobs from a program, over files, lists of edges, or graphs of networkx and scipy."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from p2premap.client.bundle import pack_written
from p2premap.client.graphs import ALGORITHMS, Program, plan, plan_algorithm, plan_vertex
from p2premap.client.graphwish import wish_of
from p2premap.client.handle import raise_with_traceback
from p2premap.client.jobs import Connect
from p2premap.client.jobs import cancel as cancel_job
from p2premap.client.locals import modules_of_program
from p2premap.client.outputparts import PartFiles
from p2premap.client.planning import Asked
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.client.submission import Submission
from p2premap.errors import JobRejected, P2PRemapError
from p2premap.tasks.job import JobOptions, JobView
from p2premap.vertex.plan import ARRAYS, OBJECTS, StepRow
from p2premap.vertex.program import ArrayProgram, VertexProgram
from p2premap.vertex.told import Told, unpack_told
from p2premap.worker.runtime import Segment
from p2premap.worker.writers import read_pairs

GRAPH_FILE: Final = "graph.p2pa"
_MINOR: Final = f"python {sys.version_info.major}.{sys.version_info.minor}"
_CLASS: Final = "Program"
_OWN: Final = ("damping", "tolerance", "iterations", "source", "method")
"""Options of algorithms."""


class VertexResult(dict[Any, Any]):
    """What a vertex job came to: id -> value.

    Attributes:
        job: its id.
        why: how it ended.
        steps: its supersteps in numbers; of very many, not all.
        vertices, edges: of the graph.
        bad_lines: how many lines were left out.
        dropped: messages to vertices that do not exist.
    """

    def __init__(self, job: str, told: Told) -> None:
        super().__init__()
        self.job = job
        self.why = told.why
        self.steps: tuple[StepRow, ...] = told.rows
        self.vertices, self.edges = told.vertices, told.edges
        self.bad_lines, self.dropped = told.loaded.bad, told.dropped


def run_vertex(
    connect: Connect,
    program: str | os.PathLike[str] | type[VertexProgram] | type[ArrayProgram],
    inputs: Any,  # noqa: ANN401  (paths, or a graph of a library that need not be installed)
    *,
    partitions: int,
    options: JobOptions,
    seen: Callable[[JobView], None],
    given: dict[str, Any],
) -> VertexResult:
    """See `p2premap.client.cluster.Cluster.run_vertex`; `given` are its options."""
    with ExitStack() as stack:
        if not isinstance(inputs, (str, os.PathLike)) and not _are_paths(inputs):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2premap-graph-")))
            inputs, given = _written(inputs, directory / GRAPH_FILE, given)
        paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
        with connect() as connection:
            power = strength(connection)
        asked = Asked(
            file=os.fspath(program) if isinstance(program, (str, os.PathLike)) else "",
            inputs=[os.fspath(path) for path in paths],
            slots=power.slots,
            one_machine=power.one_machine,
            partitions=partitions,
            options=options,
        )
        submission = _planned(program, asked, {**given, "writer": "pairs"})
        parts = PartFiles(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2premap-parts-"))))
        view = _seen_through(connect, submission, parts, seen)
        result = VertexResult(view.job.hex(), unpack_told(view.told) or Told())
        for path in parts.paths:
            segment = Segment(str(path), 0, path.stat().st_size, b"", True, path.name)
            for keys, values in read_pairs(segment):
                result.update(zip(keys, values, strict=True))
        return result


def _are_paths(inputs: object) -> bool:
    return isinstance(inputs, Sequence) and all(isinstance(one, (str, os.PathLike)) for one in inputs)


def _planned(program: Any, asked: Asked, given: dict[str, Any]) -> Submission:  # noqa: ANN401  (as `run_vertex`)
    if isinstance(program, str) and program in ALGORITHMS:
        own: dict[str, Any] = {name: given.pop(name) for name in _OWN if name in given}
        wish, rest = wish_of(_texts(given))
        if rest:
            raise JobRejected(f"{program} has no option {next(iter(rest))!r}.")
        if isinstance(own.get("source"), int):
            own["source"] = str(own["source"])
        return plan_algorithm(program, wish, own, asked)
    if isinstance(program, (str, os.PathLike)):
        if not os.path.exists(program):
            raise JobRejected(f"{program} is neither a job file nor one of {', '.join(ALGORITHMS)}.")
        return plan(Asked(**{**_fields(asked), "given": _texts(given)}))
    if not (isinstance(program, type) and issubclass(program, (VertexProgram, ArrayProgram))):
        raise JobRejected(f"{program!r:.100} is no vertex program: give a class, a job file, or an algorithm's name.")
    wish, rest = wish_of(_texts(given))
    own = {name: given.get(name, value) for name, value in rest.items()}
    for name in own:
        if not hasattr(program, name):
            raise JobRejected(f"{program.__name__} has no option {name!r}: give its class an attribute of this name.")
    options = asked.options
    requires = (*options.requires, _MINOR)
    asked = Asked(**{**_fields(asked), "options": _replaced(options, requires)})
    return plan_vertex(_by_value(program, own), wish, asked)


def _fields(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in Asked.__slots__}


def _replaced(options: JobOptions, requires: tuple[str, ...]) -> JobOptions:
    import msgspec

    return msgspec.structs.replace(options, requires=tuple(dict.fromkeys(requires)))


def _texts(given: dict[str, Any]) -> dict[str, str]:
    """Options as they would be typed."""
    texts = {}
    for name, value in given.items():
        if isinstance(value, (tuple, list)):
            texts[name] = ",".join(map(str, value))
        else:
            texts[name] = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return texts


def _by_value(program: type[VertexProgram] | type[ArrayProgram], own: dict[str, Any]) -> Program:
    """A class of the running program: pickled with all that it refers to."""
    import cloudpickle

    pickled = cloudpickle.dumps(program)
    source = f"import pickle\n\n{_CLASS} = pickle.loads(bytes.fromhex({pickled.hex()!r}))\n"
    return Program(
        name=program.__name__,
        code=pack_written("program", source, modules_of_program()),
        target=f":{_CLASS}",
        form=OBJECTS if issubclass(program, VertexProgram) else ARRAYS,
        both=getattr(program, "view", "") in ("both", "simple"),
        weighted=bool(getattr(program, "weighted", False)),
        prepares=issubclass(program, VertexProgram) and program.prepare is not VertexProgram.prepare,
        options=own,
    )


def _written(graph: Any, path: Path, given: dict[str, Any]) -> tuple[Path, dict[str, Any]]:  # noqa: ANN401
    """Edges, or a graph of another library, as a file, and the options with what it says of itself."""
    from p2premap.worker.vertex.foreign import of_edges, of_networkx, of_scipy, write  # with numpy

    weights = given.get("weights", False)
    if hasattr(graph, "is_directed") and hasattr(graph, "adjacency"):
        found = of_networkx(graph, "weight" if weights is True else weights or None)
        given = {**given, "undirected": not graph.is_directed()}
    elif hasattr(graph, "tocoo"):
        found = of_scipy(graph, weighted=bool(weights))
    elif hasattr(graph, "tolist") or isinstance(graph, Sequence):
        found = of_edges(graph, weighted=bool(weights))
    else:
        raise JobRejected(
            f"{type(graph).__name__} is no input of a vertex job: give paths, a list of edges, a graph of networkx, or "
            "a sparse matrix of scipy."
        )
    write(path, found)
    return path, {**given, "weights": bool(weights), "ids": "str" if found.names else "int"}


def _seen_through(
    connect: Connect, submission: Submission, parts: PartFiles, seen: Callable[[JobView], None]
) -> JobView:
    job = hand_in(connect, submission)
    try:
        view = see_through(connect, job, Collector(connect, parts), seen, lambda: None, known=True)
    except BaseException:  # Ctrl-C above all: nobody will want the result
        try:
            with connect() as connection:
                cancel_job(connection, job, "its program does not wait for it any more")
        except P2PRemapError:
            pass
        raise
    raise_with_traceback(view)
    return view
