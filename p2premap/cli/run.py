"""Running a job: `run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import click

from p2premap.cli.exits import Exit, TimedOut
from p2premap.cli.output import Target, fetchable, finish, output_to
from p2premap.cli.progress import Progress, progress_for
from p2premap.cli.shapes import job_shape
from p2premap.cli.show import DURATION, clean, json_option, print_json, say
from p2premap.cli.wanted import check_callback, check_plot, wanted_options
from p2premap.client.bundle import kind_of, requires_of
from p2premap.client.connection import Connection, local
from p2premap.client.directories import PartsDirectory, UrlDirectory
from p2premap.client.jobs import Connect, raise_unless_done
from p2premap.client.jobs import cancel as cancel_job
from p2premap.client.planning import Asked, Planner, plan_job
from p2premap.client.reach import anywhere
from p2premap.client.session import Collector, Output, hand_in, renamed, see_through, strength
from p2premap.client.submission import Submission, with_blob
from p2premap.client.urlfiles import needing
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import ConfigError, P2PRemapError
from p2premap.ids import JobId
from p2premap.tasks import requirements
from p2premap.tasks.job import JobOptions, JobView, Limits
from p2premap.worker.urls import is_url

PRIORITY_MAX = 1_000
RETRIES_MAX = 100
COPIES_MAX = 15


@click.command()
@click.argument("file")
@click.argument("paths", nargs=-1)
@click.option(
    "--kind", default="", metavar="KIND", help="Of the job: mapreduce, action, or an installed one. [by FILE]"
)
@click.option(
    "--compat",
    type=click.Choice(["remap", "mincemeat"]),
    help="FILE was written for this library, and runs as it is.",
)
@click.option("--option", "given", multiple=True, metavar="NAME=VALUE", help="For the job's own use; may be repeated.")
@click.option("-o", "--output", metavar="DIR|URL", help="Where the parts go. [standard output]")
@click.option("--overwrite", is_flag=True, help="Replace the output of an earlier job there, once this one is done.")
@click.option("--partitions", type=click.IntRange(0), default=0, metavar="N", help="Output parts. [by size and slots]")
@click.option("--priority", type=click.IntRange(-PRIORITY_MAX, PRIORITY_MAX), default=0, help="Higher goes first. [0]")
@click.option("--name", default="", metavar="NAME", help="For people. [the file's name]")
@click.option("--detach", is_flag=True, help="Print the job's id and do not wait.")
@click.option("--timeout", type=DURATION, metavar="TIME", help="Cancel the job after this long (exit 124).")
@click.option("--retries", type=click.IntRange(0, RETRIES_MAX), default=0, help="Try a task that raises again. [0]")
@click.option("--skip-failed", is_flag=True, help="Leave out what fails for good, instead of failing the job.")
@click.option("--time-limit", type=DURATION, default="0", metavar="TIME", help="Of one attempt. [none]")
@click.option("--copies", type=click.IntRange(1, COPIES_MAX), default=3, help="Nodes that keep the job's ledger. [3]")
@click.option("--strict", is_flag=True, help="Wait where most of these nodes are lost, instead of going on without.")
@click.option("--require", multiple=True, metavar="WHAT", help='Nodes must have it, such as "package numpy >=2".')
@click.option("--parallel", type=click.IntRange(0), default=0, metavar="N", help="Tasks side by side. [by slots]")
@wanted_options
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    file: str,
    paths: tuple[str, ...],
    kind: str,
    compat: str | None,
    given: tuple[str, ...],
    output: str | None,
    overwrite: bool,
    partitions: int,
    priority: int,
    name: str,
    detach: bool,
    timeout: float | None,
    retries: int,
    skip_failed: bool,
    time_limit: float,
    memory_limit: int,
    copies: int,
    strict: bool,
    require: tuple[str, ...],
    with_requirements: str | None,
    parallel: int,
    stage: bool,
    callback: str,
    callback_secret_file: str,
    plot: bool,
    as_json: bool,
) -> None:
    """Run a job over files of this machine.

    PATHS are files, directories and glob patterns, which need to exist here only, and URLs. FILE is a Python file with
    map(key, line) and perhaps combine, reduce, partition (docs/job-files.md), or with a class derived from
    p2premap.Action, whose inputs may be URLs and JSON, too (docs/actions.md).

    Ctrl-C asks whether to detach or to cancel; where nobody can be asked, it cancels.
    """
    if compat == "mincemeat":
        _run_script(ctx, file, paths)
        return
    check_callback(callback, callback_secret_file)
    to_url = output is not None and is_url(output)
    if to_url and compat is not None:
        raise ConfigError("The files of such an application are written by `run` on this machine: name a directory.")
    if detach:
        to_parts = not to_url and (output is not None or overwrite)
        _check_detached(compat, to_parts=to_parts, timeout=timeout, plot=plot)
    options = JobOptions(
        priority=priority,
        retries=retries,
        skip_failed=skip_failed,
        limits=Limits(time_s=time_limit, memory_bytes=memory_limit),
        copies=copies,
        strict=strict or to_url,  # two forks would write to one place
        stage_inputs=stage,
        parallel_max=parallel,
        requires=(*(() if compat else requires_of(file)), *requirements.lines_of(require)),
        output=output if output is not None and to_url else "",
        overwrite=overwrite and to_url,
        callback=callback,
        callback_secret=callback_secret_file,
    )
    options = needing(options, (options.output,) if to_url else ())
    started = time.monotonic()
    planner, to = _ways(file, kind, compat)
    target = None if detach and not to_url else to(output, as_json=as_json, overwrite=overwrite)
    plan = partial(_plan, planner=planner, file=file, paths=paths, given=_pairs(given), partitions=partitions)
    submission = _ready(planned(ctx.obj, plan, options, with_requirements), name, target)
    if plot:
        check_plot(submission.spec.kind)
    if detach:
        job = hand_in(partial(local, ctx.obj), submission)
        print_json({"id": job.hex()}) if as_json else click.echo(job.hex())
        return
    progress = progress_for(as_json=as_json, plot=plot)
    see_job(ctx.obj, submission, target, progress, started=started, timeout=timeout, output=output, as_json=as_json)


def _check_detached(compat: str | None, *, to_parts: bool, timeout: float | None, plot: bool) -> None:
    """What needs somebody who waits for the job.

    Args:
        to_parts: its output is to be in a directory here.

    Raises:
        ConfigError: something does.
    """
    if compat is not None:
        raise ConfigError("--detach would leave the output in parts, of which only `run` makes files: wait for it.")
    if to_parts:
        raise ConfigError("--detach does not wait: fetch the output later with `p2premap watch JOB -o DIR`.")
    if timeout is not None:
        raise ConfigError("--detach does not wait: there is nobody to end the job when --timeout is over.")
    if plot:
        raise ConfigError("--detach does not wait: see the plot later with `p2premap watch JOB --plot`.")


def see_job(
    node: str,
    submission: Submission,
    target: Target,
    progress: Progress,
    *,
    started: float,
    timeout: float | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Hand a job in, show it to its end, and have its output where it belongs.

    Args:
        node: see `cli`.
        started: when the command was, by the monotonic clock.
        timeout, output, as_json: as given to it.

    Raises:
        P2PRemapError: the job did not succeed, or cannot be seen through.
        click.exceptions.Exit: the user interrupted.
    """
    with progress as showing:
        job = hand_in(partial(local, node), submission)
        fetched = None if isinstance(target, UrlDirectory) else target
        session = Session(partial(anywhere, node, insist=False), job, showing, fetched)
        try:
            with fetchable(job.hex()[:8], handed_in=True):
                view = session.run(None if timeout is None else started + timeout)
        finally:  # also of a job that did not succeed, or is watched no more
            took_s = time.monotonic() - started
            if as_json and (last := session.last) is not None:
                ours = {"output": output or "", "bytes_in": submission.bytes_in, "took_s": round(took_s, 3)}
                print_json({**job_shape(last), **ours})
    raise_unless_done(view)
    if isinstance(target, PartsDirectory):
        target.deliver()
    if not as_json:
        finish(view, session.collector, target, took_s=took_s, bytes_in=submission.bytes_in)


def _ways(file: str, kind: str, compat: str | None) -> tuple[Planner, Callable[..., Target]]:
    """Who plans such a job, and where its output goes."""
    if compat is None:
        return partial(plan_job, kind or kind_of(file)), output_to
    from p2premap.cli.applications import output_of_application
    from p2premap.compat.application import is_vertex_application, plan_application

    return plan_application, output_to if is_vertex_application(file) else output_of_application


def planned(
    node: str, plan: Callable[[Connection, JobOptions], Submission], options: JobOptions, with_requirements: str | None
) -> Submission:
    """The job, with what it wants installed."""
    with local(node) as connection:  # the inputs are files of this machine: its own node hands them out
        if with_requirements is None:
            return plan(connection, options)
        from p2premap.client import environment  # few jobs ask for one

        made = environment.prepare(connection, with_requirements, told=say)
        return with_blob(plan(connection, made.of(options)), made.blob)


def _plan(
    connection: Connection,
    options: JobOptions,
    *,
    planner: Planner,
    file: str,
    paths: tuple[str, ...],
    given: dict[str, str],
    partitions: int,
) -> Submission:
    power = strength(connection)
    asked = Asked(
        file=file,
        inputs=paths,
        slots=power.slots,
        one_machine=power.one_machine,
        partitions=partitions,
        given=given,
        options=options,
    )
    return planner(asked)


def _ready(submission: Submission, name: str, target: Target) -> Submission:
    """The job under the name that the user gave it, if any.

    Raises:
        ConfigError: it would read what it is to replace.
    """
    if isinstance(target, PartsDirectory):
        target.refuse_old_as_input(submission.files)
    return renamed(submission, name) if name else submission


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    """What ``--option`` said.

    Raises:
        ConfigError: one has no "=".
    """
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"--option {clean(text)!r}: write NAME=VALUE.")
        pairs[name] = value
    return pairs


def _run_script(ctx: click.Context, file: str, args: tuple[str, ...]) -> None:
    """Raises ConfigError for an option that would be of no effect."""
    from p2premap.compat.script import run_script  # with cloudpickle

    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name not in ("file", "paths", "compat"):
            raise ConfigError(f"{parameter.opts[0]} has no effect on a mincemeat script; it says itself what it does.")
    run_script(file, args, node=ctx.obj)


class Session:
    """One job watched to its end, with Ctrl-C on the way.

    Args:
        target: where its parts go.

    Attributes:
        last: the job as it was seen last; None before the first look.
    """

    def __init__(self, connect: Connect, job: JobId, progress: Progress, target: Output | None) -> None:
        self._connect = connect
        self._job = job
        self._progress = progress
        self.collector = Collector(connect, target, progress.collected)
        self.last: JobView | None = None

    def run(self, until: float | None) -> JobView:
        """The job's last view.

        Args:
            until: when to cancel it, by the monotonic clock.

        Raises:
            TimedOut: that time has come.
            click.exceptions.Exit: the user interrupted.
        """

        def tick() -> None:
            if until is not None and time.monotonic() >= until:
                self._cancel("--timeout is over")
                raise TimedOut(f"Job {self._job.hex()[:8]} was cancelled: the time given by --timeout is over.")

        while True:
            try:
                return see_through(self._connect, self._job, self.collector, self._seen, tick, known=True)
            except KeyboardInterrupt:
                self._progress.__exit__()
                self._interrupted()
                self._progress.__enter__()

    def _seen(self, view: JobView) -> None:
        self.last = view
        self._progress.update(view)

    def _cancel(self, reason: str) -> None:
        with self._connect() as connection:
            cancel_job(connection, self._job, reason)
            self.last = connection.ask(lambda n: Watch(request=n, job=self._job, once=True), JobUpdate).view

    def _interrupted(self) -> None:
        """Ask what to do; returns when the user wants to go on watching."""
        name = self._job.hex()[:8]
        answer = "c"
        if sys.stdin.isatty() and sys.stderr.isatty():
            try:
                answer = click.prompt(
                    "\n[d]etach (the job goes on), [c]ancel it, or go on [w]atching?",
                    type=click.Choice(["d", "c", "w"]),
                    default="w",
                    show_choices=False,
                    err=True,
                )
            except click.Abort:
                answer = "c"
        if answer == "w":
            return
        if answer == "d":
            say(f"Job {name} goes on; see it with `p2premap watch {name}`.")
        else:
            try:
                self._cancel("Ctrl-C at `p2premap run`")
                say(f"Job {name} is cancelled.")
            except P2PRemapError as error:
                say(f"Job {name} could not be cancelled: {clean(str(error))}")
        raise click.exceptions.Exit(Exit.INTERRUPTED)
