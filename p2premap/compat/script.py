"""Running a mincemeat script: as `python FILE` would, with ``import mincemeat`` meaning ours."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from p2premap.compat import mincemeat
from p2premap.errors import JobFailed, JobRejected, P2PRemapError
from p2premap.worker.failure import OURS, sentence_of


def run_script(file: str, args: Sequence[str], *, node: str = "") -> None:
    """Run a script to its end, in this process.

    Args:
        node: see `p2premap.connect`.

    Raises:
        JobRejected: it cannot be read, or is not Python 3.
        JobFailed: it raised something.
    """
    try:
        with open(file, "rb") as stream:
            compile(stream.read(), file, "exec", dont_inherit=True)
    except OSError as error:
        raise JobRejected(f"Cannot read the job file {file}: {error.strerror}.") from None
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise JobRejected(f"{file}{where} is not Python 3: {said}.") from None
    mincemeat.install()
    mincemeat.connect_as(node, os.path.basename(file))
    before = sys.argv, list(sys.path)
    sys.argv = [file, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(file)))
    try:
        runpy.run_path(file, run_name="__main__")
    except P2PRemapError:
        raise
    except Exception as error:
        raise JobFailed(sentence_of(error), detail=_traceback_of(error)) from None
    finally:
        sys.argv, sys.path[:] = before


def _traceback_of(error: Exception) -> str:
    """With the script's own lines: what led to them, and from them to the cluster, is ours."""
    shown = traceback.TracebackException.from_exception(error)
    linked: traceback.TracebackException | None = shown
    while linked is not None:
        frames = [frame for frame in linked.stack if not frame.filename.startswith((*OURS, "<frozen runpy>"))]
        linked.stack = traceback.StackSummary.from_list(frames)
        linked = linked.__cause__
    return "".join(shown.format())
