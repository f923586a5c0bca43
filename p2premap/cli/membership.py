"""Who may come in: `invite`, `join`, `leave`."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from p2premap.cli.show import DURATION, clean, count, json_option, print_json, say
from p2premap.client.amounts import duration
from p2premap.client.connection import Connection, answering, local
from p2premap.control.answers import Done
from p2premap.control.membership import Invited, Join, LeaveCluster, MakeInvite
from p2premap.errors import ConfigError, NodeUnavailable, PeerUnreachable
from p2premap.node.paths import Paths

USES_MAX = 10_000
VALID_MAX_S = 30 * 86_400.0
JOIN_S = 60.0
BACK_S = 5.0
"""A node that begins again in another cluster takes 0.2 s; after this long it has a trouble of its own."""
STARTING_S = 3.0
"""A node that has been told to start a moment ago may be heard of within this time."""
LOOK_S = 0.05


@click.command()
@click.option("--uses", type=click.IntRange(1, USES_MAX), default=1, metavar="N", help="Machines that may use it.")
@click.option("--for", "valid_s", type=DURATION, default="10m", metavar="TIME", help="Valid for, such as 1h. [10m]")
@json_option
@click.pass_obj
def invite(node: str, uses: int, valid_s: float, as_json: bool) -> None:
    """Print a token that lets other machines join.

    The token goes to standard output alone: ssh pi3 p2premap join $(p2premap invite)
    """
    if not 1 <= valid_s <= VALID_MAX_S:
        raise ConfigError("--for must be between 1s and 30d.")
    with local(node) as connection:
        found = connection.ask(lambda n: MakeInvite(request=n, uses=uses, valid_s=valid_s), Invited)
    if as_json:
        print_json({"token": found.token, "uses": found.uses, "valid_s": found.valid_s})
        return
    say(f"For {count(found.uses, 'machine')}, {duration(found.valid_s)}. Type on the other machine:")
    say("    p2premap join TOKEN")
    say("Whoever has the token can run code on every machine of this cluster. The token:")
    click.echo(found.token)


@click.command()
@click.argument("token")
@click.option("--leave", "leaving", is_flag=True, help="Also where the present cluster has other nodes or jobs.")
@json_option
@click.pass_obj
def join(node: str, token: str, leaving: bool, as_json: bool) -> None:
    """Join the cluster that the token is of."""
    try:
        connection = local(node)
    except NodeUnavailable:
        if node:
            raise
        _done(as_json, "joined", _join_alone(token.strip(), leaving))
        return
    _done(as_json, "joined", _join_at(connection, token.strip(), leaving))


def _join_at(connection: Connection, token: str, leaving: bool) -> str:
    with connection:
        done = connection.ask(lambda n: Join(request=n, token=token, leave=leaving), Done, timeout_s=JOIN_S)
        if done.changed:
            _wait_until_back(connection)
    return done.text


def _join_alone(token: str, leaving: bool) -> str:
    """Where no node runs: the next one that starts is a member. One that is just starting becomes one, too.

    Raises:
        NodeUnavailable: nobody can say here whether the present cluster would miss this machine.
    """
    from p2premap.node import secret
    from p2premap.node.belonging import join_alone  # with TLS and trio, which a daemon has loaded already

    paths = Paths.of_user()
    known = secret.load(paths.config)
    if known is not None and not leaving and (paths.state / known.place).exists():
        return _join_at(_starting(), token, leaving)
    text = join_alone(paths, token)
    try:
        connection = local()
    except NodeUnavailable:
        return "This machine is a member now; start its node with `p2premap node`."
    with suppress(PeerUnreachable):  # it begins anew by itself
        _join_at(connection, token, leaving)
    return text


def _starting() -> Connection:
    """The node of this machine that did not answer a moment ago.

    Raises:
        NodeUnavailable: there is none.
    """
    until = time.monotonic() + STARTING_S
    while time.monotonic() < until:
        with suppress(NodeUnavailable):
            return local()
        time.sleep(LOOK_S)
    raise NodeUnavailable(
        "This machine is in a cluster already, and its node does not run: start it with `p2premap node` and join "
        "then, or add --leave to leave that cluster."
    )


@click.command()
@json_option
@click.pass_obj
def leave(node: str, as_json: bool) -> None:
    """Leave the cluster for good.

    Forgets its secret; the node is a cluster of one again.
    """
    with local(node) as connection:
        text = connection.do(lambda n: LeaveCluster(request=n), timeout_s=JOIN_S)
        _wait_until_back(connection)
    _done(as_json, "left", text)


def _wait_until_back(connection: Connection) -> None:
    """Return when the daemon answers in its other cluster, or after a while: the next command will tell."""
    before, until = connection.welcome, time.monotonic() + BACK_S
    while time.monotonic() < until:
        with suppress(NodeUnavailable):
            for found in answering(Paths.of_user()):
                with found:
                    after = found.welcome
                    if after.pid == before.pid and after.cluster != before.cluster:
                        return
        time.sleep(LOOK_S)


def _done(as_json: bool, key: str, text: str) -> None:
    if as_json:
        print_json({key: True, "text": text})
    else:
        say(clean(text))
