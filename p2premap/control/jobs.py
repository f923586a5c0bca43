"""Handing jobs in, looking at them, explaining, ending, repeating and removing them."""

from p2premap.ids import RequestId
from p2premap.tasks.job import JobSpec, JobView
from p2premap.wire import Count, JobIdField, Message, NodeIdField, Seconds, Short, Text


class Submit(Message, tag=104, frozen=True, kw_only=True):
    """Run this job; code and plan have been put before. Answered by `Submitted`.

    Args:
        files: absolute paths on this machine that the job's attempts may ask this node for.
        again: it may have been submitted before, under the same key.
    """

    request: RequestId
    spec: JobSpec
    files: tuple[Text, ...] = ()
    again: bool = False


class Submitted(Message, tag=105, frozen=True, kw_only=True):
    """The job is accepted: from now on it ends with a result, an error, or a cancellation.

    Args:
        copies: it ends as long as one of so many nodes lives: they have its ledger, and all that it needs.
    """

    request: RequestId
    job: JobIdField
    copies: Count


class Watch(Message, tag=106, frozen=True, kw_only=True):
    """Tell me about this job now and whenever it changes. `job` may be a prefix of its id, at least 2 bytes.

    Args:
        once: only now, and briefly (`JobView.brief`).
    """

    request: RequestId
    job: bytes
    once: bool = False


class JobUpdate(Message, tag=107, frozen=True, kw_only=True):
    """The job as its leader sees it.

    Args:
        view: of its parts, those that are new or have changed since this watch was last told.
        gone: numbers of parts told before that are there no more.
        more: news of the same view follow: what a message should hold is bounded, what a view holds is not.
    """

    request: RequestId
    view: JobView
    gone: tuple[Count, ...] = ()
    more: bool = False


class ListJobs(Message, tag=108, frozen=True, kw_only=True):
    """Which jobs does the cluster know? Answered by `Jobs`, the newest first."""

    request: RequestId


class Jobs(Message, tag=109, frozen=True, kw_only=True):
    """Jobs of every reachable node, each briefly (`JobView.brief`).

    Args:
        silent: names of members that did not answer in time.
        left_out: how many older ones did not fit.
    """

    request: RequestId
    views: tuple[JobView, ...]
    silent: tuple[Short, ...] = ()
    left_out: Count = 0


class Cancel(Message, tag=110, frozen=True, kw_only=True):
    """End this job. `Done` once no attempt of it runs any more."""

    request: RequestId
    job: bytes
    reason: Text = ""


class Why(Message, tag=131, frozen=True, kw_only=True):
    """Why is this as it is? Answered by `Done`, whose text is for people.

    Args:
        about: a node's name, or the beginning of a job's or a node's id.
        stage, task: of the job; -1: the stage that is worked on now, the job as a whole.
    """

    request: RequestId
    about: Short
    stage: int = -1
    task: int = -1


class Restart(Message, tag=132, frozen=True, kw_only=True):
    """Run a job again, with the same code, plan, inputs and options. Answered by `Submitted`.

    Args:
        job: a prefix of its id; the whole of it where a member asks.
        key: the new job's submission key.
    """

    request: RequestId
    job: bytes
    key: bytes


class FindHome(Message, tag=133, frozen=True, kw_only=True):
    """Where was this job handed in? A member asks. Answered by `HomeFound`."""

    request: RequestId
    job: JobIdField


class HomeFound(Message, tag=134, frozen=True, kw_only=True):
    """The node on whose machine its inputs are."""

    request: RequestId
    home: NodeIdField


class AcceptFork(Message, tag=145, frozen=True, kw_only=True):
    """This fork is the job from now on; whose it was is lost for good. `Done` when the fork's leader has heard it."""

    request: RequestId
    fork: bytes


class CleanUp(Message, tag=135, frozen=True, kw_only=True):
    """Remove results, logs and jobs that are over and older than this, here and at all members. What is in use stays.

    Answered by `CleanedUp`.
    """

    request: RequestId
    older_s: Seconds


class CleanedUp(Message, tag=136, frozen=True, kw_only=True):
    """What was removed.

    Args:
        blobs, size_bytes: results, inputs and code.
        jobs: jobs that were over, and are forgotten.
        nodes: nodes that cleaned up.
        silent: names of members that did not answer in time.
        environments: of jobs, each counted at each node.
    """

    request: RequestId
    blobs: Count
    size_bytes: Count
    jobs: tuple[JobIdField, ...] = ()
    nodes: Count = 1
    silent: tuple[Short, ...] = ()
    environments: Count = 0
