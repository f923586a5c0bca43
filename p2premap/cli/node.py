"""Running a node and stopping it: `node`, `stop`."""

from __future__ import annotations

import gc
import os
import signal
import threading

import click

from p2premap.cli.show import SIZE, clean, count, json_option, print_json, say
from p2premap.client.connection import only
from p2premap.config import NodeConfig, OwnerLimits
from p2premap.control.nodes import Status, Stop
from p2premap.errors import ConfigError

NAME_MAX = 63
TAGS_MAX = 32
SLOTS_MAX = 1024


@click.command()
@click.option("--name", default="", metavar="NAME", help="What people call this node. [the host's name]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="TCP and UDP. [7321 or next free]"
)
@click.option("--join", "joins", multiple=True, metavar="HOST[:PORT]", help="A member to find where mDNS is blocked.")
@click.option("--open", "open_name", metavar="NAME", help="Anyone on this network who knows NAME may join.")
@click.option(
    "--slots", "--max-workers", type=click.IntRange(1, SLOTS_MAX), metavar="N", help="Worker processes. [one a CPU]"
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A word for people, shown by `nodes`.")
@click.option(
    "--max-load",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Part of all CPUs that may be in use, by others too, such as 0.5. [no limit]",
)
@click.option("--min-free-memory", type=SIZE, default="0", metavar="SIZE", help="Memory to leave free. [no limit]")
@click.option("--only-when-idle", is_flag=True, help="Work only while nobody else uses this machine.")
@click.option("--not-on-battery", is_flag=True, help="Work only while it does not run from its battery.")
@click.option("--refuse-action", "refused", multiple=True, metavar="NAME", help="Run no tasks of this action.")
@click.option("--keep", type=SIZE, default="0", metavar="SIZE", help="Disk for results: the oldest go. [no limit]")
@click.option("--http", is_flag=True, help="Serve the page and the API from the start on, not only when asked.")
@click.option("--http-lan", is_flag=True, help="The same, and to other machines too, under TLS.")
@click.option(
    "--http-port", type=click.IntRange(0, 65535), default=8321, metavar="PORT", help="For it. [8321 or next free]"
)
@click.option("--until-eof", is_flag=True, hidden=True, help="End when standard input ends.")
@json_option
@click.pass_context
def node(
    ctx: click.Context,
    name: str,
    port: int,
    joins: tuple[str, ...],
    open_name: str | None,
    slots: int | None,
    tags: tuple[str, ...],
    max_load: float | None,
    min_free_memory: int,
    only_when_idle: bool,
    not_on_battery: bool,
    refused: tuple[str, ...],
    keep: int,
    http: bool,
    http_lan: bool,
    http_port: int,
    until_eof: bool,
    as_json: bool,
) -> None:
    """Run a node on this machine, until Ctrl-C.

    It finds the other nodes of this machine by itself, and those of the network after one `p2premap join TOKEN`.
    """
    _check_words("--name", (name,) if name else ())
    _check_words("--tag", tags)
    if open_name == "":
        raise ConfigError("--open needs a name that all nodes of the open cluster share.")
    if http_lan and open_name:
        raise ConfigError("--http-lan would let anyone who knows the NAME of --open in: leave one of them out.")
    config = NodeConfig(
        name=name,
        port=port,
        slots=slots or 0,
        joins=joins,
        open_name=open_name or "",
        tags=tags,
        limits=OwnerLimits(
            load_max=max_load or 0.0,
            memory_free_bytes_min=min_free_memory,
            only_when_idle=only_when_idle,
            not_on_battery=not_on_battery,
        ),
        refused_actions=refused,
        keep_bytes_max=keep,
        http=http or http_lan,
        http_lan=http_lan,
        http_port=http_port,
    )
    gc.disable()  # what is loaded now stays: looking through them again and again takes a tenth of the start
    from p2premap.node.daemon import run_node  # 0.3 s of trio that no other command pays

    gc.freeze()
    gc.enable()

    if until_eof:
        threading.Thread(target=_end_at_eof, name="until-eof", daemon=True).start()
    ctx.exit(run_node(config, started=_announce_json if as_json else _announce))


@click.command()
@json_option
@click.pass_obj
def stop(node: str, as_json: bool) -> None:
    """Stop a node of this machine in good order.

    Without --node before it, the only one; where there are several, name one.
    """
    with only(node) as connection:
        text = connection.do(lambda n: Stop(request=n))
        welcome = connection.welcome
    if as_json:
        print_json({"id": welcome.node.hex(), "name": welcome.name, "pid": welcome.pid, "text": text})
    else:
        say(f"Node {clean(welcome.name)} (pid {welcome.pid}) stops.")


def _check_words(option: str, words: tuple[str, ...]) -> None:
    """Raises ConfigError for a word that would not fit into a table or a script."""
    if len(words) > TAGS_MAX:
        raise ConfigError(f"{option} can be given {TAGS_MAX} times at most.")
    for word in words:
        if not word or len(word) > NAME_MAX or not word.isprintable() or any(c.isspace() for c in word):
            raise ConfigError(f"{option} {clean(word)!r}: use 1 to {NAME_MAX} printable characters without spaces.")


def _end_at_eof() -> None:
    """Whoever holds the other end of standard input has gone, however it died: so does this node."""
    while os.read(0, 4096):  # not sys.stdin, whose lock this thread would still hold when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _announce(status: Status) -> None:
    me = status.me
    where = ", ".join(clean(address) for address in me.addresses)
    what = f"the open cluster {clean(status.open_name)!r}" if status.open_name else f"cluster {clean(status.cluster)}"
    say(f"Node {clean(me.name)} is up in {what}, at {where}, with {count(me.slots, 'worker slot')}.")
    if status.open_name:
        say("OPEN: anyone on this network who knows this name can run code as you.")
    elif status.scope == "loopback":
        say("Only this machine can reach it. To add another: `p2premap invite` here, `p2premap join TOKEN` there.")
    for warning in status.warnings:
        say(clean(warning))
    say("Run a job with `p2premap run FILE INPUTS...`; stop this node with Ctrl-C.")


def _announce_json(status: Status) -> None:
    me = status.me
    print_json(
        {
            "id": me.node.hex(),
            "name": me.name,
            "pid": me.pid,
            "cluster": status.cluster,
            "addresses": list(me.addresses),
            "slots": me.slots,
        },
        line=True,
    )
