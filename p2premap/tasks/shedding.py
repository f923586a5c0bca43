"""Blobs that nobody needs any more go while their job runs (`StagePlan.passing`).

Of a vertex job, every epoch is a stage, and what it yields is the state of the whole graph: after an hour there would
be a thousand of them on the disks. The stage that runs reads what the one before has yielded; should all holders of
that be lost, it is made again from what the one before that has yielded. What is older goes, wherever it is: everything
that a task of it has yielded, chosen or not.

A fork sheds nothing: the lineage that it came from may not be as far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2premap.ids import Digest, NodeId
from p2premap.tasks import messages

if TYPE_CHECKING:
    from p2premap.tasks.state import JobState

KEPT: Final = 2
"""Stages before the last one whose blobs stay."""


def shed(state: JobState) -> None:
    """A stage has been planned: what was only kept for the ones before it goes."""
    if state.fork or len(state.runs) < KEPT + 2:
        return
    run = state.runs[-KEPT - 2]
    if run.shed or not run.plan.passing:
        return
    run.shed = True
    blobs: dict[NodeId, dict[Digest, None]] = {}
    for task in range(run.tasks):
        for fact in run.facts.facts(task):
            blobs.setdefault(fact.node, {}).update((b.digest, None) for b in run.facts.results.blobs(fact.result))
    for node, digests in blobs.items():
        worker = state.workers.all.get(node)
        if digests and worker is not None and not worker.lost:
            state.say(node, messages.Shed(job=state.job, blobs=tuple(digests)))
