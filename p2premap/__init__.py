"""p2premap: a few machines on one network act as one computer for Python.

No head node, and nothing to configure. The public API is what `__all__` names; what
it does not name may change. See `p2premap.errors` for the tree of errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2premap.errors import (
    CallFailed,
    ClusterError,
    ConfigError,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobRejected,
    JoinRefused,
    LocalProtocolError,
    NodeUnavailable,
    NoEligibleWorker,
    NotJoined,
    P2PRemapError,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from p2premap.client.cluster import Cluster
    from p2premap.client.connecting import connect, current
    from p2premap.client.future import Future, as_completed, gather
    from p2premap.client.handle import Job
    from p2premap.client.progress import progress
    from p2premap.client.remote import remote
    from p2premap.vertex.program import Aggregator, ArrayProgram, Verdict, VertexProgram
    from p2premap.worker.action import Action, CommandFailed

__all__ = [
    "Action",
    "Aggregator",
    "ArrayProgram",
    "CallFailed",
    "Cluster",
    "ClusterError",
    "CommandFailed",
    "ConfigError",
    "Future",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobRejected",
    "JoinRefused",
    "LocalProtocolError",
    "NoEligibleWorker",
    "NodeUnavailable",
    "NotJoined",
    "P2PRemapError",
    "PeerUnreachable",
    "ProtocolError",
    "RemoteProtocolError",
    "Verdict",
    "VertexProgram",
    "__version__",
    "as_completed",
    "connect",
    "current",
    "gather",
    "progress",
    "remote",
]

__version__ = "0.1.0"

_LATER = {
    "Cluster": "p2premap.client.cluster",
    **dict.fromkeys(("connect", "current"), "p2premap.client.connecting"),
    **dict.fromkeys(("Future", "as_completed", "gather"), "p2premap.client.future"),
    "Job": "p2premap.client.handle",
    "progress": "p2premap.client.progress",
    "remote": "p2premap.client.remote",
    **dict.fromkeys(("Action", "CommandFailed"), "p2premap.worker.action"),
    **dict.fromkeys(("Aggregator", "ArrayProgram", "Verdict", "VertexProgram"), "p2premap.vertex.program"),
}


def __getattr__(name: str) -> object:
    """What only programs need is imported when they first name it: a command or a node starts without it."""
    if (module := _LATER.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)
