"""What becomes of jobs and nodes: `why`, `restart`, `cleanup`, `drain`."""

from __future__ import annotations

import os

import click

from p2premap.cli.jobs import task_of
from p2premap.cli.show import DURATION, clean, count, json_option, print_json, say
from p2premap.client.amounts import duration, size
from p2premap.client.connection import only
from p2premap.client.directories import refuse_earlier
from p2premap.client.jobs import job_bytes
from p2premap.client.reach import anywhere
from p2premap.control.jobs import CleanedUp, CleanUp, Jobs, JobUpdate, ListJobs, Restart, Submitted, Watch, Why
from p2premap.control.nodes import Drain
from p2premap.errors import ConfigError
from p2premap.tasks.job import JobView

KEY_BYTES = 16
NAME_MAX = 64
DAY_S = 86_400.0
DAYS_MAX = 36_500
KEPT_SHOWN_MAX = 5
CLEAN_S = 120.0
RESTART_S = 20.0
MARGIN_S = 30.0


@click.command()
@click.argument("what")
@click.argument("task", required=False)
@json_option
@click.pass_obj
def why(node: str, what: str, task: str | None, as_json: bool) -> None:
    """Explain why a job, a task or a node is as it is.

    WHAT is a job's id or a node's name or id, or the first four or more digits of an id. TASK is STAGE.TASK of
    the job, or a number in the stage that is worked on.
    """
    stage, number = task_of(task)
    if len(what) > NAME_MAX:
        raise ConfigError(f"{clean(what[:NAME_MAX])}... is neither a node's name nor an id.")
    with anywhere(node, told=say) as connection:
        text = connection.do(lambda n: Why(request=n, about=what, stage=stage, task=number))
    print_json({"about": what, "task": task, "text": text}) if as_json else click.echo(clean(text, lines=True))


@click.command()
@click.argument("job")
@click.option("--overwrite", is_flag=True, help="Replace what is at the URL that the job writes to.")
@json_option
@click.pass_obj
def restart(node: str, job: str, overwrite: bool, as_json: bool) -> None:
    """Run a job again.

    With the same code, inputs and options, as a new job whose id is printed.
    """
    wanted, key = job_bytes(job), os.urandom(KEY_BYTES)
    with anywhere(node, told=say) as connection:
        if not overwrite:
            view = connection.ask(lambda n: Watch(request=n, job=wanted, once=True), JobUpdate).view
            if view.output:
                refuse_earlier(view.output)
        found = connection.ask(lambda n: Restart(request=n, job=wanted, key=key), Submitted, timeout_s=RESTART_S)
    if as_json:
        print_json({"id": found.job.hex(), "copies": found.copies})
        return
    click.echo(found.job.hex())
    say(f"Follow it with `p2premap watch {found.job.hex()[:8]}`.")


@click.command()
@click.option("--days", type=click.FloatRange(0, DAYS_MAX), default=7, metavar="N", help="Keep what is younger. [7]")
@json_option
@click.pass_obj
def cleanup(node: str, days: float, as_json: bool) -> None:
    """Remove old results, logs and jobs that are over, on all nodes.

    What a job that goes on may need stays.
    """
    with anywhere(node, told=say) as connection:
        asked = days * DAY_S
        found = connection.ask(lambda n: CleanUp(request=n, older_s=asked), CleanedUp, timeout_s=CLEAN_S)
        left = connection.ask(lambda n: ListJobs(request=n), Jobs).views
    kept = _kept([view for view in left if view.job not in found.jobs], asked)
    if as_json:
        print_json(
            {
                "blobs": found.blobs,
                "bytes": found.size_bytes,
                "jobs": [job.hex() for job in found.jobs],
                "environments": found.environments,
                "nodes": found.nodes,
                "silent": list(found.silent),
                "kept": [{"id": view.job.hex(), "why": why} for why, views in kept.items() for view in views],
            }
        )
        return
    files = f"{count(found.blobs, 'file')} ({size(found.size_bytes)}) on {count(found.nodes, 'node')}"
    if found.environments:
        files += f", {count(found.environments, 'environment')}"
    say(f"Removed {files}, and {count(len(found.jobs), 'job')} from the list.")
    for reason, views in kept.items():
        shown = ", ".join(view.job.hex()[:8] for view in views[:KEPT_SHOWN_MAX])
        more = f" and {len(views) - KEPT_SHOWN_MAX} more" if len(views) > KEPT_SHOWN_MAX else ""
        say(f"Kept: {shown}{more} ({reason}).")
    if found.silent:
        say(f"No answer in time from {', '.join(map(clean, found.silent))}.")


def _kept(left: list[JobView], older_s: float) -> dict[str, list[JobView]]:
    """Why jobs are still listed -> these jobs."""
    kept: dict[str, list[JobView]] = {}
    going_on = [view for view in left if not view.phase.over]
    oldest = max(going_on, key=lambda view: view.age_s, default=None)
    for view in left:
        if not view.phase.over:
            reason = "not over"
        elif oldest is not None and oldest.age_s > older_s:
            reason = f"over, but {oldest.job.hex()[:8]}, which goes on, may need something of it"
        else:
            reason = f"over for less than {duration(older_s)}"
        kept.setdefault(reason, []).append(view)
    return kept


@click.command()
@click.option("--wait", "wait_s", type=DURATION, default="10m", metavar="TIME", help="At most. [10m]")
@json_option
@click.pass_obj
def drain(node: str, wait_s: float, as_json: bool) -> None:
    """Stop a node of this machine once nobody needs it.

    It takes no more work, lets what runs end, has results that only it holds copied to others, hands over the jobs
    that it leads, and stops. Ctrl-C before that, and it stays. Without --node before it, the only one; where there are
    several, name one.
    """
    with only(node) as connection:
        text = connection.do(lambda n: Drain(request=n, wait_s=wait_s), timeout_s=wait_s + MARGIN_S)
        welcome = connection.welcome
    if as_json:
        print_json({"id": welcome.node.hex(), "name": welcome.name, "pid": welcome.pid, "text": text})
    else:
        say(f"Node {clean(welcome.name)} (pid {welcome.pid}) stops. {clean(text)}")
