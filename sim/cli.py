"""`p2premap sim`: a cluster of any size on this machine's CPU alone, with whatever trouble one likes.

Without a job it shows what gossip does; with one, what becomes of the job.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict

import click

from p2premap.sim.jobwishes import JobStory, JobWishes
from p2premap.sim.observers import InvariantBroken
from p2premap.sim.story import NODES_MAX, Deed, Story, Teller, Wishes

EXIT_BROKEN = 1


@click.command("sim", short_help="Simulate a cluster: lose machines, cut the network, see what happens.")
@click.argument("job", required=False, metavar="[JOB.PY]")
@click.argument("inputs", nargs=-1)
@click.option("--nodes", type=int, help=f"How many nodes, 1 to {NODES_MAX}; by default 50, with a job 7.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same history.")
@click.option("--loss", type=float, default=0.0, metavar="PERCENT", help="Packets that the network loses.")
@click.option("--kill", type=int, default=0, metavar="N", help="Machines that lose power, one after the other.")
@click.option("--crash", type=int, default=0, metavar="N", help="Processes that are killed.")
@click.option("--leave", type=int, default=0, metavar="N", help="Nodes that leave in good order.")
@click.option("--stall", "stall_s", type=float, default=0.0, metavar="SECONDS", help="One node stands still so long.")
@click.option("--cut", "cut_s", type=float, default=0.0, metavar="SECONDS", help="Cut the network in halves so long.")
@click.option(
    "--faults", "faults_s", type=float, default=0.0, metavar="SECONDS", help="Break anything at random so long."
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="In rest, before the trouble begins.")
@click.option("--form", is_flag=True, help="Start from nothing also where there are more than 400 nodes.")
@click.option("--kill-leader", count=True, help="With a job: its leader loses power in mid-job; may be repeated.")
@click.option("--slots", type=int, default=2, show_default=True, help="With a job: worker processes of a node.")
@click.option("--task-s", type=float, default=0.5, show_default=True, help="With a job: what a task takes, in seconds.")
@click.option("--plot", type=click.Path(dir_okay=False, writable=True), help="With a job: draw it into this SVG file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def sim_command(
    job: str | None,
    inputs: tuple[str, ...],
    nodes: int | None,
    kill_leader: int,
    slots: int,
    task_s: float,
    plot: str | None,
    as_json: bool,
    **wishes: float,
) -> int:
    """Simulate a cluster with the daemon's own code, on a virtual clock, a virtual network and virtual disks.

    Nothing is sent and no daemon is needed. A run depends on its options alone: the trace hash is the same on every
    machine. Where something that must hold does not, the command that shows it again is printed and the exit code is 1.

    With a map/reduce job file, its functions run for real on the inputs, in virtual nodes that lose power as asked;
    what comes out is compared with a run to which nothing happened.

    \b
    p2premap sim count.py texts/ --nodes 7 --kill-leader --seed 3
    p2premap sim --nodes 200 --seed 7 --loss 10 --kill 3
    p2premap sim --nodes 32 --cut 30
    p2premap sim --nodes 7 --faults 120 --seed 4
    p2premap sim --nodes 10000 --kill 1 --seconds 3
    """
    quiet = as_json or not sys.stderr.isatty()
    if job is not None:
        asked = JobWishes(
            job=job,
            inputs=inputs,
            nodes=7 if nodes is None else nodes,
            seed=int(wishes["seed"]),
            slots=slots,
            task_s=task_s,
            kill_leader=kill_leader,
            kill=int(wishes["kill"]),
            loss=wishes["loss"],
        )
        return _run_job(asked, plot, as_json=as_json, progress=(lambda _: None) if quiet else _progress)
    if nodes is not None:
        wishes["nodes"] = nodes
    teller = Teller(Wishes(**wishes), (lambda _: None) if quiet else _progress)  # type: ignore[arg-type]
    try:
        story = teller.tell()
    except InvariantBroken as error:
        story = teller.story
        story.ok, story.problem = False, str(error)
    click.echo(json.dumps(asdict(story)) if as_json else "\n".join(_lines(story)))
    return 0 if story.ok else EXIT_BROKEN


def _run_job(wishes: JobWishes, plot: str | None, *, as_json: bool, progress: Callable[[str], None]) -> int:
    from p2premap.sim.daemon.userjob import tell  # it takes trio, and all of the daemon

    try:
        story = tell(wishes, progress)
    except InvariantBroken as error:
        click.echo(json.dumps({"ok": False, "problem": str(error)}) if as_json else f"BROKEN: {error}")
        return EXIT_BROKEN
    if plot is not None:
        with open(plot, "w") as file:
            file.write(story.svg)
    if as_json:
        click.echo(json.dumps(asdict(story) | {"svg": "", "ok": story.ok}))
    else:
        click.echo("\n".join(_job_lines(story)))
    return 0 if story.ok else EXIT_BROKEN


def _job_lines(story: JobStory) -> list[str]:
    wishes = story.wishes
    lines = [f"{wishes.job} on {wishes.nodes} simulated nodes, seed {wishes.seed}", ""]
    lines += [f"{deed.at:8.2f} s  {deed.text}" for deed in story.deeds]
    lines += ["", *story.timeline, ""]
    if story.takeover_s:
        each = ", ".join(f"{seconds:.2f} s" for seconds in story.takeover_s)
        lines.append(f"takeovers         {story.takeovers}; a new leader after {each}")
    lines += [
        f"redone            {story.redone} finished tasks; {story.lost} whose result went with its machine,"
        f" {story.repeated} attempts beyond one a task",
        f"answer            {'the same as' if story.same else 'NOT the same as'} without faults:"
        f" {story.parts} parts, {story.size} bytes",
        f"took              {story.virtual_s:.1f} virtual seconds ({story.plain_s:.1f} on one node without faults)",
        f"trace             {story.trace}",
        f"again             {wishes.command()}",
    ]
    if story.error:
        lines += ["", f"The job {story.phase}: {story.error}"]
    elif not story.same:
        lines += ["", "The answers differ. Do the job's functions draw random numbers, or look at the clock?"]
    return lines


def _progress(line: str) -> None:
    click.echo(f"... {line}", err=True)


def _lines(story: Story) -> list[str]:
    wishes = story.wishes
    lines = [f"{wishes.nodes} simulated nodes, seed {wishes.seed}, {wishes.loss:g} % loss", ""]
    lines += [_deed(deed) for deed in story.deeds]
    lines += [f"{'':9}   {count:4d} x {name}" for name, count in story.faults.items()]
    lines += ["", f"false alarms      {story.false_dead} well nodes called dead"]
    if wishes.leave:
        lines.append(f"leaves            {story.left_as_dead} reported as a death")
    lines += [
        f"cost in rest      {story.bytes_per_node_s:.0f} bytes and {story.datagrams_per_node_s:.1f} datagrams"
        " a node and second",
        f"network           {story.datagrams} datagrams, {story.datagrams_lost} of them lost",
        f"simulated         {story.virtual_s:.1f} s in {story.real_s:.1f} s"
        f" ({story.virtual_s / max(story.real_s, 1e-9):.1f} times real time), {story.steps} steps",
        f"trace             {story.trace}",
        f"again             {wishes.command()}",
    ]
    if not story.ok:
        lines += ["", f"BROKEN: {story.problem}"]
    return lines


def _deed(deed: Deed) -> str:
    line = f"{deed.at_s:8.2f} s  {deed.what}"
    if deed.first_s is None:
        return line
    if deed.all_s is None:
        return f"{line}: not all knew"
    if deed.first_s == deed.all_s:
        return f"{line}: {deed.all_s:.2f} s"
    return f"{line}: first known after {deed.first_s:.2f} s, half {deed.median_s:.2f} s, all {deed.all_s:.2f} s"
