"""The superstep barrier of one process of a gang: what all have said goes in, what comes next goes out.

There is no master to ask. Every process tells every other one the same (`Head`), merges in order of partition, asks
the program's master hook, and so comes to the same verdict; a digest of what the hook said travels with the next head,
so that a hook that does not say the same everywhere is noticed.

::

    MEETING  --Met------>  COMPUTING  --Computed-->  TELLING  --Told--+--> COMPUTING   the next superstep
                               ^                                      +--> COUNTING    the graph has changed
                               +-------------- Counted ---------------+--> OVER        the epoch, or the job, ends

`Met` and `Counted` bring how large every partition is. Where a process has just been given a partition, or the graph
has changed, the partitions agree anew about what they exchange (`Agree`) before they compute.

An epoch ends when the first process says so in its head: by the clock, which only it looks at, or after so many
supersteps. By the clock an epoch takes at least `CHECKPOINT_S`, and so long that the change to the next one takes at
most `CHECKPOINT_SHARE` of the run, and a little longer as the job grows old: every epoch is a stage of the job, and
nobody wants to remember thousands of them.

Sources: Valiant, A bridging model for parallel computation (1990); Malewicz et al., Pregel (SIGMOD 2010), 3 and 4.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, assert_never

from p2premap.errors import JobError
from p2premap.vertex.digests import digest_of
from p2premap.vertex.plan import CHECKPOINT_S, CHECKPOINT_SHARE, CREATE, ROWS_MAX, Settings, StepRow

_OLDER: Final = 50
"""An epoch may take this part of what the job has run for so far."""
_OLDER_S_MAX: Final = 120.0
_LARGE: Final = 1 << 1000
_NAME_CHARACTERS_MAX: Final = 100


class VertexError(JobError):
    """A vertex program went wrong; the sentence names vertex and superstep where there are any. Definite."""


class Globals(NamedTuple):
    """What every partition is told before a superstep; the same everywhere.

    Args:
        superstep: the one that is to be computed, from 0.
        vertices, edges: of the whole graph, now.
        active: vertices that had not voted to halt after the superstep before.
        sent: messages of the superstep before, before they were combined.
        aggregates: of the superstep before, merged over all partitions; of the persistent ones, of all so far. What the
            master hook set stands here under the names that it gave.
    """

    superstep: int
    vertices: int
    edges: int
    active: int = 0
    sent: int = 0
    aggregates: Mapping[str, object] = {}


class Program(Protocol):
    """The half of a vertex program that the barrier calls, in every process alike: deterministic, and quick."""

    def merge(self, name: str, values: Sequence[object]) -> object:
        """What an aggregator makes of the values of all partitions that gave any, in order of partition.

        Raises:
            VertexError: nobody declared this aggregator.
        """

    def persistent(self) -> Sequence[str]:
        """Names of aggregators whose old value goes first into `merge`, and that stay where nobody gives anything."""

    def master(self, now: Globals) -> Mapping[str, object] | None:
        """The master hook, before each superstep but the first. None: the job ends here; else names and values that
        are added to the aggregates that all vertices see ({}: nothing)."""


class Share(NamedTuple):
    """What one partition did in a superstep.

    Args:
        active: vertices that will compute again although no mail comes.
        computed: vertices that computed.
        sent: messages, before they were combined.
        dropped: messages to unknown vertices that had come for this superstep.
        changes: of the graph, asked for.
        aggregates: name -> what the partition gave.
    """

    partition: int
    active: int
    computed: int
    sent: int
    dropped: int
    changes: int
    aggregates: Mapping[str, object]


class Head(NamedTuple):
    """What a process tells every other one with its mail.

    Args:
        superstep: that its mail is of.
        shares: of its partitions.
        ends: the epoch ends with this superstep (the first process's word counts).
        digest: of what the master hook has said before this superstep.
    """

    superstep: int
    shares: tuple[Share, ...] = ()
    ends: bool = False
    digest: bytes = b""


class Hello(NamedTuple):
    """What a process says when a gang meets, and after the graph has changed.

    Args:
        superstep: the next one.
        fresh: agreements are to be made anew.
        counts: (partition, vertices, edges) of each of its partitions.
    """

    superstep: int
    fresh: bool
    counts: tuple[tuple[int, int, int], ...]


class Carried(NamedTuple):
    """What one epoch hands to the next beside the state of the partitions.

    Args:
        globals: of the next superstep; None: the first epoch has yet to find out.
        digest: see `Head`.
        ran_s: what all epochs took together.
        dropped: messages to unknown vertices, so far.
    """

    globals: Globals | None = None
    digest: bytes = b""
    ran_s: float = 0.0
    dropped: int = 0


# --- events -------------------------------------------------------------------------------------------------------


class Met(NamedTuple):
    """The gang has met. `hellos` in order of seat; `change_s`: since the last epoch's end, 0 where nobody knows."""

    hellos: tuple[Hello, ...]
    change_s: float = 0.0


class Computed(NamedTuple):
    """The partitions of this process have computed."""

    shares: tuple[Share, ...]


class Told(NamedTuple):
    """The heads of all processes, in order of seat."""

    heads: tuple[Head, ...]


class Counted(NamedTuple):
    """How large all partitions are after a change."""

    hellos: tuple[Hello, ...]


Event = Met | Computed | Told | Counted


# --- effects ------------------------------------------------------------------------------------------------------


class Agree(NamedTuple):
    """Let the partitions agree anew about what they exchange.

    Args:
        changed: the graph is another since mail was last taken.
    """

    changed: bool = False


class Compute(NamedTuple):
    """Compute this superstep."""

    globals: Globals


class Tell(NamedTuple):
    """Exchange mail, with this head."""

    head: Head


class Turn(NamedTuple):
    """Have the partitions take their mail."""


class Count(NamedTuple):
    """Exchange how large the partitions are now."""


class End(NamedTuple):
    """The epoch ends here.

    Args:
        over: the job as well.
        why: it does; a sentence.
        rows: of the epoch's supersteps.
    """

    over: bool
    why: str
    carried: Carried
    rows: tuple[StepRow, ...]


Effect = Agree | Compute | Tell | Turn | Count | End


class State(enum.Enum):
    """Where a process is; see the diagram."""

    MEETING = "meeting"
    COMPUTING = "computing"
    TELLING = "telling"
    COUNTING = "counting"
    OVER = "over"


class Barrier:
    """One epoch of one process.

    Args:
        settings: of the job.
        program: its hooks.
        seat: of this process.
        superstep: the first one.
        carried: from the epoch before.
    """

    def __init__(self, *, settings: Settings, program: Program, seat: int, superstep: int, carried: Carried) -> None:
        self.state = State.MEETING
        self.superstep = superstep
        self._settings = settings
        self._program = program
        self._seat = seat
        self._carried = carried
        self._first = superstep
        self._globals = carried.globals
        self._digest = carried.digest
        self._began = self._turned = 0.0
        self._change_s = 0.0
        self._ends = False
        self._dropped = carried.dropped
        self._rows: list[StepRow] = []

    def step(self, now: float, event: Event) -> list[Effect]:
        """Take what has happened.

        Raises:
            VertexError: the processes do not agree, or a limit is reached.
            Exception: what the program's hooks raise.
        """
        match event:
            case Met():
                self._expect(State.MEETING)
                return self._meet(now, event)
            case Computed():
                self._expect(State.COMPUTING)
                return self._tell(now, event.shares)
            case Told():
                self._expect(State.TELLING)
                return self._told(now, event.heads)
            case Counted():
                self._expect(State.COUNTING)
                self._count(event.hellos)
                return [*_agreeing(event.hellos, changed=True), *self._go_on(now)]
            case _:
                assert_never(event)

    def _expect(self, state: State) -> None:
        assert self.state is state, f"{self.state} where {state} is due"

    # --- meeting --------------------------------------------------------------------------------------------------

    def _meet(self, now: float, event: Met) -> list[Effect]:
        self._began = self._turned = now
        self._change_s = event.change_s
        self._count(event.hellos)
        self.state = State.COMPUTING
        assert self._globals is not None, "counted"
        return [*_agreeing(event.hellos, changed=False), Compute(self._globals)]

    def _count(self, hellos: Iterable[Hello]) -> None:
        vertices = edges = 0
        partitions: list[int] = []
        for seat, hello in enumerate(hellos):
            if hello.superstep != self.superstep:
                raise VertexError(f"Process {seat} is at superstep {hello.superstep}, others at {self.superstep}.")
            for partition, more, links in hello.counts:
                partitions.append(partition)
                vertices += more
                edges += links
        if sorted(partitions) != list(range(self._settings.partitions)):
            raise VertexError(f"Partitions {sorted(partitions)} have met, of {self._settings.partitions}.")
        known = self._globals or Globals(self.superstep, 0, 0)
        self._globals = known._replace(vertices=vertices, edges=edges)

    # --- a superstep ----------------------------------------------------------------------------------------------

    def _tell(self, now: float, shares: tuple[Share, ...]) -> list[Effect]:
        self.state = State.TELLING
        head = Head(self.superstep, shares, ends=self._is_due(now), digest=self._digest)
        return [Tell(head)]

    def _is_due(self, now: float) -> bool:
        """Whether the epoch should end with this superstep; asked of the first process alone."""
        if self._seat:
            return False
        if every := self._settings.checkpoint_every:
            return self.superstep + 1 - self._first >= every
        longer = self._change_s * (1 / CHECKPOINT_SHARE - 1)
        older = min((self._carried.ran_s + now - self._began) / _OLDER, _OLDER_S_MAX)
        return now - self._began >= max(CHECKPOINT_S, longer, older)

    def _told(self, now: float, heads: tuple[Head, ...]) -> list[Effect]:
        for seat, head in enumerate(heads):
            if head.superstep != self.superstep:
                raise VertexError(f"Process {seat} is at superstep {head.superstep}, others at {self.superstep}.")
            if head.digest != heads[0].digest:
                raise VertexError(
                    f"The master hook has said different things in different processes before superstep "
                    f"{self.superstep}: it must depend on nothing but what it is given."
                )
        self._ends = heads[0].ends
        shares = sorted((share for head in heads for share in head.shares), key=lambda share: share.partition)
        if [share.partition for share in shares] != list(range(self._settings.partitions)):
            raise VertexError(f"Not every partition has its share in superstep {self.superstep}.")
        self._sum_up(now, shares)
        sent = any(share.sent for share in shares)
        if any(share.changes for share in shares) or (sent and self._settings.unknown == CREATE):
            self.state = State.COUNTING
            return [Turn(), Count()]
        return [Turn(), *self._go_on(now)]

    def _sum_up(self, now: float, shares: Sequence[Share]) -> None:
        """What all have done, and which superstep is next."""
        assert self._globals is not None, "counted"
        given: dict[str, list[object]] = {}
        before = self._globals.aggregates
        kept = [name for name in self._program.persistent() if name in before]
        for name in kept:
            given[name] = [before[name]]
        for share in shares:
            for name, value in share.aggregates.items():
                given.setdefault(name, []).append(value)
        aggregates = {name: self._program.merge(name, given[name]) for name in sorted(given)}
        active, sent = sum(share.active for share in shares), sum(share.sent for share in shares)
        row = StepRow(
            superstep=self.superstep,
            active=active,
            computed=sum(share.computed for share in shares),
            sent=sent,
            dropped=sum(share.dropped for share in shares),
            seconds=max(now - self._turned, 0.0),
            values=tuple(_numbers(aggregates)),
        )
        self._dropped += row.dropped
        self._rows.append(row)
        del self._rows[:-ROWS_MAX]
        self._turned = now
        self.superstep += 1
        self._globals = self._globals._replace(
            superstep=self.superstep, active=active, sent=sent, aggregates=aggregates
        )

    def _go_on(self, now: float) -> list[Effect]:
        """The verdict: the next superstep, the end of the epoch, or of the job."""
        assert self._globals is not None, "counted"
        over, why = self._judge()
        if over or self._ends:
            self.state = State.OVER
            ran = self._carried.ran_s + max(now - self._began, 0.0)
            carried = Carried(self._globals, self._digest, ran, self._dropped)
            return [End(over, why, carried, tuple(self._rows))]
        self.state = State.COMPUTING
        return [Compute(self._globals)]

    def _judge(self) -> tuple[bool, str]:
        assert self._globals is not None, "counted"
        if not self._globals.active and not self._globals.sent:
            return True, f"All vertices have halted after {_count(self.superstep)}."
        if self._settings.supersteps and self.superstep >= self._settings.supersteps:
            return True, f"It has run for {_count(self.superstep)}, as was asked for."
        said = self._program.master(self._globals)
        self._digest = digest_of(said)
        if said is None:
            return True, f"The program found after {_count(self.superstep)} that it is done."
        if said:
            self._globals = self._globals._replace(aggregates={**self._globals.aggregates, **said})
        if self.superstep >= self._settings.supersteps_max:
            raise VertexError(
                f"The job has not ended by itself after {_count(self.superstep)}: {self._globals.active} vertices "
                f"are active and {self._globals.sent} messages were sent. Raise supersteps-max, or end a program of "
                "your own by its option supersteps."
            )
        return False, ""


def _agreeing(hellos: Iterable[Hello], *, changed: bool) -> list[Effect]:
    return [Agree(changed)] if any(hello.fresh for hello in hellos) else []


def _count(supersteps: int) -> str:
    return "1 superstep" if supersteps == 1 else f"{supersteps} supersteps"


def _numbers(aggregates: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """What can be shown as a number."""
    for name, value in aggregates.items():
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGE):
            yield name[:_NAME_CHARACTERS_MAX], float(value)
