"""What can go wrong, whose fault it is, and what is true afterwards.

::

    P2PRemapError
      ConfigError                 before anything started: a wrong option, file, port or directory
      ClusterError
        NotJoined                 definite: this machine has no such cluster
        NodeUnavailable           definite: no daemon answers here (exit code 69)
        NoEligibleWorker          definite: no member can run the task
        PeerUnreachable           indefinite: the request may have been carried out
        JoinRefused               definite: nothing was changed on either side
      ProtocolError
        LocalProtocolError        our bug: the process should crash
        RemoteProtocolError       the peer's bug or an attack: drop the frame, count it, change nothing
      JobError
        JobRejected               definite: the job never existed
        JobFailed                 definite: the job ended with an error that names the task
        CallFailed                definite: a call of `submit` or `map` has no answer
        JobCancelled              definite
        JobLost                   indefinite: nobody who knows the job can be reached

*Definite* errors did not change anything beyond what they say; after an *indefinite* one the effect may
or may not have happened, and repeating the request is safe only where its docstring says so.
"""

from __future__ import annotations


class P2PRemapError(Exception):
    """The root of every error that p2premap raises on purpose.

    Its text is one sentence for a person: what was wrong and what to do.
    """


class ConfigError(P2PRemapError):
    """A wrong option, file, port or directory. Nothing has started; mend it and try again."""


class ClusterError(P2PRemapError):
    """The cluster, or this node's place in it, does not allow the request."""


class NotJoined(ClusterError):
    """This machine knows no such cluster. Definite."""


class NodeUnavailable(ClusterError):
    """No daemon answers on this machine. Definite: start one with `p2premap node`."""


class NoEligibleWorker(ClusterError):
    """No member of the cluster satisfies what the task requires. Definite."""


class PeerUnreachable(ClusterError):
    """A member did not answer. Indefinite: the request may have been carried out."""


class JoinRefused(ClusterError):
    """The other side would not let this machine in. Definite: neither side changed."""


class ProtocolError(P2PRemapError):
    """Bytes or events that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """This side was about to break the protocol: a bug here. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol. Nothing was changed; drop the frame or the connection, and count it."""


class JobError(P2PRemapError):
    """Something about one job.

    Args:
        message: one sentence for a person.
        job: the job's id in hexadecimal, or "" where it has none yet.
    """

    def __init__(self, message: str, *, job: str = "") -> None:
        super().__init__(message)
        self.job = job


class JobRejected(JobError):
    """The job was not accepted and does not exist. Definite."""


class JobFailed(JobError):
    """The job ended with an error. Definite: it will not go on by itself.

    Args:
        message: one sentence that names the task.
        job: the job's id in hexadecimal.
        detail: the remote traceback, exit signal or log tail; may be long.
    """

    def __init__(self, message: str, *, job: str = "", detail: str = "") -> None:
        super().__init__(message, job=job)
        self.detail = detail


class CallFailed(JobError):
    """A call has no answer: its worker process died or went over a limit, or raised what cannot be sent. Definite.

    Args:
        message: one sentence.
        job: the job's id in hexadecimal.
        detail: the remote traceback, exit signal or log tail; may be long.
    """

    def __init__(self, message: str, *, job: str = "", detail: str = "") -> None:
        super().__init__(message, job=job)
        self.detail = detail


class JobCancelled(JobError):
    """Somebody cancelled the job. Definite."""


class JobLost(JobError):
    """Nobody who knows the job can be reached. Indefinite: it may still be running."""
