"""Running a mincemeat script: as `python FILE` would, with ``import mincemeat`` meaning ours."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from p2premap.compat import mincemeat
from p2premap.errors import JobFailed, JobRejected, P2PRemapError
from p2premap.worker.failure import sentence_of


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
        raise JobFailed(sentence_of(error), detail=_traceback_of(error, file)) from None
    finally:
        sys.argv, sys.path[:] = before


def _traceback_of(error: Exception, file: str) -> str:
    """From the script's first line on: what led there is ours."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename != file:
        found = found.tb_next
    return "".join(traceback.format_exception(error.with_traceback(found)))
