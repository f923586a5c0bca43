"""Looking at the cluster: `status`, `nodes`, `doctor`."""

from __future__ import annotations

import click

from p2premap.cli.exits import Exit
from p2premap.cli.shapes import finding_shape, node_shape, status_shape
from p2premap.cli.show import clean, count, fold, json_option, print_json, say, table
from p2premap.client.amounts import size
from p2premap.client.connection import local
from p2premap.client.reach import anywhere
from p2premap.control.jobs import Jobs, ListJobs
from p2premap.control.nodes import Diagnose, Diagnosis, Finding, GetStatus, ListNodes, Nodes, NodeView, Status
from p2premap.errors import NodeUnavailable
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView

DIAGNOSE_S = 60.0
LABEL_CHARACTERS = 9

_STATE_COLOURS = {"alive": "green", "stalled": "yellow", "suspect": "yellow", "dead": "red", "left": "bright_black"}


@click.command()
@json_option
@click.pass_obj
def status(node: str, as_json: bool) -> None:
    """Show how this node and its cluster are."""
    with local(node) as connection:
        found = connection.ask(lambda n: GetStatus(request=n), Status)
        listed = list(connection.ask(lambda n: ListJobs(request=n), Jobs).views)
    running = [view for view in listed if not view.phase.over]
    if as_json:
        print_json(status_shape(found, listed))
        return
    for label, text in _status_lines(found, running):
        told = fold(f"{label.ljust(LABEL_CHARACTERS)} {text}", " " * (LABEL_CHARACTERS + 1))
        click.echo(click.style(told[:LABEL_CHARACTERS], dim=True) + told[LABEL_CHARACTERS:])
    for warning in found.warnings:
        click.echo(click.style("! ", fg="yellow") + fold(f"! {clean(warning)}", "  ")[2:])


def _status_lines(found: Status, running: list[JobView]) -> list[tuple[str, str]]:
    me = found.me
    dead = f", {click.style(f'{found.dead} dead', fg='red')}" if found.dead else ""
    lines = [
        ("node", f"{clean(me.name)} ({me.node.hex()[:8]}){_host(me)}, pid {me.pid}, p2premap {clean(me.version)}"),
        (
            "cluster",
            f"{_cluster_name(found)}: {count(found.members, 'node')}{dead}, {count(len(running), 'job')} running",
        ),
        *((("secret", f"number {found.key_epoch} of this cluster (rotated)"),) if found.key_epoch > 1 else ()),
        ("reach", _reach(found)),
        ("slots", f"{me.busy} of {me.slots} busy{_held_back(me)}, {_load(me)}"),
        ("state in", clean(found.state_dir)),
        *((("keeps", _kept(found)),) if found.kept_bytes_max else ()),
    ]
    for view in running:
        if view.note:
            lines.append((f"job {view.job.hex()[:4]}", f"{clean(view.name)}: {clean(view.note)}"))
    for other in found.foreign:
        lines.append(("nearby", f"cluster {clean(other.cluster)} at {clean(other.address)}: {clean(other.hint)}"))
    return lines


def _kept(found: Status) -> str:
    over = found.kept_bytes > found.kept_bytes_max
    why = "; the rest is of jobs that go on, or of the last ten minutes" if over else ""
    return f"{size(found.kept_bytes)} of results and inputs, of {size(found.kept_bytes_max)} at most{why}"


def _host(me: NodeView) -> str:
    return f" on {clean(me.host)}" if me.host and me.host != me.name else ""


def _held_back(me: NodeView) -> str:
    return f" (no more, because {clean(me.held_back)})" if me.held_back else ""


def _load(me: NodeView) -> str:
    return f"load {me.load:.0%}, {size(me.memory_free_bytes)} memory free"


def _cluster_name(found: Status) -> str:
    return f"open cluster {clean(found.open_name)!r}" if found.open_name else clean(found.cluster)


def _reach(found: Status) -> str:
    addresses = ", ".join(clean(a) for a in found.me.addresses)
    if found.scope == "loopback":
        return f"this machine only ({addresses}); `p2premap invite` lets other machines in"
    return f"the network, at {addresses}"


@click.command()
@json_option
@click.pass_obj
def nodes(node: str, as_json: bool) -> None:
    """List the nodes of the cluster."""
    with anywhere(node, told=say) as connection:
        found = connection.ask(lambda n: ListNodes(request=n), Nodes)
    if as_json:
        print_json([node_shape(view) for view in found.views])
        return
    head = ("NAME", "ID", "PID", "STATE", "SLOTS", "LOAD", "FREE", "PYTHON", "ADDRESS")
    spare = ("PYTHON", "FREE", "PID", "LOAD", "ADDRESS")
    lines = table(head, [_node_row(view) for view in found.views], spare=spare).splitlines()
    click.echo(lines[0])
    for view, line in zip(found.views, lines[1:], strict=True):
        click.echo(line.replace(f" {view.state} ", " " + click.style(view.state, fg=_colour(view)) + " ", 1))
    for view in found.views:
        if view.held_back and view.state == "alive":
            offered = f"{clean(view.name)} ({view.node.hex()[:8]}) offers {count(view.slots, 'slot')}"
            say(f"{offered}: {clean(view.held_back)}.")


def _colour(view: NodeView) -> str | None:
    return _STATE_COLOURS.get(view.state)


def _node_row(view: NodeView) -> tuple[str, ...]:
    up = view.state in ("alive", "stalled", "suspect")
    return (
        view.name + (" *" if view.me else ""),
        view.node.hex()[:8],
        str(view.pid),
        view.state,
        f"{view.busy}/{view.slots}" if up else "",
        f"{view.load:.0%}" if up else "",
        _free(view) if up else "",
        view.python,
        view.addresses[0] if view.addresses else "",
    )


def _free(view: NodeView) -> str:
    """The memory that is free, which members tell each other in eight levels."""
    if not view.memory_free_bytes:
        return ""
    return size(view.memory_free_bytes) if view.me else f"~{size(view.memory_free_bytes)}"


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Find out what works and what does not.

    By interface and peer, with what to do about it. Exits with 1 where something is wrong.
    """
    findings = _diagnose(ctx.obj)
    if as_json:
        print_json([finding_shape(finding) for finding in findings])
    else:
        for finding in findings:
            _print_finding(finding)
    bad = sum(not finding.ok for finding in findings)
    if not as_json:
        click.echo()
        click.echo("Everything works." if not bad else f"{count(bad, 'thing')} to look at.")
    ctx.exit(Exit.FAILED if bad else Exit.OK)


def _diagnose(node: str) -> tuple[Finding, ...]:
    try:
        connection = local(node)
    except NodeUnavailable:
        if node:
            raise
        from p2premap.node.examiner import examine_alone  # with trio, which the daemon has loaded already

        return examine_alone(Paths.of_user())
    with connection:
        return connection.ask(lambda n: Diagnose(request=n), Diagnosis, timeout_s=DIAGNOSE_S).findings


def _print_finding(finding: Finding) -> None:
    mark = click.style("ok", fg="green") if finding.ok else click.style("!!", fg="red")
    about = clean(finding.about)
    told = fold(f"    {about}: {clean(finding.text)}", "    ")[4 + len(about) :]
    click.echo(f"{mark}  {click.style(about, bold=True)}{told}")
    if finding.remedy:
        for line in finding.remedy.splitlines():
            told = f"      {clean(line)}"
            click.echo(fold(told, "      ") if line[0].isupper() else told)  # a command stays what can be copied
