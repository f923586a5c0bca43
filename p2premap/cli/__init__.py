"""The command line: arguments in, text out. Plain commands import neither trio nor rich, to start in 0.1 s."""

from __future__ import annotations

import gc
import sys
from typing import Final

from p2premap.lean import load_msgspec

__all__ = ["main"]

INTERRUPTED: Final = 130
_GC_THRESHOLD: Final = 20_000


def main() -> None:
    """The console script."""
    # Nothing of what a start imports is garbage; looking for some all the time was a twentieth of it.
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])
    try:
        load_msgspec()
        from p2premap.cli.app import cli
    except KeyboardInterrupt:  # `cli` says it from here on
        print("p2premap: Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    cli.main(prog_name="p2premap")
