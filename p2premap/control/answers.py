"""What a daemon says whatever it was asked: its greeting, a refusal, that it is done, a piece of bytes."""

import enum

from p2premap.ids import RequestId
from p2premap.wire import Count, Message, NodeIdField, Short, Text


class Trouble(enum.IntEnum):
    """Why a request was refused; the CLI derives its exit code from it."""

    USAGE = 0
    """The request itself is wrong (exit 2)."""
    NOT_FOUND = 1
    """No such job, part or log (exit 2)."""
    UNREACHABLE = 2
    """A node that is needed does not answer (exit 69)."""
    REFUSED = 3
    """It is not allowed now: full disk, jobs still running, ... (exit 1)."""


class Welcome(Message, tag=100, frozen=True, kw_only=True):
    """The daemon's first words.

    Args:
        cluster: the public tag of the cluster.
        open_name: the NAME of ``--open NAME``, or "".
    """

    node: NodeIdField
    name: Short
    pid: Count
    version: Short
    cluster: Short
    open_name: Short = ""


class Refused(Message, tag=101, frozen=True, kw_only=True):
    """The request was not carried out. `text` is one sentence: what was wrong and what to do."""

    request: RequestId
    trouble: Trouble
    text: Text


class Done(Message, tag=102, frozen=True, kw_only=True):
    """The request was carried out; `text` says something about it, or "". `changed`: it was not so before."""

    request: RequestId
    text: Text = ""
    changed: bool = True


class Chunk(Message, tag=113, frozen=True, kw_only=True):
    """A piece of what was asked for is this frame's payload."""

    request: RequestId
    last: bool = False
