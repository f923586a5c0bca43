"""p2premap: a few machines on one network act as one computer for Python.

No head node, and nothing to configure. The public API is what `__all__` names; what
it does not name may change. See `p2premap.errors` for the tree of errors.
"""

from __future__ import annotations

from p2premap.errors import (
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

__all__ = [
    "ClusterError",
    "ConfigError",
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
    "__version__",
]

__version__ = "0.1.0"
