"""The command `p2premap`: which module each subcommand is in, and the one place where errors become sentences."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from p2premap import __version__, plugins
from p2premap.cli.exits import Exit, exit_of
from p2premap.cli.show import clean
from p2premap.errors import JobFailed, P2PRemapError

COMMANDS = {
    "Start here": {
        "demo": "demo:demo",
        "node": "node:node",
        "stop": "node:stop",
        "drain": "control:drain",
        "service": "service:service",
        "doctor": "cluster:doctor",
    },
    "Jobs": {
        "run": "run:run",
        "graph": "graph:graph",
        "jobs": "jobs:jobs",
        "watch": "watch:watch",
        "results": "results:results",
        "logs": "jobs:logs",
        "cancel": "jobs:cancel",
        "why": "control:why",
        "restart": "control:restart",
        "cleanup": "control:cleanup",
        "repl": "repl:repl",
    },
    "Cluster": {
        "status": "cluster:status",
        "nodes": "cluster:nodes",
        "dashboard": "dashboard:dashboard",
        "top": "top:top",
        "invite": "membership:invite",
        "join": "membership:join",
        "leave": "membership:leave",
        "rotate": "rotate:rotate",
    },
}
"""Section of the help -> command -> "module:name" below `p2premap.cli`."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TARGETS = {name: target for section in COMMANDS.values() for name, target in section.items()}


class _ReaderGone(Exception):
    """A broken pipe, under a name that click does not catch before us (it would make exit code 1 of it)."""


class App(click.Group):
    """A group that imports a command when it is named, and ends the process with the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, ours first."""
        return [*_TARGETS, *_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now."""
        if target := _TARGETS.get(cmd_name):
            module, _, name = target.partition(":")
            found = getattr(importlib.import_module(f"p2premap.cli.{module}"), name)
        elif plugin := _plugins().get(cmd_name):
            found = plugin.load()
        else:
            return None
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section."""
        sections = {**COMMANDS, "More": dict.fromkeys(_plugins(), "")}
        width = max(map(len, self.list_commands(ctx)))
        for title, names in sections.items():
            rows = [
                (n.ljust(width), c.get_short_help_str(70))
                for n in names
                if (c := self.get_command(ctx, n)) and not c.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_spacing=3)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> click.Context:
        """Read the command line; `--help` and `--version` print while it is read."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError:
            raise _ReaderGone from None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that the context names."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGone from None

    def main(  # type: ignore[override]  # always ends the process, whatever standalone_mode says
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> NoReturn:
        """Run a command line and exit."""
        extra["standalone_mode"] = False
        sys.exit(self._code(args, prog_name, extra))

    def _code(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        try:
            code = super().main(args, prog_name, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), color=_colours())
            return Exit.OK
        except click.ClickException as error:
            _complain(_usage_text(error))
            return Exit.USAGE
        except (click.Abort, KeyboardInterrupt):
            _complain("Interrupted.")
            return Exit.INTERRUPTED
        except (_ReaderGone, BrokenPipeError):
            _drop_output()
            return Exit.PIPE
        except UnicodeEncodeError as error:
            odd = _not_utf8(args if args is not None else sys.argv[1:])
            if not odd:
                return _tell(error)
            _complain(f"{odd!r} is not UTF-8 text, which this must be.")
            return Exit.USAGE
        except Exception as error:  # the boundary: whatever comes must end in a sentence
            told = _tell(error)
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()
            return told
        return code if isinstance(code, int) else Exit.OK


def _drop_output() -> None:
    """What is still buffered must not be written at interpreter exit, where it would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _not_utf8(args: Sequence[str]) -> str:
    """The first argument that no message could carry, or ""; names of files may be such ones."""
    return next((arg for arg in args if arg != arg.encode(errors="replace").decode()), "")


def _tell(error: Exception) -> Exit:
    _trace()
    while isinstance(error, ExceptionGroup):  # trio's nurseries wrap what their tasks raise
        ours, others = error.split(P2PRemapError)
        error = (others or ours or error).exceptions[0]
    match error:
        case JobFailed(detail=detail):
            if detail:
                click.echo(clean(detail.rstrip(), lines=True), err=True)
            _complain(_untold(str(error), detail))
        case P2PRemapError():
            _complain(str(error))
        case OSError(errno=number, filename=None) if number in _NO_ROOM:
            _complain(f"The output cannot be written: {error.strerror}.")
            return Exit.FAILED
        case _:
            _complain(_bug_text(error))
            return Exit.BUG
    return exit_of(error)


def _untold(sentence: str, traceback: str) -> str:
    """The sentence about a job without the exception that the traceback above it ends with."""
    for line in traceback.splitlines():
        if line and not line[0].isspace() and (sentence.endswith(f": {line}") or f": {line} (" in sentence):
            return sentence.replace(f": {line}", "", 1)  # before the place, and not within a sentence of ours
    return sentence


def debugging() -> bool:
    """Whether the user wants tracebacks."""
    return os.environ.get("P2PREMAP_DEBUG", "") not in ("", "0")


def _trace() -> None:
    if debugging():
        import traceback

        traceback.print_exc()


def _plugins() -> dict[str, plugins.Plugin]:
    return plugins.find(plugins.COMMANDS)


def _colours() -> bool | None:
    """click's switch for colours: False for none, None for what the stream can show."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _complain(text: str) -> None:
    label = click.style("p2premap:", fg="red")
    click.echo(f"{label} {clean(text, lines=True)}", err=True, color=_colours())


def _usage_text(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.option_name == "--node":
        text += " It goes before the command: `p2premap --node NAME ...`"
    if text and text[-1] not in ".?!":
        text += "."
    ctx = getattr(error, "ctx", None)
    return f"{text} See `{ctx.command_path} --help`." if ctx is not None else text


def _bug_text(error: Exception) -> str:
    return (
        f"This is a fault of p2premap, not yours: {type(error).__name__}: {error}. "
        "Please report it with what P2PREMAP_DEBUG=1 prints when you do the same again."
    )


@click.group(
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 job failed, 2 usage, 69 no node, 124 time-out, 130 Ctrl-C. "
    "Every command has --json. NO_COLOR is obeyed.",
)
@click.version_option(__version__, prog_name="p2premap", message="%(prog)s %(version)s")
@click.option(
    "--node",
    envvar="P2PREMAP_NODE",
    default="",
    metavar="NAME",
    help="Talk to this node of this machine (a name, or the beginning of an id). Any will do.",
)
@click.pass_context
def cli(ctx: click.Context, node: str) -> None:
    """A few machines on one network act as one computer for Python.

    No head node, nothing to configure. `p2premap demo` shows it in 20 seconds.
    """
    ctx.obj = node
    if _colours() is False:
        ctx.color = False
