"""What clients have a node do: events for its core, and its answers to submissions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from p2premap.control.answers import Trouble
from p2premap.election import events as election
from p2premap.ids import JobId
from p2premap.node.desk import RequestError
from p2premap.node.events import CancelJob, JobAccepted, JobRefused, NodeEvent, SubmitJob
from p2premap.tasks import events as tasks
from p2premap.tasks.job import JobSpec


class Orders:
    """One node's.

    Args:
        deliver: takes events for the core.
        trouble: why the ledger takes nothing now, or "".
        wall_s: the time in seconds since 1970.
    """

    def __init__(
        self, deliver: Callable[[NodeEvent], object], *, trouble: Callable[[], str], wall_s: Callable[[], float]
    ) -> None:
        self._deliver = deliver
        self._trouble = trouble
        self._wall_s = wall_s
        self._submissions: dict[int, tuple[trio.Event, list[JobAccepted | JobRefused]]] = {}
        self._numbers = 0

    async def submit(self, spec: JobSpec, plan: bytes, files: Sequence[str], *, again: bool = False) -> JobAccepted:
        """Hand a job to the core; `files` may then be read by its attempts.

        Raises:
            RequestError: it is refused.
        """
        self._numbers += 1
        answered, answer = trio.Event(), list[JobAccepted | JobRefused]()
        self._submissions[self._numbers] = (answered, answer)
        self._deliver(
            SubmitJob(
                request=self._numbers,
                spec=spec,
                plan=plan,
                files=tuple(files),
                again=again,
                wall_s=self._wall_s(),
            )
        )
        await answered.wait()
        (accepted,) = answer
        if isinstance(accepted, JobRefused):
            raise RequestError(Trouble.REFUSED if self._trouble() else Trouble.USAGE, accepted.text)
        return accepted

    def answered(self, effect: JobAccepted | JobRefused) -> None:
        """The core has decided about a submission."""
        answered, answer = self._submissions.pop(effect.request)
        answer.append(effect)
        answered.set()

    def forget(self, job: JobId) -> None:
        """A job that is over need not be listed any more."""
        self._deliver(election.Forget(job=job))

    def stop_taking(self, *, again: bool = False) -> None:
        """Take no more work: this node is about to go. `again`: take some after all."""
        self._deliver(tasks.StopTaking(again=again))

    def cancel(self, job: JobId, reason: str) -> None:
        """End a job that is led here."""
        self._deliver(CancelJob(job=job, reason=reason or "cancelled by a user"))

    def accept_fork(self, fork: JobId) -> None:
        """This fork is the job from now on."""
        self._deliver(election.AcceptFork(job=fork))
