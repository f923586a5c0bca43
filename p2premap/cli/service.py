"""Starting the node at boot: `service`."""

from __future__ import annotations

import time
from typing import Final

import click

from p2premap.cli.show import clean, json_option, print_json, say
from p2premap.client.connection import local
from p2premap.errors import NodeUnavailable
from p2premap.node import service as manager

UP_S: Final = 30.0
"""A Raspberry Pi that does other things besides takes some seconds to start Python."""
LOOK_S: Final = 0.1


@click.group()
def service() -> None:
    """Start the node at boot (systemd or launchd)."""


@service.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@json_option
def install(options: tuple[str, ...], as_json: bool) -> None:
    """Start a node now and at every boot. OPTIONS are those of `p2premap node`."""
    from p2premap.cli.node import node

    # a wrong option must be told here, not in a log after the next boot
    node.make_context("p2premap node", list(options))
    text = manager.install(options)
    _await_node()
    _tell(text, as_json)


@service.command()
@json_option
def uninstall(as_json: bool) -> None:
    """Stop the node and start it no more. Its place in the cluster stays; `p2premap leave` gives that up."""
    _tell(manager.uninstall(), as_json)


@service.command()
@json_option
def status(as_json: bool) -> None:
    """Whether the service is installed, and whether it runs."""
    found = manager.status()
    if as_json:
        print_json({"installed": found.installed, "running": found.running, "text": found.text})
    else:
        click.echo(clean(found.text))


def _await_node() -> None:
    """Return when it answers: the next command of a script may need it.

    Raises:
        NodeUnavailable: it does not in time.
    """
    until = time.monotonic() + UP_S
    while time.monotonic() < until:
        try:
            return local().close()
        except NodeUnavailable:
            time.sleep(LOOK_S)
    raise NodeUnavailable(
        "The service is installed, but its node does not answer yet; `p2premap service status` names its log."
    )


def _tell(text: str, as_json: bool) -> None:
    if as_json:
        print_json({"done": True, "text": text})
    else:
        say(clean(text))
