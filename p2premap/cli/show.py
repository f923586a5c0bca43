"""Text for people and JSON for programs: sizes, durations, tables. No rich here; it costs 65 ms."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., object])

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_AND_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f]")
CELL_CHARACTERS_MIN = 8
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def json_option(command: F) -> F:
    """The option ``--json`` that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def print_json(value: object, *, line: bool = False) -> None:
    """JSON on standard output; as one line where many follow each other."""
    # msgspec is loaded anyway, and `json` with its patterns takes 4 ms of each start
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=0 if line else 2).decode())
    if line:
        sys.stdout.flush()


def say(text: str = "") -> None:
    """Tell the person at the terminal; never part of a result."""
    click.echo(text, err=True)


def clean(text: str, *, lines: bool = False) -> str:
    """Text from elsewhere without control characters: nobody on the network may write to this terminal's controls.

    Args:
        lines: keep tabs and line ends.
    """
    return (_CONTROL if lines else _CONTROL_AND_LINES).sub("?", text)


def count(number: int, noun: str) -> str:
    """ "1 node", "3 nodes"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "10m", "1.5h" or "2d".

    Raises:
        ValueError: anything else.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90s, 10m, 1h or 2d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?")


def parse_size(text: str) -> int:
    """Bytes of "800", "64k", "500M" or "2GB" (powers of 1,000, as this program prints them).

    Raises:
        ValueError: anything else.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500M or 2G")
    return round(float(match[1]) * 1000.0 ** " kmgt".index(match[2] or " "))


class Parsed(click.ParamType[float]):
    """An option's value read by a function that raises ValueError with a sentence."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Parsed("duration", parse_duration)
SIZE = Parsed("size", parse_size)


def columns() -> int:
    """How wide the terminal is; who reads a pipe wants everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def fold(text: str, indent: str) -> str:
    """The text in lines as wide as the terminal, the second and further ones indented."""
    if len(text) <= (width := columns()):
        return text
    import textwrap  # 2 ms, and rarely needed

    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) if max(map(len, lines)) <= width else text  # a long path stays what can be copied


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = ()) -> str:
    """Columns as wide as need be.

    Args:
        spare: columns to do without, the first one first, where the terminal is too narrow for all. If that is not
            enough, the widest is cut.
    """
    cells = [[clean(c) for c in row] for row in rows]
    widths = [max([len(head[i]), *(len(row[i]) for row in cells)]) for i in range(len(head))]
    for name in spare:
        if sum(widths) + 2 * (len(widths) - 1) <= columns():
            break
        kept = [i for i in range(len(head)) if head[i] != name]
        head, widths = [head[i] for i in kept], [widths[i] for i in kept]
        cells = [[row[i] for i in kept] for row in cells]
    if (over := sum(widths) + 2 * (len(widths) - 1) - columns()) > 0:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] = max(widths[widest] - over, len(head[widest]), CELL_CHARACTERS_MIN)
        cells = [[_cut(row[i], widths[i]) for i in range(len(row))] for row in cells]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join([click.style(line(head), dim=True), *map(line, cells)])
