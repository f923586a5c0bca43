"""`rotate`: another secret for the cluster, and who shall not have it."""

from __future__ import annotations

import click

from p2premap.cli.show import clean, count, json_option, print_json, say
from p2premap.client.amounts import duration
from p2premap.client.connection import local
from p2premap.control.membership import Rotate, Rotated

ROTATE_S = 30.0


@click.command()
@click.option("--evict", multiple=True, metavar="NODE", help="Not this member (a name, or the beginning of an id).")
@json_option
@click.pass_obj
def rotate(node: str, evict: tuple[str, ...], as_json: bool) -> None:
    """Give the cluster a new secret.

    Running jobs go on. Members that are away get it by themselves when they are back within a day; with --evict they
    have to join anew, as the evicted node knows the old secret.
    """
    with local(node) as connection:
        done = connection.ask(lambda n: Rotate(request=n, evict=evict), Rotated, timeout_s=ROTATE_S)
    if as_json:
        print_json(
            {
                "epoch": done.epoch,
                "switched": list(done.switched),
                "away": list(done.away),
                "evicted": list(done.evicted),
                "grace_s": done.grace_s,
            }
        )
        return
    say(f"The cluster has a new secret (number {done.epoch}): {count(len(done.switched), 'node')} have it.")
    if done.evicted:
        say(f"Evicted: {', '.join(map(clean, done.evicted))}. Tokens of before invite nobody any more.")
    if done.away:
        then = (
            f"each gets it by itself when it is back within {duration(done.grace_s)}"
            if done.grace_s
            else "each has to join anew: `p2premap invite` here, `p2premap join TOKEN` there"
        )
        say(f"Away: {', '.join(map(clean, done.away))}; {then}.")
