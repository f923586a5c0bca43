"""What several parts of a node share: the latest view of each job, and sentences that a person should read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from p2premap.ids import JobId
from p2premap.tasks.job import JobView

WARNINGS_MAX: Final = 100


class Bulletin:
    """The latest view of each job that is led here, or that this node saw end; and who waits for the next one."""

    def __init__(self) -> None:
        self._views: dict[JobId, JobView] = {}
        self._changed: dict[JobId, trio.Event] = {}
        self._followed: list[set[JobId]] = []

    @contextmanager
    def following(self) -> Iterator[set[JobId]]:
        """Jobs of which something has changed are put into this set; whoever has looked at them takes them out."""
        changed: set[JobId] = set()
        self._followed.append(changed)
        try:
            yield changed
        finally:
            self._followed[:] = [one for one in self._followed if one is not changed]

    def post(self, job: JobId, view: JobView) -> None:
        """A newer view."""
        self._views[job] = view
        self._wake(job)

    def latest(self, job: JobId) -> JobView | None:
        """The latest view; None if there is none (any more)."""
        return self._views.get(job)

    async def after(self, job: JobId, seen: JobView | None) -> JobView | None:
        """The latest view that is not `seen`; waits for it. None: the job is led elsewhere now, or forgotten."""
        if (view := self._views.get(job)) is seen:
            await self._event(job).wait()
            view = self._views.get(job)
        return view

    async def moved(self, job: JobId, *, within_s: float) -> None:
        """Wait until something is known to have changed about the job, or so many seconds."""
        with trio.move_on_after(within_s):
            await self._event(job).wait()

    def move(self, job: JobId) -> None:
        """Somebody else leads the job, or nobody: what was known here is not the latest any more."""
        if (view := self._views.get(job)) is None or not view.phase.over:
            self._views.pop(job, None)
            self._wake(job)

    def forget(self, job: JobId) -> None:
        """The job is not listed any more."""
        self._views.pop(job, None)
        self._wake(job)

    def keep(self, jobs: Iterable[JobId]) -> None:
        """Forget the views of all other jobs; who waits for one of theirs is told so."""
        kept = set(jobs)
        for job in [job for job in self._views if job not in kept]:
            del self._views[job]
            self._wake(job)

    def _event(self, job: JobId) -> trio.Event:
        if (changed := self._changed.get(job)) is None:
            changed = self._changed[job] = trio.Event()
        return changed

    def _wake(self, job: JobId) -> None:
        for changed in self._followed:
            changed.add(job)
        if (event := self._changed.pop(job, None)) is not None:
            event.set()


class Warnings:
    """Sentences that a person should read: each once, the newest last, bounded."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}

    def add(self, text: str) -> None:
        """Remember a sentence; "" is none."""
        if text:
            self._texts.pop(text, None)
            self._texts[text] = None
            if len(self._texts) > WARNINGS_MAX:
                del self._texts[next(iter(self._texts))]

    def all(self) -> tuple[str, ...]:
        """The sentences, the oldest first."""
        return tuple(self._texts)
