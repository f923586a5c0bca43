"""Options that all commands have which hand jobs in, and what is wrong with their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from p2premap.cli.show import SIZE, clean
from p2premap.client.amounts import size
from p2premap.errors import ConfigError
from p2premap.worker.urls import is_web

F = TypeVar("F", bound=Callable[..., Any])

SECRET_CHARACTERS_MAX: Final = 255
MEMORY_LIMIT_MIN: Final = 32_000_000
"""A worker process takes 20 MB before it has anything to do, and a shuffle needs room for some blocks."""


def _enough(ctx: click.Context, parameter: click.Parameter, limit: float) -> int:
    if 0 < limit < MEMORY_LIMIT_MIN:
        raise ConfigError(
            f"--memory-limit {size(limit)} is not enough: a worker process takes 20 MB before it does anything; "
            f"give {size(MEMORY_LIMIT_MIN)} at least."
        )
    return int(limit)


def _web(ctx: click.Context, parameter: click.Parameter, url: str) -> str:
    if url and not is_web(url):
        raise ConfigError(f"--callback {clean(url)!r}: give an http or https URL, such as http://ci.local:8080/done.")
    return url


def _secret(ctx: click.Context, parameter: click.Parameter, path: str | None) -> str:
    """The first line of the file: on the command line everybody on this machine could read it."""
    if path is None:
        return ""
    try:
        with open(path) as file:
            secret = file.readline(SECRET_CHARACTERS_MAX + 2).rstrip("\n")
    except (OSError, ValueError) as error:  # ValueError: no file can have this name, or it is no text
        raise ConfigError(f"--callback-secret-file {clean(path)}: it cannot be read: {error}.") from None
    if not 0 < len(secret) <= SECRET_CHARACTERS_MAX:
        raise ConfigError(
            f"--callback-secret-file {clean(path)}: its first line has to be a secret of 1 to "
            f"{SECRET_CHARACTERS_MAX} characters."
        )
    return secret


def check_callback(url: str, secret: str) -> None:
    """Raises ConfigError: there is a secret, and nothing to sign."""
    if secret and not url:
        raise ConfigError("--callback-secret-file: there is no --callback to sign.")


def check_plot(kind: str) -> None:
    """Raises ConfigError: nothing of a job of this kind can be drawn."""
    from p2premap.vertex.plan import KIND  # few ask for a plot

    if kind != KIND:
        raise ConfigError(
            f"--plot draws how a vertex job converges; this one is of the kind {clean(kind)}: leave it out."
        )


plot_option: Final[Callable[[F], F]] = click.option(
    "--plot", is_flag=True, help="Of a vertex job: draw how it converges."
)

_OPTIONS: Final[tuple[Callable[[F], F], ...]] = (
    click.option(
        "--memory-limit",
        type=SIZE,
        default="0",
        callback=_enough,
        metavar="SIZE",
        help="Of one attempt, such as 500M. [none]",
    ),
    click.option("--with-requirements", metavar="FILE", help="Have this installed for the job: a requirements.txt."),
    click.option("--stage", is_flag=True, help="Copy inputs over 64 MB to these nodes too, as it runs."),
    click.option("--callback", default="", metavar="URL", callback=_web, help="POST there when the job is over."),
    click.option("--callback-secret-file", callback=_secret, metavar="FILE", help="Its first line signs that."),
    plot_option,
)


def wanted_options(command: F) -> F:
    """``--memory-limit``, ``--with-requirements``, ``--stage``, ``--callback`` with its secret, and ``--plot``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
