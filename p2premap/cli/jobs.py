"""Looking at jobs and ending them: `jobs`, `jobs accept`, `logs`, `cancel`."""

from __future__ import annotations

import sys

import click

from p2premap.cli.progress import state_word
from p2premap.cli.shapes import job_shape
from p2premap.cli.show import clean, count, json_option, print_json, say, table
from p2premap.client.amounts import duration
from p2premap.client.jobs import cancel as cancel_job
from p2premap.client.jobs import job_bytes, read_log
from p2premap.client.reach import anywhere
from p2premap.control.jobs import AcceptFork, Jobs, JobUpdate, ListJobs, Watch
from p2premap.errors import ConfigError
from p2premap.tasks.job import JobView, Phase


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def jobs(ctx: click.Context, as_json: bool) -> None:
    """List the jobs, the newest first."""
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, as_json)


@jobs.command()
@click.argument("fork")
@json_option
@click.pass_obj
def accept(node: str, fork: str, as_json: bool) -> None:
    """Make a fork the job, where most of the nodes that kept the job's ledger are lost for good.

    When one of them comes back after all, it hears that the job is another one now.
    """
    with anywhere(node, told=say) as connection:
        text = connection.do(lambda n: AcceptFork(request=n, fork=job_bytes(fork)))
    if as_json:
        print_json({"fork": fork, "accepted": True, "text": text})
    else:
        say(clean(text))


def _list(node: str, as_json: bool) -> None:
    with anywhere(node, told=say) as connection:
        found = connection.ask(lambda n: ListJobs(request=n), Jobs)
    if as_json:
        print_json([job_shape(view) for view in found.views])
    elif found.views:
        head = ("ID", "NAME", "STATE", "DONE", "AGE", "COPIES", "LEADER")
        click.echo(table(head, [_job_row(view) for view in found.views], spare=("LEADER", "COPIES", "AGE")))
        for view in found.views:
            if view.note:
                say(f"{view.job.hex()[:8]}: {clean(view.note)}")
    else:
        say("No jobs yet. Start one with `p2premap run FILE INPUTS...`.")
    if found.left_out:
        say(f"{count(found.left_out, 'older job')} would not fit into this list.")
    if found.silent:
        say(f"No answer in time from {', '.join(map(clean, found.silent))}: their jobs may be missing here.")


def _job_row(view: JobView) -> tuple[str, ...]:
    tasks = sum(stage.tasks for stage in view.stages)
    done = sum(stage.done for stage in view.stages)
    where = f"{done}/{tasks}" if view.stages else ""
    if view.stages and not view.phase.over:
        where += f" in {view.stages[-1].name}"
    state = f"{state_word(view)} (fork {view.fork})" if view.fork else state_word(view)
    age = duration(view.age_s) if view.stages else ""
    return (view.job.hex()[:8], view.name, state, where, age, str(view.copies), view.leader_name)


@click.command()
@click.argument("job")
@click.argument("task", required=False)
@json_option
@click.pass_obj
def logs(node: str, job: str, task: str | None, as_json: bool) -> None:
    """Show what a job's attempts printed.

    Of all tasks, or of one: TASK is STAGE.TASK, or a number in any stage.
    """
    stage_number, task_number = task_of(task)
    with anywhere(node, told=say) as connection:
        pieces = read_log(connection, job_bytes(job), stage=stage_number, task=task_number)
        if as_json:
            text = b"".join(pieces).decode(errors="replace")
            print_json({"job": job, "stage": stage_number, "task": task_number, "text": text})
            return
        written = sum(sys.stdout.buffer.write(piece) for piece in pieces)
    if not written:
        say("Nothing was printed.")


def task_of(text: str | None) -> tuple[int, int]:
    """(stage, task), -1 for all.

    Raises:
        ConfigError: it names no task.
    """
    if text is None:
        return -1, -1
    stage, dot, task = text.rpartition(".")
    if not task.isdecimal() or (dot and not stage.isdecimal()):
        raise ConfigError(f"{clean(text)!r} names no task: write STAGE.TASK, such as 0.17.")
    return (int(stage) if dot else -1), int(task)


@click.command()
@click.argument("job")
@json_option
@click.pass_obj
def cancel(node: str, job: str, as_json: bool) -> None:
    """End a job.

    Returns when none of its attempts runs any more.
    """
    with anywhere(node, told=say) as connection:
        text = cancel_job(connection, job_bytes(job), "by `p2premap cancel`")
        if as_json:
            view = connection.ask(lambda n: Watch(request=n, job=job_bytes(job), once=True), JobUpdate).view
            print_json({"job": job, "cancelled": view.phase is Phase.CANCELLED, "text": text})
            return
    say(clean(text) or f"Job {clean(job)} is cancelled.")
