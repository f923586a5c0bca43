"""How a running job looks: a live picture on a terminal, calm lines in a pipe, nothing beside JSON.

Everything goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from p2premap.cli.show import clean, count, say, table
from p2premap.client.amounts import duration, size
from p2premap.ids import NOBODY
from p2premap.tasks.job import JobView, StageView

if TYPE_CHECKING:
    from p2premap.cli.convergence import Convergence

LINE_S = 1.0
"""In a pipe, at most one line in this time, unless something happened that is worth one."""
RATE_WINDOW_S = 8.0
FIRST_RESULTS = 8
"""Before an eighth of a stage's tasks is done, its end is anybody's guess."""


class Progress(Protocol):
    """Shows a job while it runs; a context manager round the watching."""

    def __enter__(self) -> Progress:
        """Start showing."""

    def __exit__(self, *_: object) -> None:
        """Show the last state and leave the terminal as it was."""

    def update(self, view: JobView) -> None:
        """The job has changed."""

    def collected(self, parts: int, size_bytes: int) -> None:
        """So many parts, so many bytes, have been brought here."""


def progress_for(*, as_json: bool, plot: bool = False) -> Progress:
    """What fits the place where standard error goes.

    Args:
        plot: draw how a vertex job converges.
    """
    if as_json:
        return _Silent()
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from p2premap.cli.live import LiveProgress  # rich costs 65 ms, and draws nothing in a pipe

        return LiveProgress(plot=plot)
    return PlainProgress(plot=plot)


class _Silent:
    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, view: JobView) -> None:
        pass

    def collected(self, parts: int, size_bytes: int) -> None:
        pass


class Rate:
    """Bytes and tasks a second of the stage that runs, over the last few seconds, and how long it will take."""

    def __init__(self) -> None:
        self._stage = -1
        self._seen: deque[tuple[float, int, int]] = deque()

    def feed(self, now: float, stage: StageView) -> None:
        """The stage's numbers at this instant."""
        if stage.number != self._stage:
            self._stage = stage.number
            self._seen.clear()
        self._seen.append((now, stage.bytes_done, stage.done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_WINDOW_S:
            self._seen.popleft()

    def bytes_per_s(self) -> float:
        """0 where not known."""
        return self._per_s(1)

    def left_s(self, stage: StageView) -> float | None:
        """Seconds until the stage's end at the present rate; None where not known.

        The first results come late, with the start of the worker processes in them: they promise nothing.
        """
        if stage.done * FIRST_RESULTS < stage.tasks:
            return None
        if stage.bytes_in and (rate := self._per_s(1)) > 0:
            return max(stage.bytes_in - stage.bytes_done, 0) / rate
        if (rate := self._per_s(2)) > 0:
            return (stage.tasks - stage.done) / rate
        return None

    def _per_s(self, column: int) -> float:
        if len(self._seen) < 2 or (passed := self._seen[-1][0] - self._seen[0][0]) < 0.2:
            return 0.0
        return (self._seen[-1][column] - self._seen[0][column]) / passed


def leaderless(view: JobView) -> bool:
    """Whether the job goes on, and nobody leads it just now."""
    return view.leader == NOBODY and not view.phase.over


def state_word(view: JobView) -> str:
    """What the job does: its phase, or why that is not known."""
    if leaderless(view):
        return "no leader"
    if not view.stages and not view.phase.over:
        return "no answer"  # of its leader: this is what another node keeps of it
    return view.phase.value


def share_line(view: JobView) -> str:
    """Who did how many tasks: "pi1 40 %, pi2 60 %"."""
    done = sum(tasks for _, tasks in view.nodes)
    return ", ".join(f"{clean(name)} {tasks / done:.0%}" for name, tasks in sorted(view.nodes)) if done else ""


def trouble_line(stage: StageView) -> str:
    """Attempts that did not succeed, or ""."""
    parts = [count(stage.failed_attempts, "failed attempt")] if stage.failed_attempts else []
    if stage.lost_attempts:
        parts.append(f"{stage.lost_attempts} lost with their node")
    return ", ".join(parts)


class News:
    """What is worth a line of its own: a takeover, a fork, something to wait for."""

    def __init__(self) -> None:
        self._before: JobView | None = None
        self._note = ""
        self._convergence: Convergence | None = None

    def of(self, view: JobView) -> list[str]:
        """What this view says that the one before did not."""
        before, self._before = self._before, view
        found = []
        if before is not None and view.leader not in (before.leader, NOBODY):
            instead = "" if before.leader == NOBODY else f", in place of {clean(before.leader_name)}"
            found.append(f"{clean(view.leader_name)} leads the job now{instead}.")
        if view.note and view.note != self._note:
            self._note = view.note
            found.append(clean(view.note))
        if view.unmet and (before is None or view.unmet != before.unmet):
            found += table(("NODE", "LACKS", "HAS"), view.unmet).splitlines()
        if view.fork and (before is None or view.fork != before.fork):
            found.append(
                f"Most nodes of the job's ledger are out of reach: it goes on as the fork {clean(view.fork)} "
                "(see docs/failover.md)."
            )
        return found

    def converged(self, view: JobView) -> list[str]:
        """What a vertex job tells beside: a line a superstep."""
        if not view.told:
            return []
        if self._convergence is None:
            from p2premap.cli.convergence import Convergence  # with the records of a kind that most jobs are not of

            self._convergence = Convergence()
        return self._convergence.of(view)


def shown(view: JobView) -> JobView:
    """The job with stages as people want to see them."""
    if not view.told:
        return view
    from p2premap.cli.convergence import stages_shown

    return stages_shown(view)


class PlainProgress:
    """Lines that read well in a log file.

    Args:
        plot: see `progress_for`.
    """

    def __init__(self, *, plot: bool = False) -> None:
        self._plot = plot
        self._last: JobView | None = None
        self._said_at = -LINE_S
        self._said = ""
        self._rate = Rate()
        self._news = News()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is None:
            return
        self._say_stage(self._last, time.monotonic())
        if self._plot and self._last.told:
            from p2premap.cli.convergence import plot_of

            for line in plot_of(self._last):
                say(line)

    def update(self, view: JobView) -> None:
        """A line for news at once, one for numbers at most every second."""
        now = time.monotonic()
        view = shown(view)
        before, self._last = self._last, view
        for text in self._news.of(view):
            say(text)
        if before is not None and len(view.stages) > len(before.stages) and before.stages:
            self._say_stage(before, now, view.stages[len(before.stages) - 1])
        for text in self._news.converged(view):
            say(text)
        if view.stages:
            self._rate.feed(now, view.stages[-1])
        if now - self._said_at >= LINE_S and not leaderless(view):
            self._say_stage(view, now)

    def collected(self, parts: int, size_bytes: int) -> None:
        """Nothing: the last line of `run` tells it."""

    def _say_stage(self, view: JobView, now: float, stage: StageView | None = None) -> None:
        if not view.stages:
            return
        epochs = view.told and (stage or view.stages[-1]).name == "supersteps"
        text = (self._epochs_text if epochs else self._text)(stage or view.stages[-1])
        if text != self._said and not (epochs and stage is not None):  # what came of it stands there, row by row
            self._said, self._said_at = text, now
            say(text)

    def _epochs_text(self, stage: StageView) -> str:
        """Of a stage that is done again and again: what of it is done says little."""
        trouble = trouble_line(stage)
        return f"{stage.name}: {count(stage.tasks, 'partition')}{', ' if trouble else ''}{trouble}"

    def _text(self, stage: StageView) -> str:
        parts = [f"{clean(stage.name)}: {stage.done} of {count(stage.tasks, 'task')}"]
        if stage.done < stage.tasks:
            parts.append(f"{stage.running} running")
            if (rate := self._rate.bytes_per_s()) > 0:
                parts.append(f"{size(rate)}/s")
            if (left := self._rate.left_s(stage)) is not None:
                parts.append(f"about {duration(left)} left")
        if trouble := trouble_line(stage):
            parts.append(trouble)
        return ", ".join(parts)
