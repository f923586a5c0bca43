"""The output parts of a job, wherever they are: `results`."""

from __future__ import annotations

from functools import partial

import click
import msgspec

from p2premap.cli.output import StandardOutput, fetchable, output_to
from p2premap.cli.show import clean, count, json_option, print_json, say, table
from p2premap.client.amounts import size
from p2premap.client.directories import PartsDirectory, UrlDirectory
from p2premap.client.jobs import Connect, job_bytes
from p2premap.client.reach import anywhere
from p2premap.client.session import Collector, Output, whole_view
from p2premap.control.nodes import ListNodes, Nodes
from p2premap.errors import ConfigError, JobLost
from p2premap.ids import NodeId, short
from p2premap.tasks.job import JobView, Part


@click.command()
@click.argument("job")
@click.argument("part", required=False)
@click.option("-o", "--output", metavar="DIR|URL", help="Fetch them, or the one, to there.")
@click.option("--overwrite", is_flag=True, help="Replace the output of an earlier job there.")
@json_option
@click.pass_obj
def results(node: str, job: str, part: str | None, output: str | None, overwrite: bool, as_json: bool) -> None:
    """List a job's output parts, or fetch them.

    From any node of the cluster, until `cleanup` removes them. PART is a number or a name: without -o this part goes to
    standard output. Of a job that goes on or has failed, the parts are those that it has come to.
    """
    if part is not None and overwrite:
        raise ConfigError("--overwrite replaces the whole output of an earlier job: leave PART out.")
    connect = partial(anywhere, node, insist=False)
    target = _directory(output, overwrite)
    view = whole_view(connect, job_bytes(job))
    parts = view.parts if part is None else (_the_part(view, part),)
    wanted = msgspec.structs.replace(view, parts=parts)
    if target is not None:
        collector = _fetch(connect, wanted, target)
        target.deliver()
        if not as_json:
            say(f"{count(collector.parts, 'part')}, {size(collector.size_bytes)}, in {target.path}/.")
    elif part is not None and not as_json:
        pipe = StandardOutput(saved=True)
        _fetch(connect, wanted, pipe)
        pipe.flush()
    if as_json or (target is None and part is None):
        _show(view, parts, _names(connect), output or "", as_json=as_json)


def _fetch(connect: Connect, wanted: JobView, target: Output) -> Collector:
    """Raises:
    JobLost: a part can be read from no node; of a job that goes on it may be being made again.
    """
    collector = Collector(connect, target)
    with fetchable(wanted.job.hex()[:8]):
        collector.take(wanted)
    if missing := len(wanted.parts) - collector.parts:
        raise JobLost(f"{count(missing, 'part')} can be read from no node now; try again.", job=wanted.job.hex())
    return collector


def _directory(output: str | None, overwrite: bool) -> PartsDirectory | UrlDirectory | None:
    target = output_to(output, as_json=True, overwrite=overwrite)
    assert not isinstance(target, StandardOutput), "a listing is no output"
    return target


def _the_part(view: JobView, text: str) -> Part:
    for part in view.parts:
        if text in (part.file_name, str(part.number)):
            return part
    name = view.job.hex()[:8]
    raise ConfigError(f"The job {name} has no part {clean(text)} (yet); `p2premap results {name}` lists those it has.")


def _names(connect: Connect) -> dict[NodeId, str]:
    with connect() as connection:
        views = connection.ask(lambda n: ListNodes(request=n), Nodes).views
    return {NodeId(view.node): view.name for view in views}


def _show(view: JobView, parts: tuple[Part, ...], names: dict[NodeId, str], output: str, *, as_json: bool) -> None:
    held = {part.number: [names.get(holder, short(holder)) for holder in part.source.holders] for part in parts}
    if as_json:
        rows = [
            {
                "number": part.number,
                "name": part.file_name,
                "bytes": part.source.size,
                "records": part.records,
                "nodes": held[part.number],
            }
            for part in parts
        ]
        shape = {"id": view.job.hex(), "phase": view.phase.value, "url": view.output, "output": output, "parts": rows}
        print_json(shape)
        return
    if parts:
        body = [
            (part.file_name, size(part.source.size), str(part.records or ""), ", ".join(held[part.number]))
            for part in parts
        ]
        click.echo(table(("PART", "SIZE", "RECORDS", "HELD BY"), body, spare=("HELD BY", "RECORDS")))
    name = view.job.hex()[:8]
    if not parts:
        say(f"Job {name} has no output{'' if view.phase.over else ' yet'}.")
    elif view.output:
        say(f"They are written to {clean(view.output)}.")
