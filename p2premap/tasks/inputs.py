"""The files of one machine that a job reads: what replicas copy so that the job outlives that machine.

A kind whose tasks read files of the machine that submitted the job says so by satisfying `ReadsInputs`. Where they
are small enough in all, or it is asked for (`JobOptions.stage_inputs`), each replica of the job copies them and is then
one more holder; else they stay where they are, and the job depends on that machine until their last byte has been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol, runtime_checkable

from p2premap.ids import NodeId
from p2premap.tasks.director import Director
from p2premap.tasks.job import JobOptions, Source

COPIED_BYTES_MAX: Final = 64 << 20
"""Inputs up to so much in all are copied to every replica: less than a second at 1 Gbit/s."""


@runtime_checkable
class ReadsInputs(Protocol):
    """A director whose tasks read files of the machine that submitted the job."""

    home: NodeId
    """The node that the job was submitted to."""

    input_bytes: int
    """Of all inputs."""

    def input_files(self) -> Iterable[str]:
        """The absolute paths of the files, each once."""

    def inputs(self) -> Iterable[Source]:
        """All of them, as the tasks read them, in order."""

    def spread(self, holders: Sequence[NodeId]) -> None:
        """These nodes have copies of all inputs: name them as holders, after the one that submitted the job."""


def _copied(inputs: ReadsInputs, options: JobOptions) -> bool:
    return options.stage_inputs or inputs.input_bytes <= COPIED_BYTES_MAX


def to_copy(director: Director, options: JobOptions) -> tuple[Source, ...]:
    """What a replica copies; nothing where there is nothing, or too much."""
    if not isinstance(director, ReadsInputs) or not _copied(director, options):
        return ()
    return tuple(director.inputs())


def name_holders(director: Director, options: JobOptions, replicas: Sequence[NodeId]) -> None:
    """Tell a director that the job's replicas hold its inputs, where they copy them."""
    if isinstance(director, ReadsInputs) and _copied(director, options):
        director.spread(replicas)


def depends_on(director: Director, options: JobOptions) -> NodeId | None:
    """The node without whose machine the job cannot go on, because its inputs are only there; None: it can."""
    if not isinstance(director, ReadsInputs) or _copied(director, options):
        return None
    return director.home


def dependence(director: Director, options: JobOptions, machine: str) -> str:
    """A sentence where the job cannot go on without one machine's files; "" where it can.

    Args:
        machine: the name of the node that it `depends_on`.
    """
    if not isinstance(director, ReadsInputs) or depends_on(director, options) is None:
        return ""
    size = director.input_bytes
    amount = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return f"Its inputs ({amount}) are only on {machine}: without that machine the job waits for it."
