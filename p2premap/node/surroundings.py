"""What the slots of an executor share. Apart from them: a node starts without what only a slot at work needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from p2premap.ids import Digest
from p2premap.node.blobs import BlobStore
from p2premap.node.staging import Stager
from p2premap.tasks.events import AttemptGoesOn, AttemptWaits, SlotReported
from p2premap.tasks.job import Outcome

if TYPE_CHECKING:
    from p2premap.tasks.meeting import Meeting
    from p2premap.worker.messages import Table


class Counters(msgspec.Struct):
    """What the executor has done so far."""

    started: int = 0
    aside: int = 0
    attempts: dict[Outcome, int] = msgspec.field(default_factory=dict)


class Surroundings(NamedTuple):
    """What all slots of an executor share.

    Args:
        blobs: this node's store.
        stager: brings sources.
        logs: the directory of logs.
        work: the directory of process directories.
        log_bytes_max: of one attempt.
        deliver: is told what ended.
        counters: of the executor.
        interpreter: of an environment; "": it has been removed.
        table: whom the process of a gang meets.
    """

    blobs: BlobStore
    stager: Stager
    logs: str
    work: str
    log_bytes_max: int
    deliver: Callable[[SlotReported | AttemptWaits | AttemptGoesOn], None]
    counters: Counters
    interpreter: Callable[[Digest], str]
    table: Callable[[Meeting], Table] | None = None
