"""The live picture of a job on a terminal. The only part of the watching that needs rich."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from p2premap.cli.progress import News, Progress, Rate, leaderless, share_line, shown, state_word, trouble_line
from p2premap.cli.show import clean, count
from p2premap.client.amounts import duration, size
from p2premap.tasks.job import JobView, Phase, StageView

FRAMES_PER_S = 8
WIDE_CELLS = 100
BAR_CELLS = 28
NARROW_BAR_CELLS = 12
"""In a terminal of less than `WIDE_CELLS`: the words beside it say more."""

_COLOURS = {Phase.DONE: "green", Phase.FAILED: "red", Phase.CANCELLED: "yellow"}


class LiveProgress:
    """Bars by stage, rate and time left, who works; redrawn in place, and left standing at the end.

    Args:
        plot: see `p2premap.cli.progress.progress_for`.
    """

    def __init__(self, console: Console | None = None, *, plot: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._plot = plot
        self._plotted: tuple[bytes, Text] = b"", Text()
        self._view: JobView | None = None
        self._seen_at = time.monotonic()
        self._rate = Rate()
        self._news = News()
        self._spinner = Spinner("dots")
        self._collected = ""
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=FRAMES_PER_S, redirect_stdout=False
        )

    def __enter__(self) -> Progress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, view: JobView) -> None:
        """News go above the picture, for good; the rest is the picture."""
        now = time.monotonic()
        if self._view is None or view.age_s != self._view.age_s:  # else nobody leads it: its clock goes on here
            self._seen_at = now
        self._view = view = shown(view)
        for text in self._news.of(view):
            self._console.print(Text(text, style="yellow"))
        for text in self._news.converged(view):
            self._console.print(Text(text))
        if view.stages:
            self._rate.feed(now, view.stages[-1])

    def collected(self, parts: int, size_bytes: int) -> None:
        """One more part is here."""
        self._collected = f"{count(parts, 'part')} here, {size(size_bytes)}"

    def _render(self) -> RenderableType:
        view = self._view
        if view is None:
            self._spinner.update(text="handing the job in")
            return self._spinner
        age = view.lasted_s or view.age_s + (0.0 if view.phase.over else time.monotonic() - self._seen_at)
        head = Text.assemble(
            (clean(view.name), "bold"),
            ("  " + view.job.hex()[:8], "dim"),
            "  ",
            (state_word(view), "yellow" if leaderless(view) else _COLOURS.get(view.phase, "cyan")),
            ("  " + duration(age), "dim"),
            ("" if leaderless(view) else f"  led by {clean(view.leader_name)}", "dim"),
        )
        rows = Table.grid(padding=(0, 2))
        for stage in view.stages:
            rows.add_row(*self._stage_row(stage, view))
        lines: list[RenderableType] = [head, rows]
        if self._plot and view.told:
            lines.append(self._plot_of(view))
        foot = "   ".join(text for text in (share_line(view), self._collected) if text)
        if foot:
            lines.append(Text(foot, style="dim"))
        return Group(*lines)

    def _plot_of(self, view: JobView) -> Text:
        """Drawn anew when there is more to draw."""
        if self._plotted[0] != view.told:
            from p2premap.cli.convergence import plot_of

            self._plotted = view.told, Text("\n".join(plot_of(view)), style="dim")
        return self._plotted[1]

    def _stage_row(self, stage: StageView, view: JobView) -> tuple[RenderableType, ...]:
        total, done = (stage.bytes_in, stage.bytes_done) if stage.bytes_in else (stage.tasks, stage.done)
        finished = stage.done >= stage.tasks
        width = BAR_CELLS if self._console.width >= WIDE_CELLS else NARROW_BAR_CELLS
        bar = ProgressBar(total=max(total, 1), completed=max(total, 1) if finished else done, width=width)
        facts = []
        if not finished and not view.phase.over and not leaderless(view) and stage is view.stages[-1]:
            facts.append(f"{stage.running} running")
            if (rate := self._rate.bytes_per_s()) > 0:
                facts.append(f"{size(rate)}/s")
            if (left := self._rate.left_s(stage)) is not None:
                facts.append(f"{duration(left)} left")
        text = Text("  ".join(facts), style="dim")
        if trouble := trouble_line(stage):
            text.append(("  " if facts else "") + trouble, style="yellow")
        return Text(clean(stage.name)), bar, Text(f"{stage.done}/{stage.tasks}"), text
