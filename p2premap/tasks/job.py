"""What a job is made of: pure data, the same on every node.

A job runs *stages*; a stage is a range of *tasks* 0..n-1 that may run side by side; an *attempt* is one run of a
task on one worker. A later stage's id contains the digest of the manifest (the pinned results) of the stage before,
so that lineages never mix, even where a task is not deterministic.
"""

import enum
from typing import Annotated, NamedTuple, Self

import msgspec

from p2premap.ids import JobId
from p2premap.wire import Count, DigestField, FilePath, NodeIdField, Record, Seconds, Short, Text

INLINE_BYTES_MAX = 64 << 10
"""A result value up to this size travels inside the fact; larger ones are blobs."""

SAVED_PARTS_FIRST = 1 << 20
"""Parts with a number from here on are files that tasks have saved beside their results."""

UNMET_BRIEFLY = 8
"""Rows of who lacks what in a line of a list."""

RESULT_BLOBS_MAX = 1024
"""Blobs of one result: a ledger counts them in 16 bits, and one message must carry them."""


class StageId(NamedTuple):
    """One stage of a job in one lineage.

    Args:
        number: from 0.
        lineage: the first 8 bytes of the digest of the manifest that this stage was planned from; b"" for stage 0.
    """

    number: int
    lineage: bytes


class AttemptKey(NamedTuple):
    """One run of one task. User code sees it as ``job-stage.task.attempt``."""

    job: JobId
    stage: StageId
    task: int
    attempt: int


class Source(Record, frozen=True, kw_only=True):
    """Bytes that an attempt reads: a range of a blob, or of a file of the machine that submitted the job.

    Args:
        digest: BLAKE3 of exactly these bytes: whatever is read elsewhere counts only if it hashes to this.
        start, end: the range, in bytes.
        holders: nodes that have it, the best first.
        blob: the blob's digest; None for a file.
        path: the file's absolute path at holders[0]; "" for a blob.
        mtime_ns: the file's modification time when the job was submitted (0 for a blob).
    """

    digest: DigestField
    start: Count
    end: Count
    holders: tuple[NodeIdField, ...]
    blob: DigestField | None = None
    path: FilePath = ""
    mtime_ns: int = 0

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start


class BlobRef(Record, frozen=True, kw_only=True):
    """A blob by name. `size` in bytes."""

    digest: DigestField
    size: Count


class Limits(Record, frozen=True, kw_only=True):
    """What one attempt may use; 0 means no limit.

    Args:
        time_s: wall-clock seconds.
        memory_bytes: peak resident memory of the attempt's whole process tree.
    """

    time_s: Seconds = 0.0
    memory_bytes: Count = 0


class JobOptions(Record, frozen=True, kw_only=True):
    """How a job is to be run, whatever its kind.

    Args:
        priority: higher goes first.
        copies: how many nodes should hold the job's ledger.
        retries: how often an exception is tried again (by default it is the task's answer).
        attempts_max: crashes and exceeded limits that make a task poison.
        limits: of each attempt.
        parallel_max: attempts side by side in the whole cluster; 0: as many as there are slots.
        skip_failed: a task that has failed for good is left out, and listed, instead of failing the job.
        strict: never forked: without a quorum of its replicas it waits.
        stage_inputs: inputs are copied to every replica however large they are (`p2premap.tasks.inputs`).
        requires: what a node must have to run any of it (`p2premap.tasks.requirements`).
        environment: the lock of what has to be installed where it runs (`p2premap.tasks.environment`).
        output: the URL of a directory that its parts are written to (`p2premap.tasks.delivery`); "": they stay.
        overwrite: parts of an earlier job there are replaced.
        callback: the URL that is told when the job is over (`p2premap.tasks.callback`); "": nobody.
        callback_secret: signs what it is told; "": nothing does.
    """

    priority: int = 0
    copies: Count = 3
    retries: Count = 0
    attempts_max: Count = 3
    limits: Limits = Limits()
    parallel_max: Count = 0
    skip_failed: bool = False
    strict: bool = False
    stage_inputs: bool = False
    requires: tuple[Text, ...] = ()
    environment: BlobRef | None = None
    output: Text = ""
    overwrite: bool = False
    callback: Text = ""
    callback_secret: Short = ""


class JobSpec(Record, frozen=True, kw_only=True):
    """What a user submits. Code and plan are blobs, opaque to every daemon.

    Args:
        submission_key: drawn by the client; submitting again under the same key finds the same job.
        kind: the module that directs it (entry point group ``p2premap.modules``), such as "mapreduce".
        name: for people.
        code: the bundle of sources that workers load.
        plan: the kind's own description of inputs and options.
        options: as above.
    """

    submission_key: bytes
    kind: Short
    name: Short
    code: BlobRef
    plan: BlobRef
    options: JobOptions = JobOptions()

    def blobs(self) -> tuple[BlobRef, ...]:
        """What a node must have of it to lead it, and to hand it on."""
        environment = self.options.environment
        return (self.code, self.plan) if environment is None else (self.code, self.plan, environment)


class Outcome(enum.IntEnum):
    """How an attempt ended; each is reported as what it is."""

    DONE = 0
    """With a result."""
    RAISED = 1
    """User code raised: the task's answer, not retried unless asked."""
    CRASHED = 2
    """The worker process died by itself (exit code or signal)."""
    TIME_LIMIT = 3
    MEMORY_LIMIT = 4
    STOPPED = 5
    """Killed on request (cancel, pre-emption, a backup won): not counted against the task."""
    INPUT_LOST = 6
    """A source could be read from no holder; `missing` names it."""
    REFUSED = 7
    """The node could not start it (environment, disk full): not counted, tried elsewhere."""


class AttemptSpec(Record, frozen=True, kw_only=True):
    """One attempt to run.

    Args:
        task: index within the stage.
        attempt: from 0.
        params: the kind's own description of this task.
        sources: bytes to have at hand before it starts.
    """

    task: Count
    attempt: Count
    params: bytes = b""
    sources: tuple[Source, ...] = ()


class Spill(Record, frozen=True, kw_only=True):
    """What an attempt put aside on scratch disk because it did not fit into memory, and how long it took to write."""

    bytes: Count
    seconds: Seconds


class AttemptEnd(Record, frozen=True, kw_only=True):
    """How one attempt ended.

    Args:
        value: the result, where it is small (at most INLINE_BYTES_MAX); opaque.
        blobs: the result's large parts, held by the node that ran it.
        error: one sentence, for every outcome but DONE.
        detail: traceback, exit signal, log tail: text for people.
        seconds: wall-clock of the user's code.
        peak_bytes: peak resident memory, 0 where not measured.
        records_in, records_out: for progress and rates.
        missing: sources' digests, where the outcome is INPUT_LOST.
        spill: None: everything fitted into memory.
    """

    task: Count
    attempt: Count
    outcome: Outcome
    value: bytes = b""
    blobs: Annotated[tuple[BlobRef, ...], msgspec.Meta(max_length=RESULT_BLOBS_MAX)] = ()
    error: Text = ""
    detail: Text = ""
    seconds: Seconds = 0.0
    peak_bytes: Count = 0
    records_in: Count = 0
    records_out: Count = 0
    missing: tuple[DigestField, ...] = ()
    spill: Spill | None = None


class Phase(enum.Enum):
    """The state of a job as people see it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


class Part(Record, frozen=True, kw_only=True):
    """One finished part of a job's output.

    Args:
        number: the partition.
        source: where its bytes are.
        records: how many records it has.
        name: of the file that it is, relative; "": by its number.
    """

    number: Count
    source: Source
    records: Count = 0
    name: FilePath = ""

    @property
    def file_name(self) -> str:
        """What its file is called, relative."""
        return self.name or f"part-{self.number:05d}"


class Leader(msgspec.Struct, frozen=True):
    """Who leads a job, for people.

    Args:
        pid: of the daemon.
    """

    node: NodeIdField
    name: str
    pid: int


class StageView(Record, frozen=True, kw_only=True):
    """A stage in numbers, for progress displays.

    Args:
        spilled_bytes: that attempts with results put aside on scratch disk, as they did not fit into memory.
    """

    number: Count
    name: Short
    tasks: Count
    done: Count = 0
    running: Count = 0
    failed_attempts: Count = 0
    lost_attempts: Count = 0
    bytes_in: Count = 0
    bytes_done: Count = 0
    records_out: Count = 0
    seconds: Seconds = 0.0
    skipped: Count = 0
    spilled_bytes: Count = 0


class Failure(Record, frozen=True, kw_only=True):
    """An attempt as the ledger remembers it: one that ended without a result, or that printed something.

    Args:
        outcome: by its name, such as "raised"; "done" of one that only printed something.
        detail: traceback, exit signal, log tail; cut.
        good: the task had a result in the end.
    """

    stage: Count
    stage_name: Short
    task: Count
    attempt: Count
    node: NodeIdField
    node_name: Short
    outcome: Short
    error: Text = ""
    detail: Text = ""
    good: bool = False


class JobView(Record, frozen=True, kw_only=True):
    """A job as its leader sees it, for people and clients.

    Args:
        leader, leader_name, leader_pid: who leads it.
        age_s: since it was accepted.
        stages: those planned so far, but for results of which nobody needs any more (`p2premap.tasks.shedding`).
        parts: output parts committed so far, where the view is asked for with them.
        nodes: tasks done by each node: (node name, count).
        error, detail: for FAILED.
        note: one sentence about what it waits for, or "".
        part_count: how many output parts are committed.
        copies: replicas that have the job on disk.
        unprotected: results of which only the leader knows yet, or only the leader knows of their second holder, and
            results that only one node holds yet: a death now may run their tasks again. One that is both counts twice.
        unprotected_s: how long the oldest of them has been so.
        takeovers: how often another node has taken the job over.
        backups: attempts that were started beside a straggler.
        retries: attempts that followed a failed one.
        fork: the name of the fork that this is (`p2premap.election.forks`), or "".
        skipped: tasks that failed for good and were left out: (stage, task, error), the first of them.
        unmet: where no node that is here has what the job requires, who lacks what: (node, what, what it has), the
            first of them.
        output: the URL that its parts are written to, or "".
        told: what the kind's own commands are told beside it (`p2premap.tasks.director.Tells`).
        submitted: when it was handed in, by the clock of the machine that took it, in seconds since 1970; 0: unknown.
        failures: of a job that is over: attempts that failed, the last of them; those of failed tasks first. Then what
            the last of the others printed.
        history: who has led it: (node, name, how old the job was then), the last of them.
        lasted_s: how old it was when it was over; 0: it goes on.
    """

    job: bytes
    name: Short
    kind: Short
    phase: Phase
    leader: NodeIdField
    leader_name: Short
    leader_pid: Count
    age_s: Seconds
    copies: Count = 1
    stages: tuple[StageView, ...] = ()
    parts: tuple[Part, ...] = ()
    nodes: tuple[tuple[Short, Count], ...] = ()
    error: Text = ""
    detail: Text = ""
    note: Text = ""
    part_count: Count = 0
    unprotected: Count = 0
    unprotected_s: Seconds = 0.0
    takeovers: Count = 0
    backups: Count = 0
    retries: Count = 0
    fork: Short = ""
    skipped: tuple[tuple[Short, Count, Text], ...] = ()
    submitted: Seconds = 0.0
    unmet: tuple[tuple[Short, Text, Text], ...] = ()
    output: Text = ""
    told: bytes = b""
    history: tuple[tuple[NodeIdField, Short, Seconds], ...] = ()
    failures: tuple[Failure, ...] = ()
    lasted_s: Seconds = 0.0

    def brief(self) -> Self:
        """The same as a line of a list: without what may be long."""
        unmet = self.unmet[:UNMET_BRIEFLY]
        return msgspec.structs.replace(self, parts=(), detail="", skipped=(), unmet=unmet, told=b"", failures=())
