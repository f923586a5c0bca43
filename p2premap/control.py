"""What a client (the CLI, a Python program) and a daemon say to each other. Numbers 100 to 159.

A client connects to the daemon's Unix socket (mode 0600), or over TLS to a member that it remembers. The daemon
speaks first with `Welcome`. Every request carries a number of the client's choice; every answer repeats it. A
request has exactly one answer, except `Watch`, whose `JobUpdate`s go on until one shows a job that is over, and
`ReadPart` / `ReadLog`, whose chunks end with one marked `last`.

Any node answers any request: what concerns a job led elsewhere is passed on to its leader.
"""

from __future__ import annotations

import enum

import msgspec

from p2premap.ids import Address, RequestId
from p2premap.tasks.job import JobSpec, JobView, Part, Source
from p2premap.wire import Count, DigestField, JobIdField, Message, NodeIdField, Record, Registry, Seconds, Short, Text


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


class PutBlob(Message, tag=103, frozen=True, kw_only=True):
    """Keep these bytes (the frame's payload; at most PAYLOAD_BYTES_MAX a piece). `Done` when they are stored.

    Args:
        digest: of the whole blob; checked when the last piece has come.
        last: this is the last piece.
    """

    request: RequestId
    digest: DigestField
    last: bool = True


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
        copies: how many nodes hold its ledger now.
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


class ReadPart(Message, tag=111, frozen=True, kw_only=True):
    """Send the bytes of one output part. Answered by `Chunk`s, wherever the part is held.

    Args:
        leader: of the job, where the client knows it: then it need not be looked for.
    """

    request: RequestId
    job: JobIdField
    part: Count
    leader: NodeIdField | None = None


class ReadLog(Message, tag=112, frozen=True, kw_only=True):
    """Send what attempts of this job printed. Answered by `Chunk`s.

    Args:
        stage, task: -1 for all.
    """

    request: RequestId
    job: bytes
    stage: int = -1
    task: int = -1


class Chunk(Message, tag=113, frozen=True, kw_only=True):
    """A piece of what was asked for is this frame's payload."""

    request: RequestId
    last: bool = False


class NodeView(Record, frozen=True, kw_only=True):
    """A member as one node sees it.

    Args:
        state: "alive", "stalled", "suspect", "dead" or "left".
        addresses: "host:port" each.
        slots, busy: worker processes allowed and running.
        load: CPU use of the whole machine, 0 to 1.
        memory_bytes, memory_free_bytes: of the machine.
        me: this is the node that answers.
        since_s: for how long it has been in this state, as far as the node that answers knows.
        held_back: why it offers fewer slots than its owner gave it, as half a sentence; "" where it does not.
        host: what its machine calls itself.
    """

    node: NodeIdField
    name: Short
    state: Short
    pid: Count
    boot: Count
    addresses: tuple[Text, ...] = ()
    version: Short = ""
    system: Short = ""
    python: Short = ""
    cpus: Count = 0
    slots: Count = 0
    busy: Count = 0
    load: Seconds = 0.0
    memory_bytes: Count = 0
    memory_free_bytes: Count = 0
    tags: tuple[Short, ...] = ()
    me: bool = False
    since_s: Seconds = 0.0
    held_back: Short = ""
    host: Short = ""


class ListNodes(Message, tag=114, frozen=True, kw_only=True):
    """Who is here? Answered by `Nodes`."""

    request: RequestId


class Nodes(Message, tag=115, frozen=True, kw_only=True):
    """The members, this node first, then by name."""

    request: RequestId
    views: tuple[NodeView, ...]


class GetStatus(Message, tag=116, frozen=True, kw_only=True):
    """How is this node? Answered by `Status`."""

    request: RequestId


class Foreign(Record, frozen=True, kw_only=True):
    """Another cluster seen on this network. `hint` is the command that would join it."""

    address: Text
    cluster: Short
    hint: Text


class Status(Message, tag=117, frozen=True, kw_only=True):
    """This node and its cluster in a few facts.

    Args:
        scope: "loopback" until the user invites, joins or opens; then "network".
        warnings: sentences that a person should read.
        counters: name -> count, for `status --json` and bug reports.
    """

    request: RequestId
    me: NodeView
    cluster: Short
    scope: Short
    open_name: Short
    members: Count
    dead: Count
    jobs_running: Count
    state_dir: Text
    foreign: tuple[Foreign, ...] = ()
    warnings: tuple[Text, ...] = ()
    counters: dict[Short, int] = msgspec.field(default_factory=dict)


class MakeInvite(Message, tag=118, frozen=True, kw_only=True):
    """Make a token that lets machines in. Answered by `Invited`. Opens the node to the network."""

    request: RequestId
    uses: Count = 1
    valid_s: Seconds = 600.0


class Invited(Message, tag=119, frozen=True, kw_only=True):
    """The token to paste on the other machine."""

    request: RequestId
    token: Text
    uses: Count
    valid_s: Seconds


class Join(Message, tag=120, frozen=True, kw_only=True):
    """Leave the present cluster for the token's. `Done` when the node is a member there.

    Args:
        leave: also where the present cluster has other members or jobs.
    """

    request: RequestId
    token: Text
    leave: bool = False


class LeaveCluster(Message, tag=121, frozen=True, kw_only=True):
    """Say good-bye, forget the cluster's secret, and start again as a cluster of one. `Done` when said."""

    request: RequestId


class Diagnose(Message, tag=122, frozen=True, kw_only=True):
    """What works and what does not, by interface? Answered by `Diagnosis`."""

    request: RequestId


class Finding(Record, frozen=True, kw_only=True):
    """One thing that was checked.

    Args:
        ok: it works; else `text` says what is wrong and `remedy` what to do.
        about: the interface, peer or part it is about.
    """

    ok: bool
    about: Short
    text: Text
    remedy: Text = ""


class Diagnosis(Message, tag=123, frozen=True, kw_only=True):
    """What `p2premap doctor` prints."""

    request: RequestId
    findings: tuple[Finding, ...]


class Stop(Message, tag=124, frozen=True, kw_only=True):
    """Stop this daemon in good order. `Done` just before it ends."""

    request: RequestId


class Announce(Message, tag=125, frozen=True, kw_only=True):
    """A node that starts says to each node of its user on this machine who it is. Answered by `Announced`.

    Args:
        addresses: where the asking node listens; the answering node hints them to its gossip.
    """

    request: RequestId
    node: NodeIdField
    addresses: tuple[Address, ...]


class Announced(Message, tag=126, frozen=True, kw_only=True):
    """The same of the node that answers."""

    request: RequestId
    node: NodeIdField
    addresses: tuple[Address, ...]


class TryAddresses(Message, tag=127, frozen=True, kw_only=True):
    """Can you open a connection to these addresses of mine? A member's `doctor` asks. Answered by `Tried`."""

    request: RequestId
    addresses: tuple[Address, ...]


class Tried(Message, tag=128, frozen=True, kw_only=True):
    """What became of each address, in order.

    Args:
        outcomes: "open", "refused", "silent" or "unroutable" each.
        clock_unix_s: the wall clock of the member that answers; only for a person's eyes.
    """

    request: RequestId
    outcomes: tuple[Short, ...]
    clock_unix_s: Seconds = 0.0


class FindPart(Message, tag=129, frozen=True, kw_only=True):
    """Which bytes are this part? A member asks the job's leader. Answered by `PartFound`."""

    request: RequestId
    job: JobIdField
    part: Count


class PartFound(Message, tag=130, frozen=True, kw_only=True):
    """The part's name and holders."""

    request: RequestId
    part: Part


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
    """

    request: RequestId
    blobs: Count
    size_bytes: Count
    jobs: tuple[JobIdField, ...] = ()
    nodes: Count = 1
    silent: tuple[Short, ...] = ()


class Drain(Message, tag=137, frozen=True, kw_only=True):
    """Take no more work, let what runs here end, have what only this node holds copied, hand jobs over, and stop.

    `Done` just before it stops.

    Args:
        wait_s: at most, for what runs and for the copies.
    """

    request: RequestId
    wait_s: Seconds


class CountSole(Message, tag=138, frozen=True, kw_only=True):
    """Of the jobs that you lead, how many results does only this node hold? A member asks. Answered by `Counted`."""

    request: RequestId
    node: NodeIdField


class Counted(Message, tag=139, frozen=True, kw_only=True):
    """So many."""

    request: RequestId
    count: Count


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
    """Packs ended: this frame's payload tells how (`p2premap.tasks.calls.unpack_ends`); `slots` as in `CallsOpened`."""

    request: RequestId
    slots: Count


class ReadBlob(Message, tag=144, frozen=True, kw_only=True):
    """Send these bytes of a blob, wherever they are held. Answered by `Chunk`s."""

    request: RequestId
    source: Source


class AcceptFork(Message, tag=145, frozen=True, kw_only=True):
    """This fork is the job from now on; whose it was is lost for good. `Done` when the fork's leader has heard it."""

    request: RequestId
    fork: bytes


CLIENT_MESSAGES: tuple[type[Message], ...] = (
    PutBlob, Submit, Watch, ListJobs, Cancel, ReadPart, ReadLog, ListNodes, GetStatus, MakeInvite, Join,
    LeaveCluster, Diagnose, Stop, Announce, TryAddresses, FindPart, OpenCalls, Calls, ReadBlob,
    Why, Restart, FindHome, CleanUp, Drain, CountSole, AcceptFork,
)  # fmt: skip
"""What a client may say."""

DAEMON_MESSAGES: tuple[type[Message], ...] = (
    Welcome, Refused, Done, Submitted, JobUpdate, Jobs, Chunk, Nodes, Status, Invited, Diagnosis, Announced,
    Tried, PartFound, CallsOpened, CallsEnded, HomeFound, CleanedUp, Counted,
)  # fmt: skip
"""What a daemon answers."""

FROM_CLIENT = Registry(CLIENT_MESSAGES)
FROM_DAEMON = Registry(DAEMON_MESSAGES)
"""Made here and named in `p2premap.protocol` too: a command need not load what only nodes say to each other."""
