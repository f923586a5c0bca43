"""A program's line to its job of kind "calls"."""

from p2premap.ids import RequestId
from p2premap.wire import Count, JobIdField, Message


class OpenCalls(Message, tag=140, frozen=True, kw_only=True):
    """Calls of this job (kind "calls") are handed in on this connection from now on, and their ends told on it.

    Answered by one `CallsOpened`, then by `CallsEnded` again and again, until the job is over (`Done`) or cannot be
    served here any more (`Refused`: the client opens it anew, maybe at another node).

    Args:
        first: ends of packs before this number need not be told: the client has them.
    """

    request: RequestId
    job: JobIdField
    first: Count = 0


class CallsOpened(Message, tag=141, frozen=True, kw_only=True):
    """Answers `OpenCalls`.

    Args:
        known: so many packs are known and protected; the client hands in again from there on.
        slots: worker processes of the whole cluster.
    """

    request: RequestId
    known: Count
    slots: Count


class Calls(Message, tag=142, frozen=True, kw_only=True):
    """More calls: this frame's payload is an extension (`p2premap.tasks.calls`). Answered only where it is `Refused`.

    Args:
        request: that of the `OpenCalls` before.
    """

    request: RequestId
    job: JobIdField


class CallsEnded(Message, tag=143, frozen=True, kw_only=True):
    """Packs ended: this frame's payload tells how (`p2premap.tasks.calls_results`); `slots` as in `CallsOpened`."""

    request: RequestId
    slots: Count
