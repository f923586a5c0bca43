"""Following a job that runs already: `watch`."""

from __future__ import annotations

import time
from functools import partial

import click

from p2premap.cli.exits import TimedOut
from p2premap.cli.output import fetchable, finish, output_to
from p2premap.cli.progress import progress_for
from p2premap.cli.shapes import job_shape
from p2premap.cli.show import DURATION, json_option, print_json
from p2premap.cli.wanted import check_plot, plot_option
from p2premap.client.amounts import duration
from p2premap.client.directories import PartsDirectory, UrlDirectory
from p2premap.client.jobs import job_bytes, raise_unless_done
from p2premap.client.reach import anywhere
from p2premap.client.session import Collector, see_through
from p2premap.tasks.job import JobView


@click.command()
@click.argument("job")
@click.option("-o", "--output", metavar="DIR|URL", help="Collect the output parts there.")
@click.option("--overwrite", is_flag=True, help="Replace the output of an earlier job there, once this one is done.")
@click.option("--timeout", type=DURATION, metavar="TIME", help="Stop watching after this long (exit 124).")
@plot_option
@json_option
@click.pass_obj
def watch(
    node: str, job: str, output: str | None, overwrite: bool, timeout: float | None, plot: bool, as_json: bool
) -> None:
    """Follow a job until it is over.

    The exit code is the job's. Ctrl-C stops the watching, not the job. With --json: one line of JSON whenever
    something changed.
    """
    name, started = job_bytes(job), time.monotonic()
    connect = partial(anywhere, node, insist=False)
    target = None if output is None and not overwrite else output_to(output, as_json=as_json, overwrite=overwrite)

    def tick() -> None:
        if timeout is not None and time.monotonic() - started >= timeout:
            raise TimedOut(f"The job still runs after {duration(timeout)}; it goes on, unwatched.")

    with progress_for(as_json=as_json, plot=plot) as progress:

        def seen(view: JobView) -> None:
            if plot:
                check_plot(view.kind)
            progress.update(view)
            if as_json and not view.phase.over:
                print_json(job_shape(view), line=True)

        collector = Collector(connect, target, progress.collected)
        with fetchable(job):
            view = see_through(connect, name, collector, seen, tick)
    if as_json:
        print_json(job_shape(view), line=True)
    raise_unless_done(view)
    if isinstance(target, PartsDirectory | UrlDirectory):
        target.deliver()
    if not as_json:
        finish(view, collector, target)
