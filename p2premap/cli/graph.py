"""Algorithms on graphs: `graph pagerank`, `graph components` and others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import click

from p2premap.cli.exits import Exit
from p2premap.cli.output import output_to
from p2premap.cli.progress import progress_for
from p2premap.cli.run import COPIES_MAX, PRIORITY_MAX, planned, see_job
from p2premap.cli.show import DURATION, json_option, print_json
from p2premap.cli.wanted import check_callback, wanted_options
from p2premap.client.connection import Connection, local
from p2premap.client.directories import PartsDirectory
from p2premap.client.graphs import ALGORITHMS, plan_algorithm
from p2premap.client.graphwish import AUTO, HASH, RANGE, Wish, wish_of
from p2premap.client.planning import Asked
from p2premap.client.session import hand_in, renamed, strength
from p2premap.client.submission import Submission
from p2premap.client.urlfiles import needing
from p2premap.errors import ConfigError
from p2premap.tasks import requirements
from p2premap.tasks.job import JobOptions, Limits
from p2premap.tasks.mapreduce_plan import WRITERS
from p2premap.vertex.loading import ADJACENCY, EDGES, INTEGERS, STRINGS
from p2premap.vertex.plan import UNKNOWN
from p2premap.worker.urls import is_url

F = TypeVar("F", bound=Callable[..., Any])

_OWN: Final[Mapping[str, tuple[Callable[[F], F], ...]]] = {
    "pagerank": (
        click.option(
            "--damping", type=click.FloatRange(0, 1), default=0.85, help="How likely an edge is followed. [0.85]"
        ),
        click.option(
            "--tolerance", type=click.FloatRange(0), metavar="X", help="End when ranks change by less in all. [1e-9]"
        ),
        click.option(
            "--iterations", type=click.IntRange(1), metavar="N", help="So many exactly. [until ranks rest, at most 100]"
        ),
    ),
    "components": (),
    "bfs": (click.option("--source", required=True, metavar="ID", help="Where to begin."),),
    "sssp": (click.option("--source", required=True, metavar="ID", help="Where to begin."),),
    "labelprop": (click.option("--iterations", type=click.IntRange(0), metavar="N", help="So many exactly. [10]"),),
}
"""Options of single algorithms."""

_OWN_NAMES: Final = ("damping", "tolerance", "iterations", "source")

_COMMON: Final[tuple[Callable[[F], F], ...]] = (
    click.option("-o", "--output", metavar="DIR|URL", help="Where the parts go. [standard output]"),
    click.option(
        "--overwrite", is_flag=True, help="Replace the output of an earlier job there, once this one is done."
    ),
    click.option("--undirected", is_flag=True, help="Edges have no direction."),
    click.option("--weights", is_flag=True, help="A number stands behind the two ids of an edge."),
    click.option("--ids", type=click.Choice([AUTO, INTEGERS, STRINGS]), default=AUTO, help="What ids are. [by a look]"),
    click.option("--format", type=click.Choice([EDGES, ADJACENCY]), default=EDGES, help="Of lines of text. [edges]"),
    click.option("--columns", metavar="A,B[,W]", help="Where source, target, weight are: numbers from 1, or names."),
    click.option("--delimiter", metavar="CHAR", help="Between fields: a character, tab or space. [by a look]"),
    click.option("--unknown", type=click.Choice(UNKNOWN), help="What a target without a line of its own is. [drop]"),
    click.option("--max-bad", type=click.IntRange(0), metavar="N", help="Leave out so many bad lines. [0]"),
    click.option("--partitions", type=click.IntRange(0), default=0, metavar="N", help="Of the graph. [2 a slot]"),
    click.option("--partition-by", type=click.Choice([HASH, RANGE]), help="How ids are shared out. [hash]"),
    click.option("--checkpoint-every", type=click.IntRange(1), metavar="N", help="Supersteps. [by time]"),
    click.option("--supersteps-max", type=click.IntRange(1), metavar="N", help="Fail after so many. [10000]"),
    click.option("--writer", type=click.Choice(WRITERS), help="Of the parts. [text: id, tab, value]"),
    click.option("--priority", type=click.IntRange(-PRIORITY_MAX, PRIORITY_MAX), default=0, help="[0]"),
    click.option("--name", default="", metavar="NAME", help="For people. [the algorithm's name]"),
    click.option("--detach", is_flag=True, help="Print the job's id and do not wait."),
    click.option("--timeout", type=DURATION, metavar="TIME", help="Cancel the job after this long (exit 124)."),
    click.option("--copies", type=click.IntRange(1, COPIES_MAX), default=3, help="Nodes that keep its ledger. [3]"),
    click.option("--strict", is_flag=True, help="Wait where most of these are lost, instead of going on."),
    click.option("--require", multiple=True, metavar="WHAT", help='Nodes must have it, such as "cpus 4".'),
    wanted_options,
    json_option,
)

_WISHES: Final = tuple(name for name in Wish.__slots__ if name not in ("supersteps", "seed"))


@click.group()
def graph() -> None:
    """Run an algorithm on a graph: pagerank, components, bfs and others.

    INPUTS are files, directories and glob patterns of this machine, and URLs: lists of edges (text as of SNAP, CSV,
    Parquet; packed or not), adjacency lines with --format adjacency, or the output of an earlier job. See
    docs/vertex.md.
    """


def _make(name: str) -> click.Command:
    """The command of an algorithm."""

    @click.pass_obj
    def command(node: str, /, inputs: tuple[str, ...], **given: Any) -> int | None:  # noqa: ANN401  (options)
        return _run(name, node, inputs, given)

    algorithm = ALGORITHMS[name]
    command.__doc__ = f"{algorithm.help}\n\nFor each vertex of the graph that INPUTS say. See `p2premap graph --help`."
    decorated: Any = command
    for option in reversed((*_OWN.get(name, ()), *_COMMON)):
        decorated = option(decorated)
    decorated = click.argument("inputs", nargs=-1, required=True)(decorated)
    return click.command(name, short_help=algorithm.help)(decorated)


for _name in ALGORITHMS:
    graph.add_command(_make(_name))


def _run(name: str, node: str, inputs: tuple[str, ...], given: dict[str, Any]) -> int | None:
    output, as_json, timeout = given["output"], given["as_json"], given["timeout"]
    to_url = output is not None and is_url(output)
    check_callback(given["callback"], given["callback_secret_file"])
    if given["detach"] and ((output is not None and not to_url) or timeout is not None or given["plot"]):
        raise ConfigError("--detach does not wait: leave -o DIR, --timeout and --plot out, and use `p2premap watch`.")
    said = {wish: str(given[wish]) for wish in _WISHES if given.get(wish) not in (None, False)}
    wish, _ = wish_of(said)
    own: dict[str, object] = {option: given[option] for option in _OWN_NAMES if option in given}
    options = JobOptions(
        priority=given["priority"],
        limits=Limits(memory_bytes=given["memory_limit"]),
        copies=given["copies"],
        strict=given["strict"] or to_url,  # two forks would write to one place
        stage_inputs=given["stage"],
        requires=requirements.lines_of(given["require"]),
        output=output if to_url else "",
        overwrite=given["overwrite"] and to_url,
        callback=given["callback"],
        callback_secret=given["callback_secret_file"],
    )
    options = needing(options, (options.output,) if to_url else ())
    started = time.monotonic()
    detached = given["detach"] and not to_url
    target = None if detached else output_to(output, as_json=as_json, overwrite=given["overwrite"])
    plan = partial(_plan, name=name, wish=wish, own=own, inputs=inputs, partitions=given["partitions"])
    submission = planned(node, plan, options, given["with_requirements"])
    if isinstance(target, PartsDirectory):
        target.refuse_old_as_input(submission.files)
    submission = renamed(submission, given["name"]) if given["name"] else submission
    if given["detach"]:
        job = hand_in(partial(local, node), submission)
        print_json({"id": job.hex()}) if as_json else click.echo(job.hex())
        return Exit.OK
    progress = progress_for(as_json=as_json, plot=given["plot"])
    see_job(node, submission, target, progress, started=started, timeout=timeout, output=output, as_json=as_json)
    return Exit.OK


def _plan(
    connection: Connection,
    options: JobOptions,
    *,
    name: str,
    wish: Wish,
    own: Mapping[str, object],
    inputs: tuple[str, ...],
    partitions: int,
) -> Submission:
    power = strength(connection)
    asked = Asked(
        file="",
        inputs=inputs,
        slots=power.slots,
        one_machine=power.one_machine,
        partitions=partitions,
        options=options,
    )
    return plan_algorithm(name, wish, own, asked)
