"""What the superstep engine asks of a partition, whatever the form of its vertices.

One superstep of partition p among P::

    did = p.compute(superstep, globals)          every partition of this process, in order of number
    p.mail(q) for each q, its own included       after the last compute of this process
        ... one exchange: the processes' mail, and what the barrier needs ...
    p.deliver(source, mail)                      in order of source partition 0..P-1, empty mail left out
    p.turn() -> woken                            the inbox is whole; graph changes are in place

When a partition has just been made, or `turn` of one said that its graph changed, all are told to `renew` before the
next superstep, and then, in forms that say so by `agrees`, there are two rounds in which partitions ask each other for
what they want: `requests`, then `answers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from p2premap.vertex.barrier import Globals, Program, VertexError
from p2premap.worker.gang import Buffer

__all__ = ["Buffer", "Did", "Form", "Globals", "Partition", "Program", "Sink", "Turned", "VertexError"]


class Did(NamedTuple):
    """What a partition did in a superstep.

    Args:
        active: vertices that will compute again although no mail comes (have not voted to halt).
        sent: messages, before they were combined.
        aggregates: name -> what this partition gave, already reduced over its vertices in their order.
        computed: vertices that computed.
        changes: of the graph that were asked for: after `turn` partitions are counted anew.
    """

    active: int
    sent: int
    aggregates: dict[str, object]
    computed: int = 0
    changes: int = 0


class Turned(NamedTuple):
    """What came of the mail.

    Args:
        woken: vertices that have mail.
        changed: its graph has changed: exchanges are to be agreed anew.
        dropped: messages to vertices that do not exist.
    """

    woken: int
    changed: bool = False
    dropped: int = 0


class Sink(Protocol):
    """Where a snapshot goes: a `p2premap.worker.runtime.BlobWriter`, or anything that takes bytes."""

    def write(self, data: bytes | memoryview) -> object:
        """Append."""


class Partition(Protocol):
    """One partition of a vertex job. All that it raises must be the same wherever it runs."""

    number: int
    agrees: bool
    """It wants `requests`, `answers` and `agreed` called before superstep 0 and after each change of a graph."""

    def begin(self) -> None:
        """Become what it is before superstep 0, from the graph blob alone; where the build stage wrote a first state
        `restore` is called instead."""

    def counts(self) -> tuple[int, int]:
        """Its vertices and edges."""

    def renew(self, *, changed: bool) -> None:
        """Others may have been given other partitions, or changed: forget what was agreed with them. Called in every
        form, before `requests`.

        Args:
            changed: the graph is another, here or elsewhere, than when the mail was sent that is here now.

        Raises:
            VertexError: such mail cannot be had without what is forgotten.
        """

    def requests(self, partition: int) -> Sequence[Buffer]:
        """First round of an agreement: what is asked of another partition (its own included), as pieces."""

    def answers(self, source: int, request: memoryview) -> Sequence[Buffer]:
        """Second round: the answer to what `source` asked; () where nothing needs saying. In order of source."""

    def agreed(self, source: int, answer: memoryview) -> None:
        """The answer of `source`; in order of source, after all `answers` of this process."""

    def compute(self, superstep: int, globals: Globals) -> Did:
        """Call user code for everything that is active.

        Raises:
            Exception: what user code raises, with a note that names vertex and superstep.
        """

    def mail(self, partition: int) -> Sequence[Buffer]:
        """The mail for a partition (its own included), as pieces; () = none. Asked once after each `compute`.

        Pieces may be views of memory that the next `compute` overwrites: they are sent before it is called.
        """

    def deliver(self, source: int, mail: memoryview) -> None:
        """Mail of a partition; empty mail is not delivered. It may be kept until `turn` returns, not longer."""

    def turn(self) -> Turned:
        """All mail of the superstep has been delivered."""

    def snapshot(self, sink: Sink) -> None:
        """Write what is needed to go on from here beside the graph blob: state, inbox, active bits, graph changes.

        Called between `turn` and `compute`. The same state gives the same bytes.
        """

    def restore(self, data: memoryview) -> None:
        """Become what wrote this snapshot. `data` stays as long as the partition wants it (a mapped file)."""

    def rows(self) -> Iterator[tuple[object, object]]:
        """(id, value) of every vertex, for the output."""


class Form(Protocol):
    """What makes the partitions of a form (`objects.ObjectForm`, `arrays.ArrayForm`): one a worker process and job.

    Both are made as ``Form(program, settings)``: the user's program, made and with its options set, and
    `p2premap.vertex.plan.Settings`.
    """

    @property
    def program(self) -> Program:
        """The hooks that the barrier calls."""

    def partition(self, number: int, graph: memoryview | None) -> Partition:
        """The partition of this number over its graph blob (None: the form keeps no graph blob, or it is empty)."""
