"""From inputs and options to a vertex job: the planner of the kind, and of the algorithms that are shipped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from p2premap.client.bundle import pack_file
from p2premap.client.graphlook import Seen, is_table, look, sampled_ids
from p2premap.client.graphwish import AUTO, RANGE, Wish, check, wish_of
from p2premap.client.programs import Class
from p2premap.client.splits import FoundFile, cut_files, find_files
from p2premap.client.submission import Submission, submission_of
from p2premap.client.urlfiles import needing
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import JOB_MODULE, WRITTEN, Module, pack_bundle
from p2premap.tasks.job import JobOptions
from p2premap.tasks.mapreduce_plan import PARTITIONS_MAX, SUFFIXES, InputFile, pack_plan, packing_of
from p2premap.vertex.loading import ADJACENCY, BOTH, EDGES, INTEGERS, LINES, OUT, STRINGS, Columns, Reading, pack_lines
from p2premap.vertex.plan import (
    ARRAYS,
    CREATE,
    DROP,
    KIND,
    OBJECTS,
    PLAN_VERSION,
    Settings,
    VertexPlan,
)
from p2premap.vertex.writing import Writing

if TYPE_CHECKING:
    from p2premap.client.planning import Asked

PARTITIONS_A_SLOT: Final = 2
PARTITION_BYTES: Final = 256 << 10
"""Less input than this a partition is not worth another one."""
_PACKED: Final = 4
"""A packed file holds about so many times its size."""
_NO_TEXT: Final = "give it a name that says what it is, such as .parquet or .gz"
_SAMPLE_LOOKS: Final = 128
_SAMPLE_BYTES: Final = 16 << 10
_SEED_BYTES: Final = 8
_DELIMITERS: Final = {"tab": "\t", "space": "", "comma": ",", "semicolon": ";"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What computes.

    Args:
        name: of the job.
        code: the bundle that workers load.
        target: see `p2premap.vertex.plan.Settings.program`.
        form: of vertices.
        both: it sees edges from both ends.
        weighted: it needs weights.
        prepares: it makes vertices of lines itself.
        options: of its own.
    """

    name: str
    code: bytes
    target: str = ""
    form: str = ARRAYS
    both: bool = False
    weighted: bool = False
    prepares: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One that is shipped.

    Args:
        target: its class.
        both: it sees edges from both ends.
        weighted: it is about weights.
        help: what comes out, for people.
        delta: the aggregate that says how much a superstep has changed; "": the number of active vertices does.
        source: it begins at a vertex.
    """

    target: str
    help: str
    both: bool = False
    weighted: bool = False
    delta: str = ""
    source: bool = False


_HERE: Final = "p2premap.worker.vertex.algorithms:"
ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "pagerank": Algorithm(_HERE + "PageRank", "The share of time that a random surfer spends there.", delta="delta"),
    "components": Algorithm(_HERE + "Components", "The smallest id of the weakly connected component.", both=True),
    "bfs": Algorithm(_HERE + "BFS", "The number of edges on the shortest way from --source.", source=True),
    "sssp": Algorithm(
        _HERE + "SSSP", "The smallest sum of weights on a way from --source.", weighted=True, source=True
    ),
    "labelprop": Algorithm(_HERE + "LabelPropagation", "The label of its community.", both=True),
    "lcc": Algorithm(_HERE + "LCC", "The local clustering coefficient.", both=True),
    "triangles": Algorithm(_HERE + "Triangles", "The number of triangles that it is a corner of.", both=True),
    "kcore": Algorithm(_HERE + "KCore", "The largest k of which it is in the k-core.", both=True),
    "degrees": Algorithm(_HERE + "Degrees", "The numbers of edges that come in, and that leave."),
}


def plan(asked: Asked) -> Submission:
    """The planner of vertex jobs from a job file; see `p2premap.client.planning`.

    Raises:
        JobRejected: one sentence: a wrong job file, input or option.
    """
    wish, own = wish_of(asked.given)
    source = pack_file(asked.file)
    chosen = own.pop("program", "")
    if not source.programs and source.functions:
        return plan_vertex(functions_of(source.name, source.bundle, own), wish, asked)
    if not source.programs:
        raise JobRejected(
            f"{asked.file} has no vertex program: define a class that derives from p2premap.VertexProgram or "
            "p2premap.ArrayProgram, or functions prepare and compute."
        )
    found = Class(asked.file, source, chosen)
    found.check_options(own)
    program = Program(
        name=source.name,
        code=source.bundle,
        target=f":{found.name}",
        form=OBJECTS if found.per_vertex else ARRAYS,
        both=found.both,
        weighted=found.weighted,
        prepares=found.prepares,
        options=own,
    )
    return plan_vertex(program, wish, asked)


def functions_of(name: str, code: bytes, given: Mapping[str, str]) -> Program:
    """A program of functions `prepare` and `compute`, in remap's form.

    Raises:
        JobRejected: options are given, and it can have none.
    """
    if given:
        raise JobRejected(f"A vertex job of functions has no option {next(iter(given))!r}: leave it out.")
    return Program(name=name, code=code, form=OBJECTS, prepares=True)


def plan_algorithm(name: str, wish: Wish, options: Mapping[str, object], asked: Asked) -> Submission:
    """Plan a job of an algorithm that is shipped.

    Args:
        name: one of `ALGORITHMS`.
        options: of the algorithm. "source" is the id of a vertex, as text.
        asked: its file and given options are not looked at.

    Raises:
        JobRejected: one sentence: there is no such algorithm, or an input or option is wrong.
    """
    algorithm = ALGORITHMS.get(name)
    if algorithm is None:
        raise JobRejected(f"There is no algorithm {name!r}; there are {', '.join(ALGORITHMS)}.")
    if algorithm.source and options.get("source") is None:
        raise JobRejected(f"{name} has no source: say at which vertex it begins.")
    program = Program(
        name=name,
        code=pack_bundle([Module(name=JOB_MODULE, path=f"{WRITTEN}{name}.py", source="")]),
        target=algorithm.target,
        both=algorithm.both,
        weighted=algorithm.weighted,
        options={key: value for key, value in options.items() if value is not None},
    )
    return plan_vertex(program, wish, asked)


def plan_vertex(program: Program, wish: Wish, asked: Asked) -> Submission:
    """Plan a vertex job.

    Raises:
        JobRejected: one sentence: an input or option is wrong.
    """
    if asked.options.skip_failed:
        raise JobRejected("--skip-failed would leave out a part of the graph: to leave out bad lines, say --max-bad N.")
    if not 0 <= asked.partitions <= PARTITIONS_MAX:
        raise JobRejected(f"{asked.partitions} partitions: choose between 1 and {PARTITIONS_MAX}.")
    check(wish)
    found = find_files(asked.inputs)
    reading = _reading(program, wish, found)
    how = _How(text=all(is_table(file.input.name) for file in found))
    splits = cut_files(found, asked.inputs, max(asked.slots, 1), how, counted=True, otherwise=_NO_TEXT)
    partitions = asked.partitions or _partitions(found, max(asked.slots, 1))
    if wish.partition_by == RANGE:
        reading = _ranged(reading, found, partitions)
    settings = Settings(
        form=program.form,
        program=program.target,
        options=msgspec.msgpack.encode(_typed(program, reading)),
        partitions=partitions,
        reading=reading.pack(),
        writing=Writing(writer=wish.writer).pack(),
        suffix=SUFFIXES[wish.writer],
        ids=reading.ids,
        unknown=DROP if wish.unknown == CREATE and program.form == ARRAYS else wish.unknown,
        supersteps_max=wish.supersteps_max,
        supersteps=wish.supersteps,
        checkpoint_every=wish.checkpoint_every,
        seed=wish.seed.encode() or os.urandom(_SEED_BYTES),
    )
    inputs = pack_plan(files=splits.files, tasks=splits.tasks, partitions=partitions, compression="none")
    packed = VertexPlan(
        version=PLAN_VERSION, inputs=inputs, settings=settings, lines=pack_lines(splits.first_lines)
    ).pack()
    return submission_of(
        KIND,
        _needing(asked.options, splits.files, wish),
        name=program.name,
        code=program.code,
        plan=packed,
        files=[file.path for file in splits.files if file.path],
        bytes_in=splits.size,
        tasks=len(splits.tasks),
    )


@dataclass(frozen=True, slots=True)
class _How:
    """See `p2premap.client.splits.Cutting`. Whoever reads a file with a form of its own needs all of it."""

    text: bool
    header: bool = False

    @property
    def cut(self) -> str:
        return "lines" if self.text else ""


def _reading(program: Program, wish: Wish, found: Sequence[FoundFile]) -> Reading:
    if program.prepares:
        return Reading(form=LINES, ids=STRINGS, max_bad=wish.max_bad)
    adjacency = wish.format == ADJACENCY
    given = None if wish.delimiter == AUTO else _DELIMITERS.get(wish.delimiter, wish.delimiter)
    if given is not None and len(given.encode()) > 1:
        raise JobRejected(f"delimiter is {given!r}; say one character, or tab, space, comma or semicolon.")
    seen = look(found, delimiter=given, adjacency=adjacency, columns=wish.columns)
    tables = any(is_table(file.input.name) for file in found)
    ids = wish.ids if wish.ids != AUTO else INTEGERS if seen.integers else STRINGS
    return Reading(
        form=ADJACENCY if adjacency else EDGES,
        delimiter=seen.delimiter,
        header=seen.header,
        columns=_columns(wish, seen, tables=tables, weighted=program.weighted),
        ids=ids,
        view=BOTH if wish.undirected or program.both else OUT,
        undirected=wish.undirected,
        creates=not adjacency or wish.unknown == CREATE,
        weighted=program.weighted,
        max_bad=wish.max_bad,
    )


def _columns(wish: Wish, seen: Seen, *, tables: bool, weighted: bool) -> Columns:
    """Raises JobRejected: there is no column of a name, or one that nobody has said anything of may be the weight."""
    if not wish.columns:
        if weighted and not wish.weights and seen.header and seen.fields > 2:
            names = ", ".join(map(repr, seen.header))
            raise JobRejected(
                f"The first row names {names}: say --weights (in run: --option weights=yes) for the third one to be "
                f"the weight, or --columns {','.join(seen.header[:2])} where edges have none."
            )
        width = 3 if wish.weights else 2
        exact = not seen.header or seen.fields == width
        return Columns(weight=2 if wish.weights else -1, exact=exact, fields=width if exact else seen.fields)
    numbers = []
    for column in wish.columns:
        if column.isdigit() and int(column) > 0:
            numbers.append(int(column) - 1)
        elif column in seen.header:
            numbers.append(seen.header.index(column))
        elif tables:
            names = ", ".join(map(repr, seen.header)) or "none"
            raise JobRejected(f"There is no column {column!r}: the first row names {names}.")
        else:
            numbers.append(len(numbers))
    source, target, *weight = numbers
    by_name = wish.columns if all(not column.isdigit() for column in wish.columns) else ()
    weighs = weight[0] if weight else -1
    return Columns(source=source, target=target, weight=weighs, exact=False, names=by_name, fields=seen.fields)


def _ranged(reading: Reading, found: Sequence[FoundFile], partitions: int) -> Reading:
    """With ranges that have about as many edges each, by a sample.

    Raises:
        JobRejected: ids are text, or a file cannot be looked into.
    """
    if reading.ids != INTEGERS or reading.form == LINES:
        raise JobRejected("Partitions by ranges are of ids that are integers: leave --partition-by out.")
    ids = sorted(sampled_ids(found, reading.delimiter, _SAMPLE_LOOKS, _SAMPLE_BYTES))
    if not ids:
        return reading
    bounds = tuple(ids[len(ids) * number // partitions] for number in range(1, partitions))
    return msgspec.structs.replace(reading, ranges=bounds)


def _partitions(found: Sequence[FoundFile], slots: int) -> int:
    size = sum(file.size * (_PACKED if packing_of(file.input.name) else 1) for file in found)
    return min(PARTITIONS_A_SLOT * slots, max(-(-size // PARTITION_BYTES), 1), PARTITIONS_MAX)


def _typed(program: Program, reading: Reading) -> dict[str, object]:
    """The program's options, for the algorithms with the id of a source vertex of the type that ids have.

    Raises:
        JobRejected: it is no number, and ids are.
    """
    typed = dict(program.options)
    source = typed.get("source")
    if isinstance(source, str) and reading.ids == INTEGERS and program.target.startswith(_HERE):
        try:
            typed["source"] = int(source)
        except ValueError:
            raise JobRejected(
                f"The source {source!r} is no integer, and the ids of this graph are; where they are text, say --ids "
                "str."
            ) from None
    return typed


def _needing(options: JobOptions, files: Sequence[InputFile], wish: Wish) -> JobOptions:
    """These options, for nodes that have what the job needs."""
    names = [file.name for file in files if not file.path]
    options = needing(options, names)
    packages = ["numpy"]
    if wish.writer == "parquet" or any(".parq" in file.name for file in files):
        packages.append("pyarrow")
    requires = tuple(dict.fromkeys((*options.requires, *(f"package {package}" for package in packages))))
    return msgspec.structs.replace(options, requires=requires)
