"""Exit codes: which command ends with which, in one place."""

from __future__ import annotations

import enum

from p2premap.client.connection import RequestRefused
from p2premap.control.answers import Trouble
from p2premap.errors import (
    ConfigError,
    JobLost,
    JobRejected,
    NodeUnavailable,
    P2PRemapError,
    PeerUnreachable,
    RemoteProtocolError,
)


class Exit(enum.IntEnum):
    """What a shell sees."""

    OK = 0
    FAILED = 1
    """The job failed or was cancelled, or the request is not allowed now."""
    USAGE = 2
    """Wrong arguments, files or job; nothing was started."""
    NO_NODE = 69
    """No node answers, or none that is needed (EX_UNAVAILABLE of sysexits.h)."""
    BUG = 70
    """A fault of p2premap itself (EX_SOFTWARE)."""
    TIMEOUT = 124
    """`--timeout` is over (as of timeout(1))."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE = 141
    """Whoever read the output has gone, as in ``p2premap jobs | head -1``."""


class TimedOut(P2PRemapError):
    """The time that the user gave is over."""


_OF_TROUBLE = {
    Trouble.USAGE: Exit.USAGE,
    Trouble.NOT_FOUND: Exit.USAGE,
    Trouble.UNREACHABLE: Exit.NO_NODE,
    Trouble.REFUSED: Exit.FAILED,
}


def exit_of(error: P2PRemapError) -> Exit:
    """The exit code that tells this error."""
    match error:
        case RequestRefused(trouble=trouble):
            return _OF_TROUBLE[trouble]
        case ConfigError() | JobRejected():
            return Exit.USAGE
        case NodeUnavailable() | PeerUnreachable() | RemoteProtocolError() | JobLost():
            return Exit.NO_NODE
        case TimedOut():
            return Exit.TIMEOUT
        case _:
            return Exit.FAILED
