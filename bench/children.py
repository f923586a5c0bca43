"""Commands, and what is measured in processes of its own: they end when they are told to, and clear up behind them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
STOP_S: Final = 20.0
"""What somebody may take to end the nodes that he has started, and to remove their files."""
INTERRUPTED: Final = 130


def said_by(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, limit_s: float | None = None, quiet: bool = False
) -> bytes:
    """What a command prints on its standard output.

    It has a session of its own: Ctrl-C is for us to pass on, once, and then it is waited for.

    Args:
        env: its environment; None: ours.
        limit_s: it may take so long.
        quiet: what it says on stderr is dropped.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took longer.
    """
    errors = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=env, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def command(main: Callable[[], int | None]) -> None:
    """Be a command: SIGTERM is as good as Ctrl-C, and neither leaves anything behind, nor a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
