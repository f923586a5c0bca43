"""The command line: arguments in, text out. Plain commands import neither trio nor rich, to start in 0.1 s."""

from __future__ import annotations

from p2premap.cli.app import cli

__all__ = ["main"]


def main() -> None:
    """The console script."""
    cli.main(prog_name="p2premap")
