"""Nodes: what each is, how it is, what is wrong with it, and its end."""

import msgspec

from p2premap.ids import Address, RequestId
from p2premap.wire import Count, Message, NodeIdField, Record, Seconds, Short, Text


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
        refused_actions: of which it runs no tasks.
        on_battery: its machine runs from its battery.
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
    refused_actions: tuple[Short, ...] = ()
    on_battery: bool = False


class ListNodes(Message, tag=114, frozen=True, kw_only=True):
    """Who is here? Answered by `Nodes`."""

    request: RequestId


class Nodes(Message, tag=115, frozen=True, kw_only=True):
    """The members, this node first, then by name."""

    request: RequestId
    views: tuple[NodeView, ...]


class Foreign(Record, frozen=True, kw_only=True):
    """Another cluster seen on this network. `hint` is the command that would join it."""

    address: Text
    cluster: Short
    hint: Text


class GetStatus(Message, tag=116, frozen=True, kw_only=True):
    """How is this node? Answered by `Status`."""

    request: RequestId


class Status(Message, tag=117, frozen=True, kw_only=True):
    """This node and its cluster in a few facts.

    Args:
        scope: "loopback" until the user invites, joins or opens; then "network".
        warnings: sentences that a person should read.
        counters: name -> count, for `status --json` and bug reports.
        key_epoch: how many secrets the cluster has had; one more for each rotation.
        kept_bytes: of results and inputs, as of the last look; 0 without a limit.
        kept_bytes_max: the limit that its owner gave it; 0: none.
    """

    request: RequestId
    me: NodeView
    cluster: Short
    scope: Short
    open_name: Short
    members: Count
    dead: Count
    state_dir: Text
    foreign: tuple[Foreign, ...] = ()
    warnings: tuple[Text, ...] = ()
    counters: dict[Short, int] = msgspec.field(default_factory=dict)
    key_epoch: Count = 1
    kept_bytes: Count = 0
    kept_bytes_max: Count = 0


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


class Stop(Message, tag=124, frozen=True, kw_only=True):
    """Stop this daemon in good order. `Done` just before it ends."""

    request: RequestId


class Drain(Message, tag=137, frozen=True, kw_only=True):
    """Take no more work, let what runs here end, have what only this node holds copied, hand jobs over, and stop.

    `Done` just before it stops.

    Args:
        wait_s: at most, for what runs and for the copies.
        node: which; None: the one that is asked.
    """

    request: RequestId
    wait_s: Seconds
    node: NodeIdField | None = None


class CountSole(Message, tag=138, frozen=True, kw_only=True):
    """Of the jobs that you lead, how many results does only this node hold? A member asks. Answered by `Counted`."""

    request: RequestId
    node: NodeIdField


class Counted(Message, tag=139, frozen=True, kw_only=True):
    """So many."""

    request: RequestId
    count: Count
