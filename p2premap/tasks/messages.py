"""What a job's leader and the nodes that work for it say to each other, over links. Numbers 40 to 59.

::

    leader                                   worker node
      | Assign(job, ballot, attempts) ------->|   takes what fits into its slots, refuses the rest
      |<------- Busy(attempts, free, why) ----|
      |<------- AttemptsEnded(ends) ----------|   in groups, as they end; free slots told with each
      | StopAttempts(...) ------------------->|   cancel, pre-emption, a backup won
      | ForgetJob(job) ---------------------->|   the job is over: worker processes and scratch go
      | Recount(job, attempts) -------------->|   what was said may be lost: tell again what I have not heard
      |<------- AttemptsEnded(ends) ----------|   (always one, maybe empty)
      | Recount(job, census) ---------------->|   a new leader: what have you of this job?
      |<------- Holding(running) -------------|   then as above
      | Reserve(job, slots) ----------------->|   for a stage whose tasks start all at once: again and again
      |<------- Reserved(slots) --------------|   whenever that changes
      | Keep(number, sources) --------------->|   bring this result here: its other holder may die
      |<------- Kept(number, error) ----------|

Every message carries the leader's ballot: a worker refuses ballots lower than the highest it has seen for the job
(fencing), so that a deposed leader cannot give orders.

A link delivers in order and reliably while it lasts; what was under way when it broke may be lost. So a worker numbers
its `AttemptsEnded` for each job and keeps them until the leader has `heard` them, and a leader that has lost a link, or
has heard nothing for a while, asks: the worker tells again what it keeps, and disowns what it does not know.
"""

from p2premap.ids import Ballot
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Limits, Source, StageId
from p2premap.tasks.meeting import Meeting
from p2premap.wire import Count, DigestField, JobIdField, Message, Seconds, Short, Text


class Assign(Message, tag=40, frozen=True, kw_only=True):
    """Run these attempts.

    Args:
        runtime: what runs them in the worker process, "package.module:Class" (the kind's other half).
        function: which of the kind's functions, such as "map".
        code: the bundle that the runtime loads.
        priority: of the job, for the node's own choice between jobs.
        heard: the leader has every `AttemptsEnded` of this node and job up to this number.
        environment: the lock of what has to be installed.
        meeting: the attempts run all at once, with those of other batches.
    """

    job: JobIdField
    ballot: Ballot
    stage: StageId
    runtime: Short
    function: Short
    code: Source
    attempts: tuple[AttemptSpec, ...]
    limits: Limits = Limits()
    priority: int = 0
    heard: Count = 0
    environment: Source | None = None
    meeting: Meeting | None = None


class Busy(Message, tag=41, frozen=True, kw_only=True):
    """These attempts were not taken: (task, attempt) each. They count for nothing.

    With no attempts it is an invitation: the job was refused before, and now it is its turn.

    Args:
        free: how many further `Assign`s of this job the node would take now.
        reason: one sentence, shown by `why`.
        retry_s: do not ask again before.
    """

    job: JobIdField
    ballot: Ballot
    stage: StageId
    attempts: tuple[tuple[Count, Count], ...]
    free: Count
    reason: Text
    retry_s: Seconds


class AttemptsEnded(Message, tag=42, frozen=True, kw_only=True):
    """These attempts ended; each is told once a ballot, and told again to a new leader.

    Args:
        free: how many further `Assign`s of this job the node would take now.
        serial: 1, 2, 3... for this job at this node; 0: nothing that would need to be kept.
        answers: the number of the last `Recount` that came before this was said.
        held: attempts of this job that are in this node's slots now.
    """

    job: JobIdField
    ballot: Ballot
    stage: StageId
    ends: tuple[AttemptEnd, ...]
    free: Count
    serial: Count = 0
    answers: Count = 0
    held: Count = 0


class StopAttempts(Message, tag=43, frozen=True, kw_only=True):
    """Stop these (task, attempt); an empty tuple means all of the job's. Each answers as STOPPED."""

    job: JobIdField
    ballot: Ballot
    stage: StageId
    attempts: tuple[tuple[Count, Count], ...] = ()


class ForgetJob(Message, tag=44, frozen=True, kw_only=True):
    """The job is over: stop what still runs for it, end its worker processes, remove its scratch files."""

    job: JobIdField
    ballot: Ballot


class Recount(Message, tag=45, frozen=True, kw_only=True):
    """How are these (task, attempt)? Answered by what the leader has not heard, and one `AttemptsEnded` at least.

    Attempts that the node does not know end as REFUSED: they never arrived, or it gave them up.

    Args:
        heard: as in `Assign`.
        number: 1, 2, 3... for this node and job; repeated in what is said from then on.
        census: a new leader asks: `Holding` comes first.
        origin: of a fork, the job that it was forked from: what the node has of that, while nobody leads it, is the
            fork's. b"" else.
    """

    job: JobIdField
    ballot: Ballot
    stage: StageId
    attempts: tuple[tuple[Count, Count], ...] = ()
    heard: Count = 0
    number: Count = 0
    census: bool = False
    origin: bytes = b""


class Holding(Message, tag=46, frozen=True, kw_only=True):
    """What this node has of the job, for a new leader: the answer to a census, before the unheard reports.

    Args:
        number: of the `Recount` that asked.
        running: (stage, its (task, attempt)s): those in this node's slots, and those that ended and whose end is told
            right after this. The new leader takes them over under their numbers.
        free: how many `Assign`s of this job the node would take now.
    """

    job: JobIdField
    ballot: Ballot
    number: Count
    running: tuple[tuple[StageId, tuple[tuple[Count, Count], ...]], ...]
    free: Count


class Keep(Message, tag=47, frozen=True, kw_only=True):
    """Bring these blobs here and keep them as long as the job's results are kept; answered by one `Kept`.

    Args:
        number: of the order, for the answer; the leader never gives another of this job the same.
        sources: whole blobs of one result, each with its present holders.
    """

    job: JobIdField
    ballot: Ballot
    number: Count
    sources: tuple[Source, ...]


class Kept(Message, tag=48, frozen=True, kw_only=True):
    """Answers `Keep`: all of the blobs are here, or one sentence why not."""

    job: JobIdField
    ballot: Ballot
    number: Count
    error: Text = ""


class Shed(Message, tag=51, frozen=True, kw_only=True):
    """These blobs of the job nobody needs any more: they may go. Not answered."""

    job: JobIdField
    blobs: tuple[DigestField, ...]


class Reserve(Message, tag=49, frozen=True, kw_only=True):
    """Keep idle slots for the job: tasks of it are to start all at once. Lapses after `reserve_s` unless repeated.

    Args:
        slots: how many it could use here; 0: none any more.
        priority: of the job.
        age_s: since it was submitted: of equal priority, the older job takes slots from the younger.
        runtime, function, environment: as of `Assign`: a node that does not run such keeps nothing, and says why. ""
            of an earlier release.
        heard: as in `Assign`: a node that has started again numbers its reports on from there.
    """

    job: JobIdField
    ballot: Ballot
    stage: StageId
    slots: Count
    priority: int
    age_s: Seconds
    runtime: Short = ""
    function: Short = ""
    environment: Source | None = None
    heard: Count = 0


class Reserved(Message, tag=50, frozen=True, kw_only=True):
    """So many idle slots are kept for the job now; they take one batch each."""

    job: JobIdField
    ballot: Ballot
    slots: Count
