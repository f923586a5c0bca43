"""`top`: the cluster in a terminal, as it changes. What the page shows, for whoever is at a shell."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from p2premap.cli.show import json_option, print_json
from p2premap.client.connection import PATIENCE_S, Connection
from p2premap.client.reach import anywhere
from p2premap.control.nodes import GetStatus, Status
from p2premap.control.web import Follow, News
from p2premap.errors import NodeUnavailable, PeerUnreachable
from p2premap.ids import RequestId

if TYPE_CHECKING:
    from p2premap.cli.toppicture import Picture

LOOK_S: Final = 0.2
STATUS_S: Final = 5.0
FIRST_S: Final = 2.0
"""How long the other nodes may take to say what they do, where the picture is drawn once only."""
AGAIN_S: Final = 1.0
LOST_S: Final = 60.0
"""No node has answered for so long."""


class Left(Exception):
    """Somebody has pressed q."""


@click.command()
@click.option("--once", is_flag=True, help="Print it once, and end; so it does where it does not write to a terminal.")
@json_option
@click.pass_obj
def top(node: str, once: bool, as_json: bool) -> None:
    """Show nodes, jobs and what fails, live.

    q or Ctrl-C ends it. Where the node that it asks goes, it asks another one.
    """
    from p2premap.cli.toppicture import Picture  # rich, which costs 65 ms

    picture = Picture()
    if once or as_json or not sys.stdout.isatty():
        with anywhere(node, insist=False) as connection:
            _hear(connection, picture, _until(time.monotonic() + FIRST_S))
        if as_json:
            print_json(picture.everything())
        else:
            picture.print()
        return
    with _keys() as pressed, picture.live(), contextlib.suppress(Left, KeyboardInterrupt):
        _follow(node, picture, pressed)


def _follow(node: str, picture: Picture, tick: Callable[[], None]) -> None:
    """Until somebody leaves.

    Raises:
        NodeUnavailable: no node answers at first.
        NodeUnavailable, PeerUnreachable: none has for a minute.
    """
    lost, has_answered = 0.0, False
    while True:
        try:
            patience_s = 0.0 if has_answered else PATIENCE_S
            with anywhere(node, insist=False, patience_s=patience_s, tick=tick) as connection:
                lost, has_answered = 0.0, True
                _hear(connection, picture, tick)
        except (NodeUnavailable, PeerUnreachable) as error:
            if not has_answered and isinstance(error, NodeUnavailable):
                raise
            lost = lost or time.monotonic()
            picture.lost(str(error))
            if time.monotonic() - lost > LOST_S:
                raise
            until = time.monotonic() + AGAIN_S
            while time.monotonic() < until:
                tick()
                time.sleep(LOOK_S)


def _hear(connection: Connection, picture: Picture, tick: Callable[[], None]) -> None:
    """Take in what the nodes say, until `tick` raises or says that it is enough.

    Raises:
        PeerUnreachable: the node has gone.
    """
    picture.begin(connection.ask(lambda n: GetStatus(request=n), Status))
    request: RequestId = connection.send(lambda n: Follow(request=n))
    looked = time.monotonic()
    with contextlib.suppress(TimeoutError):
        while True:
            tick()
            frame = connection.next(request, timeout_s=LOOK_S)
            if frame is not None and isinstance(frame.message, News):
                picture.hear(frame.message)
            if time.monotonic() - looked > STATUS_S:
                # its answer would be dropped while news are waited for: ask on a line of its own
                looked = time.monotonic()
                with anywhere(connection.welcome.name, insist=False, patience_s=0.0) as other:
                    picture.know(other.ask(lambda n: GetStatus(request=n), Status))


def _until(instant: float) -> Callable[[], None]:
    def tick() -> None:
        if time.monotonic() >= instant:
            raise TimeoutError

    return tick


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], None]]:
    """Hear q without that Enter is pressed; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield lambda: None
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed() -> None:
        while select.select([sys.stdin], [], [], 0)[0]:
            key = sys.stdin.read(1)
            if key in ("q", "Q", "\x1b", ""):
                raise Left

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
