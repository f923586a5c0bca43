"""For processes of our own: what a start need not load is not loaded."""

from __future__ import annotations

import contextlib
import sys


def load_msgspec() -> None:
    """Load msgspec without `typing_extensions`, from which it takes what `typing` has since Python 3.11 as well.

    That module takes 4 ms of each start, and `inspect`, which only it loads in a worker process, another 8. Where
    msgspec cannot do without one day, it is loaded as ever when it is first needed.
    """
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # as where it is not installed
    try:
        with contextlib.suppress(ImportError):
            import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
