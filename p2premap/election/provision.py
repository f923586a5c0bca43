"""What a node needs of a job beside the ledger: its plan and its code, brought here from other members, and its inputs.

With plan and code the job can be led from here. It can be *ended* from here only with its inputs, which may take longer
to copy, or be lost with their machine meanwhile. So the home counts as copies in its acknowledgement only nodes that
have all of it (`JobStored.brought`), and a job's leader says which members are still copying (`Ack.copying`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2premap.election.context import Context
from p2premap.election.events import Bring
from p2premap.election.messages import JobStored
from p2premap.election.replica import Replica
from p2premap.ids import NodeId

BRING_AGAIN_S = 2.0
"""What could not be brought here is tried again after so long, from another node."""


class Provision:
    """See the module.

    Args:
        replica: of the job.
        brought: all of it is here.
        announce: called when something of it turns out to be lacking.
    """

    def __init__(self, context: Context, replica: Replica, *, brought: bool, announce: Callable[[], None]) -> None:
        self._context = context
        self._replica = replica
        self._announce = announce
        self.brought = brought
        self.copying = False
        """Inputs are still on their way."""
        self.lacks = ""
        """What is needed to lead it and could not be brought here, as a sentence; "" where nothing."""
        self.tell: NodeId | None = None
        """Who waits to hear that the job is on disk, and all that it needs is here."""
        self._on_disk = False
        self._offers: dict[NodeId, None] = {}
        self._bring_at = math.inf
        self._bring_from: NodeId | None = None

    def deadline(self) -> float:
        """When it is tried again."""
        return self._bring_at

    def tick(self) -> None:
        """Try again, if it is time."""
        if self._bring_at <= self._context.now:
            self.bring(self._next_source())

    def retire(self) -> None:
        """Nothing of the job is needed any more."""
        self._bring_at = math.inf

    def bring(self, source: NodeId) -> None:
        """Have what is needed to lead the job brought here."""
        self._bring_at = math.inf
        self._bring_from = source
        self._context.out.append(Bring(job=self._replica.job, spec=self._replica.record.spec, source=source))

    def bring_from_others(self) -> None:
        """The same, from whichever of those that may have it can be reached."""
        self.bring(self._next_source())

    def offered(self, node: NodeId) -> None:
        """The job was handed in at this node again: it has plan and code, which no member may have any more."""
        if not self.brought and node not in self._replica.members:
            self._offers[node] = None

    def on_brought(self, error: str, *, copying: bool = False) -> None:
        """It is here, or could not be had."""
        self.brought = not error
        self.copying = copying
        self.lacks = error
        if error:
            self._bring_at = self._context.now + BRING_AGAIN_S
        else:
            self._bring_from = None
            self._offers.clear()
        self._announce()
        self._tell_stored()

    def is_stored(self) -> None:
        """The record is on disk."""
        self._on_disk = True
        self._tell_stored()

    @property
    def whole(self) -> bool:
        """Whether the job can be ended from here alone."""
        return self.brought and not self.copying

    def _tell_stored(self) -> None:
        """Whoever had the job stored here is told once, when it is on disk, and whole or known to lack something."""
        if self.tell is not None and self._on_disk and (self.whole or self._bring_at < math.inf):
            node, self.tell = self.tell, None
            self._context.send(node, self.stored())

    def _next_source(self) -> NodeId:
        sources = tuple(dict.fromkeys((*self._replica.members, *self._offers)))
        start = sources.index(self._bring_from) + 1 if self._bring_from in sources else 0
        for node in (*sources[start:], *sources[:start]):
            if node != self._context.me and self._context.reachable(node):
                return node
        return self._context.me

    def stored(self) -> JobStored:
        """That it is on disk here."""
        record = self._replica.record
        return JobStored(job=record.job, promised=record.promised, boot=self._context.boot, brought=self.whole)
