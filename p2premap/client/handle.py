"""A job as a program handles it: how far it is, what it came to, its end; from any node, by its id.

A job does not depend on who handed it in. So a `Job` holds no connection and no thread: each question opens a line to
whatever node answers, and another program that knows the id has the same job (`Cluster.job`).
"""

from __future__ import annotations

import html
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeAlias

from p2premap.client.connection import RequestRefused
from p2premap.client.directories import PartsDirectory, UrlDirectory
from p2premap.client.jobs import LOOK_S, Connect, follow, raise_unless_done, read_log
from p2premap.client.jobs import cancel as cancel_job
from p2premap.client.outputparts import OutputPart
from p2premap.client.session import Collector, see_through, whole_view
from p2premap.client.shapes import JobShape
from p2premap.control.answers import Trouble
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import JobError, JobFailed, JobLost, P2PRemapError, RemoteProtocolError
from p2premap.ids import JobId
from p2premap.tasks.calls import KIND as CALLS
from p2premap.tasks.job import SAVED_PARTS_FIRST, JobView, Phase
from p2premap.worker.urls import is_url
from p2premap.worker.waiting import waiting

GLANCE_S: Final = 1.0
"""So long a node may take to say how a job is, although somebody waits for less; a representation waits no longer."""
OVERWRITE: Final = "overwrite=True"
_ERROR_CHARACTERS: Final = 200

Directory: TypeAlias = PartsDirectory | UrlDirectory


class Job:
    """A job of the cluster. `Cluster.map_reduce` and `Cluster.job` make these.

    It goes on without its program. Iterating gives what it came to, once it is over: of map/reduce and vertex jobs
    (key, value) pairs, part by part, of actions the results.

    Args:
        connect: opens a connection to any daemon.
        job: that was handed in.
        target: where `wait` has its parts written; None: they stay on the nodes.
    """

    def __init__(self, connect: Connect, job: JobId, *, target: PartsDirectory | None = None) -> None:
        self._connect = connect
        self._job = job
        self._target = target
        self._collector = Collector(connect, target, whole_parts=True)
        self._collecting = threading.Lock()
        self._delivered = target is None
        self._seen: JobView | None = None
        self._end: JobView | None = None
        """Its last view, with all that it says."""

    @property
    def id(self) -> str:
        """As the command line shows and takes it."""
        return self._job.hex()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self._job)

    def __reduce__(self) -> tuple[Callable[[str], Job], tuple[str]]:
        """In a call it is the same job."""
        return _again, (self.id,)

    @property
    def _writes_here(self) -> bool:
        """Its output goes to a directory of this machine, where `wait` writes it."""
        return self._target is not None

    @property
    def _settled(self) -> bool:
        """It is known to be over, and nothing is left to be written here."""
        return self._end is not None and (self._delivered or self._end.phase is not Phase.DONE)

    # --- how far it is ----------------------------------------------------------------------------------------------

    def status(self) -> JobShape:
        """The job in numbers and words, as `p2premap jobs --json` has it (docs/cli.md).

        Raises:
            JobLost: no node that answers knows it.
            NodeUnavailable: no node answers.
        """
        return JobShape.of(self._look())

    @property
    def state(self) -> str:
        """ "waiting", "running", "done", "failed" or "cancelled". Raises as `status`."""
        return self._look().phase.value

    @property
    def progress(self) -> float:
        """What is done of the tasks that are planned so far, 0 to 1. Raises as `status`."""
        return self.status().progress

    def done(self) -> bool:
        """Whether it is over, well or not. Raises as `status`."""
        return self._look().phase.over

    def watch(self) -> Iterator[JobShape]:
        """Its status whenever that changes, until it is over. Raises as `status`."""
        views = (view for view in follow(self._connect, self._job, known=True) if view is not None)
        while True:
            with waiting():
                view = next(views, None)
            if view is None:
                return
            self._note(view)
            yield JobShape.of(view)

    def logs(self) -> str:
        """What its attempts have printed, as far as the nodes that have it answer. Raises as `status`."""
        with self._connect() as connection:
            return b"".join(read_log(connection, self._job)).decode(errors="replace")

    # --- its end ----------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is over, and its parts are where they were to be written; False where the time is over before.

        Args:
            timeout: seconds; a part that is being fetched then is fetched to its end all the same.

        Raises:
            JobLost: no node that answers knows it, or has its output.
            OutputFailed: a part cannot be written; the job is well.
            NodeUnavailable: no node answers.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with waiting():
            if not self._collecting.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
                return False
            try:
                return self._is_delivered(until)
            finally:
                self._collecting.release()

    def result(self, timeout: float | None = None) -> list[Any]:
        """All that it came to, as a list; iterate over the job to have it part by part.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it is not over by then; it goes on.
            JobFailed: with the remote traceback.
            JobCancelled: somebody ended it.
            JobError: its results are no such thing, but files: `parts` has them.
        """
        self._ended_well(timeout)
        return list(self._records(""))

    def exception(self, timeout: float | None = None) -> JobError | None:
        """Why it did not succeed, or None.

        Raises:
            TimeoutError: it is not over by then.
        """
        try:
            self._ended_well(timeout)
        except JobLost:
            raise
        except JobError as error:
            return error
        return None

    def cancel(self) -> bool:
        """End it; returns when no attempt of it runs any more. False: it was over already.

        Raises:
            JobLost, NodeUnavailable: as `status`.
        """
        if self.done():
            return False
        with known(self.id), self._connect() as connection:
            cancel_job(connection, self._job, "by a program")
        return self._look().phase is Phase.CANCELLED

    def __iter__(self) -> Iterator[Any]:
        self._ended_well(None)
        return self._records("")

    def results(self, of: str = "") -> Iterator[Any]:
        """What it came to, part by part, once it is over.

        Args:
            of: only the output of this name, where the job has several (`sets`).

        Raises:
            JobFailed, JobCancelled, JobError: as `result`.
        """
        self._ended_well(None)
        return self._records(of)

    def parts(self) -> list[OutputPart]:
        """The output parts that are there, also while it goes on. Raises as `status`."""
        with known(self.id):
            view = self._end or whole_view(self._connect, self._job)
        self._note(view)
        return [OutputPart(self._connect, view, part) for part in view.parts]

    def save(self, place: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Wait for its end, and write its parts as they are to a directory or a URL.

        Args:
            overwrite: the parts of an earlier job there are replaced.

        Raises:
            ConfigError: it cannot be written there, or holds the parts of an earlier job.
            JobFailed, JobCancelled, JobLost, OutputFailed: as `result` and `wait`.
        """
        target = directory(os.fspath(place), overwrite=overwrite)
        view = self._ended_well(None)
        try:
            Collector(self._connect, target).take(view)
        except BaseException:
            target.discard()
            raise
        target.deliver()

    # --- as people see it -------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        view = self._glance()
        return f"<Job {self.id[:8]}>" if view is None else f"<Job {self.id[:8]} {view.name}: {said(view)}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        view = self._glance()
        if view is None:
            return f"job <code>{self.id[:8]}</code>"
        bar = f'<progress max="1" value="{JobShape.of(view).progress:.3f}"></progress>'
        detail = f"<pre>{html.escape(view.detail)}</pre>" if view.detail else ""
        name = f"<b>{html.escape(view.name)}</b>, job <code>{self.id[:8]}</code>"
        return f"{name}<br>{bar} {html.escape(said(view))}{detail}"

    # --- within -----------------------------------------------------------------------------------------------------

    def _note(self, view: JobView) -> None:
        self._seen = view
        if view.phase.over and len(view.parts) == view.part_count:
            self._end = view

    def _look(self, tick: Callable[[], None] = lambda: None) -> JobView:
        """How it is now. `tick` is called twice a second or so meanwhile, and may raise to stop."""
        if self._end is not None:
            return self._end
        ask = partial(Watch, job=self._job, once=True)
        with known(self.id), self._connect(tick=tick) as connection:
            update, _ = next(connection.stream(lambda n: ask(request=n), JobUpdate, tick=tick))
        view = update.view
        if view.phase.over:
            with known(self.id):
                view = whole_view(self._connect, self._job, tick)
        self._note(view)
        return view

    def _glance(self) -> JobView | None:
        """What is known of it within a moment."""
        with suppress(_TimeIsOver, P2PRemapError, RemoteProtocolError):
            return self._look(_until(time.monotonic() + GLANCE_S))
        return self._seen

    def _is_delivered(self, until: float | None) -> bool:
        glance = _until(None if until is None else max(until, time.monotonic() + GLANCE_S))
        try:
            if not self._look(glance).phase.over:
                tick, look_s = _until(until), LOOK_S
                if until is not None:
                    look_s = min(max(until - time.monotonic(), 0.001), LOOK_S)
                with known(self.id):
                    see_through(self._connect, self._job, self._collector, self._note, tick, known=True, look_s=look_s)
                if self._end is None:  # who said so did not have all its parts
                    self._look(glance)
        except _TimeIsOver:
            return False
        if self._end is None:
            raise JobLost(f"No node that answers can tell how the job {self.id[:8]} ended; try again.", job=self.id)
        if self._target is not None and self._end.phase is not Phase.DONE:
            self._target.discard()
        elif self._target is not None and not self._delivered:
            self._collector.take(self._end)
            self._target.deliver()
            self._delivered = True
        return True

    def _ended_well(self, timeout: float | None) -> JobView:
        if not self.wait(timeout):
            raise TimeoutError(f"Job {self.id[:8]} is not over after {timeout:g} s; it goes on.")
        assert self._end is not None
        raise_with_traceback(self._end)
        return self._end

    def _records(self, of: str) -> Iterator[Any]:
        assert self._end is not None
        if self._end.kind == CALLS:
            raise JobError(
                f"Job {self.id[:8]} is of a program's calls: what they return is in its futures.", job=self.id
            )
        parts = [part for part in self.parts() if part.number < SAVED_PARTS_FIRST]
        if of:
            sets = dict.fromkeys(part.set for part in parts)
            parts = [part for part in parts if part.set == of]
            if not parts:
                there = f"there is {', '.join(sets)}" if any(sets) else "it has one only"
                raise JobError(f"Job {self.id[:8]} has no output {of!r}: {there}.", job=self.id)
        return (record for part in parts for record in part)


class _TimeIsOver(Exception):
    """Nobody waits any longer."""


def _until(instant: float | None) -> Callable[[], None]:
    """What raises `_TimeIsOver` from that instant (of the monotonic clock) on; None: never."""

    def tick() -> None:
        if instant is not None and time.monotonic() >= instant:
            raise _TimeIsOver

    return tick


@contextmanager
def known(job: str) -> Iterator[None]:
    """Around questions about a job.

    Raises:
        JobLost: the node that answers does not know it, and knows nobody who does.
    """
    try:
        yield
    except RequestRefused as error:
        if error.trouble is not Trouble.NOT_FOUND:
            raise
        raise JobLost(str(error), job=job) from None


def raise_with_traceback(view: JobView) -> None:
    """As `raise_unless_done`, with the remote traceback as the cause, so that whoever sees one sees the other."""
    try:
        raise_unless_done(view)
    except JobFailed as error:
        if not error.detail:
            raise
        from p2premap.client.pickles import RemoteTraceback

        raise error from RemoteTraceback(error.detail)


def said(view: JobView) -> str:
    """A job in a few words."""
    match view.phase:
        case Phase.FAILED | Phase.CANCELLED:
            text = f"{view.phase.value}: {view.error}" if view.error else view.phase.value
            return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 3] + "..."
        case Phase.DONE:
            records = sum(part.records for part in view.parts)
            counted = f", {records:,} records" if records else ""
            return f"done, {view.part_count} part{'s' * (view.part_count != 1)}{counted}"
        case _ if not view.stages:
            return view.note or view.phase.value
        case _:
            stage = view.stages[-1]
            tasks = f"{stage.done} of {stage.tasks} tasks" if stage.tasks else "no tasks yet"
            return f"{view.phase.value}, {stage.name}: {tasks}" + (f" ({view.note.rstrip('.')})" if view.note else "")


def directory(place: str, *, overwrite: bool) -> Directory:
    """Where output is to go.

    Raises:
        ConfigError: it cannot be written there, or holds the parts of an earlier job.
    """
    return (UrlDirectory if is_url(place) else PartsDirectory)(place, overwrite=overwrite, said=OVERWRITE)


def _again(job: str) -> Job:
    from p2premap.client.connecting import current  # which makes these

    return current().job(job)
