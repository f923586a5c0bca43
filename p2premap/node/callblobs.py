"""What calls leave in a node's store, by job: once a job of calls is over, nobody can ask for any of it again.

Its futures ended with the program that made them. Other jobs' results stay for days, as people come back for them;
arrays of calls would fill a disk in an hour. What is not noted, as the node was started anew meanwhile, goes with what
is old (`p2premap.node.upkeep`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from p2premap.ids import Digest, JobId
from p2premap.tasks.calls import RUNTIME
from p2premap.tasks.events import RunBatch, SlotReported


class CallBlobs:
    """The blobs that only jobs of calls need: what was put for them, what their calls read here, and their results."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, set[Digest]] = {}
        self._users: Counter[Digest] = Counter()
        self._batches: dict[int, JobId] = {}

    def note(self, job: JobId, digests: Iterable[Digest]) -> None:
        """The job needs these."""
        known = self._jobs.setdefault(job, set())
        fresh = set(digests) - known
        known |= fresh
        self._users.update(fresh)

    def hear(self, event: RunBatch | SlotReported) -> None:
        """What a batch reads and makes."""
        match event:
            case RunBatch(runtime=runtime, job=job, batch=batch, attempts=attempts) if runtime == RUNTIME:
                self._batches[batch] = job
                if sources := [source.digest for attempt in attempts for source in attempt.sources]:
                    self.note(job, sources)
            case SlotReported(batch=batch, ends=ends, batch_over=over) if batch in self._batches:
                if made := [blob.digest for end in ends for blob in end.blobs]:
                    self.note(self._batches[batch], made)
                if over:
                    del self._batches[batch]
            case _:
                pass

    def forget(self, job: JobId) -> set[Digest]:
        """The job is over: what no other job needs."""
        gone = self._jobs.pop(job, set())
        self._users.subtract(gone)
        free = {digest for digest in gone if not self._users[digest]}
        for digest in free:
            del self._users[digest]
        return free
