"""Jobs that clients hand in at one node, until they are accepted or refused. Pure.

A job is first looked for under its key: a client that does not know whether it was accepted hands it in again, perhaps
elsewhere. Only a new one is created, with this node as the first of its replicas. A key names one job: another one
under it is refused, else its client would get the first one's results for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from p2premap.election import events as election
from p2premap.errors import JobError
from p2premap.ids import JobId, NodeId, short
from p2premap.node.charter import Charter, job_id
from p2premap.node.events import JobAccepted, JobRefused, NodeEffect, ShareFiles, SubmitJob
from p2premap.tasks.job import JobSpec


class _Submission(msgspec.Struct):
    """A job that is being handed in."""

    event: SubmitJob
    job: JobId | None = None
    one_machine: bool = False
    """Its inputs stay on this machine alone: so many copies as there are of the ledger, it does not end without it."""
    again: list[int] = msgspec.field(default_factory=list)
    """Further requests under the same key."""


class Submissions:
    """See the module.

    Args:
        me: this node.
        find: the job that is known here under a key.
        submitted: what was handed in as a job that is known here.
        copies: in how many copies a job exists, as far as is known here.
        check: raises `JobError` where this node will not lead such a job; whether it depends on this machine's files.
        plans: takes the plan of each job that is created here.
        candidates: nodes that could be replicas of a new job, the best first, without this one.
        elect: tells the election room.
        emit: takes an effect for the shell.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        find: Callable[[bytes], JobId | None],
        submitted: Callable[[JobId], Charter | None],
        copies: Callable[[JobId], int],
        check: Callable[[JobId, JobSpec, bytes], bool],
        plans: dict[JobId, bytes],
        candidates: Callable[[], Iterable[NodeId]],
        elect: Callable[[float, election.ElectionEvent], None],
        emit: Callable[[NodeEffect], None],
    ) -> None:
        self._me = me
        self._find = find
        self._submitted = submitted
        self._copies = copies
        self._check = check
        self._plans = plans
        self._candidates = candidates
        self._elect = elect
        self._emit = emit
        self._submissions: dict[int, _Submission] = {}
        self._by_key: dict[bytes, int] = {}

    def submit(self, now: float, event: SubmitJob) -> None:
        """A client hands in a job: found under its key, or created."""
        key = event.spec.submission_key
        if (other := self._by_key.get(key)) is not None:
            first = self._submissions[other]
            if first.event.spec == event.spec:
                first.again.append(event.request)
            else:
                self._emit(JobRefused(request=event.request, text=_taken(first.event.spec)))
            return
        self._submissions[event.request] = _Submission(event)
        self._by_key[key] = event.request
        if event.again:
            self._elect(now, election.FindJob(request=event.request, key=key))
        else:
            self.found(now, event.request, self._find(key))

    def found(self, now: float, request: int, known: JobId | None, told: bytes = b"") -> None:
        """The job has an earlier submission under the same key, or is new.

        Args:
            told: the charter of the known job, from a node that has it.
        """
        submission = self._submissions.get(request)
        if submission is None:
            return
        event = submission.event
        if known is not None:
            charter = self._submitted(known) or (Charter.decode(told) if told else None)
            if charter is not None and charter.spec != event.spec:
                self.refuse(request, _taken(charter.spec, known))
            else:
                self.answer(request, JobAccepted(request=request, job=known, copies=self._copies(known)))
            return
        spec = event.spec
        members = (self._me, *list(self._candidates())[: max(spec.options.copies, 1) - 1])
        job = submission.job = job_id(spec, members)
        try:
            submission.one_machine = self._check(job, spec, event.plan)
        except JobError as error:
            self.refuse(request, str(error))
            return
        self._plans[job] = event.plan
        self._emit(ShareFiles(job=job, files=event.files))
        self._elect(
            now,
            election.CreateJob(
                request=request,
                job=job,
                members=members,
                key=spec.submission_key,
                spec=Charter(spec=spec, home=self._me, submitted=event.wall_s).encode(),
                strict=spec.options.strict,
                copies=max(spec.options.copies, 1),
            ),
        )

    def created(self, request: int, job: JobId, copies: int) -> None:
        """A job that was new exists in so many copies."""
        submission = self._submissions.get(request)
        alone = submission is not None and submission.one_machine
        self.answer(request, JobAccepted(request=request, job=job, copies=1 if alone else copies))

    def answer(self, request: int, answer: JobAccepted) -> None:
        """The job is accepted: tell all who wait for that."""
        if (submission := self._submissions.pop(request, None)) is None:
            return
        self._by_key.pop(submission.event.spec.submission_key, None)
        for number in (request, *submission.again):
            self._emit(msgspec.structs.replace(answer, request=number))

    def refuse(self, request: int, text: str) -> None:
        """It is not, and this is why."""
        if (submission := self._submissions.pop(request, None)) is None:
            return
        self._by_key.pop(submission.event.spec.submission_key, None)
        if submission.job is not None:
            self._plans.pop(submission.job, None)
        for number in (request, *submission.again):
            self._emit(JobRefused(request=number, text=text))


def _taken(spec: JobSpec, job: JobId | None = None) -> str:
    """Why a job is refused whose key is that of another one."""
    which = f" ({short(job)})" if job is not None else ""
    return (
        f"This submission key is that of another job, {spec.name!r}{which}; a key finds the same job again, and a "
        "different one needs a key of its own."
    )
