"""`p2premap sim`: a cluster of any size on this machine's CPU alone, with whatever trouble one likes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from p2premap.sim.story import NODES_MAX, Deed, Story, Teller, Wishes
from p2premap.sim.world import InvariantBroken

EXIT_BROKEN = 1


@click.command("sim", short_help="Simulate a cluster: lose machines, cut the network, see what happens.")
@click.option("--nodes", type=int, default=50, show_default=True, help=f"How many nodes, 1 to {NODES_MAX}.")
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
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def sim_command(as_json: bool, **wishes: float) -> int:
    """Simulate a cluster with the daemon's own gossip core, on a virtual clock and a virtual network.

    Nothing is sent and no daemon is needed. A run depends on its options alone: the trace hash is the same on every
    machine. Where something that must hold does not, the command that shows it again is printed and the exit code is 1.

    \b
    p2premap sim --nodes 200 --seed 7 --loss 10 --kill 3
    p2premap sim --nodes 32 --cut 30
    p2premap sim --nodes 7 --faults 120 --seed 4
    p2premap sim --nodes 10000 --kill 1 --seconds 3
    """
    quiet = as_json or not sys.stderr.isatty()
    teller = Teller(Wishes(**wishes), (lambda _: None) if quiet else _progress)  # type: ignore[arg-type]
    try:
        story = teller.tell()
    except InvariantBroken as error:
        story = teller.story
        story.ok, story.problem = False, str(error)
    click.echo(json.dumps(asdict(story)) if as_json else "\n".join(_lines(story)))
    return 0 if story.ok else EXIT_BROKEN


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
