"""The command line: arguments in, text out. Plain commands import neither trio nor rich, to start in 0.1 s."""

from __future__ import annotations

import gc
from typing import Final

from p2premap.lean import load_msgspec

__all__ = ["main"]

_GC_THRESHOLD: Final = 20_000


def main() -> None:
    """The console script."""
    # Nothing of what a start imports is garbage; looking for some all the time was a twentieth of it.
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
    load_msgspec()
    from p2premap.cli.app import cli

    cli.main(prog_name="p2premap")
