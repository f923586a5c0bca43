"""What a program may leave behind, and does not.

The connections of a program write what is still missing of its output when it ends, and so they import this first:
what is registered first is called last.
"""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Final

places: Final[set[Path]] = set()
"""Directories that are removed at the end of the program, whatever is in them then."""


@atexit.register
def _remove() -> None:
    for place in list(places):
        remove(place)


def remove(place: Path) -> None:
    """Remove one of these now."""
    import shutil  # few programs replace an output

    shutil.rmtree(place, ignore_errors=True)
    places.discard(place)
