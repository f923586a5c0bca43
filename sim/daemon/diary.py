"""What a job went through in a virtual cluster, for people: attempts, leaders and losses, as a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from p2premap.ids import JobId
from p2premap.sim.checkers import ENDS, Quiet
from p2premap.sim.jobwishes import JobDeed
from p2premap.sim.machines import Seat
from p2premap.sim.world import World
from p2premap.tasks.events import JobChanged
from p2premap.tasks.job import JobView

COLUMNS: Final = 72
_WIDTH: Final = 960
_ROW: Final = 26
_LEFT: Final = 70
_COLOURS: Final = ("#4878a8", "#6aa84f", "#b0793a", "#8e63a8")


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt that ran to its end."""

    seat: int
    begun: float
    ended: float
    stage: int


@dataclass(slots=True)
class Span:
    """A time of one machine; open while `ended` is None."""

    seat: int
    begun: float
    ended: float | None = None


class Diary(Quiet):
    """An observer of one job.

    Args:
        world: observed from now on.
    """

    kinds: tuple[type, ...] = (JobChanged,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.job: JobId | None = None
        self.ran: list[Ran] = []
        self.deeds: list[JobDeed] = []
        self.down: list[Span] = []
        self.leaders: list[Span] = []
        self.view: JobView | None = None
        self._stages: set[int] = set()
        world.observe(self)

    def note(self, text: str) -> None:
        """Something happened now."""
        self.deeds.append(JobDeed(self.world.now, text))

    def attempt(self, seat: Seat, begun: float, stage: int) -> None:
        """An attempt has just ended there."""
        self.ran.append(Ran(seat.index, begun, self.world.now, stage))

    # --- Observer -------------------------------------------------------------------------------------------------

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, JobChanged) or effect.job != self.job or effect.view.leader != seat.node:
            return
        self.view = effect.view
        if effect.view.phase.over:
            self._close(self.leaders)
        elif not self.leaders or self.leaders[-1].seat != seat.index:
            if self.leaders:
                self.note(f"{seat.name} leads the job: {_progress(effect.view)}")
            self._close(self.leaders)
            self.leaders.append(Span(seat.index, self.world.now))
        for number, stage in enumerate(effect.view.stages):
            if stage.done == stage.tasks and number not in self._stages:
                self._stages.add(number)
                self.note(f"the {stage.tasks} {stage.name} tasks are done")

    def fault(self, seat: Seat, word: str) -> None:
        if word in ENDS or word == "pause":
            self.down.append(Span(seat.index, self.world.now))
            if self.leaders and self.leaders[-1].seat == seat.index and word in ENDS:
                self._close(self.leaders)
        elif word in ("start", "resume"):
            for span in self.down:
                if span.seat == seat.index and span.ended is None:
                    span.ended = self.world.now

    def _close(self, spans: Sequence[Span]) -> None:
        if spans and spans[-1].ended is None:
            spans[-1].ended = self.world.now

    # --- pictures -------------------------------------------------------------------------------------------------

    def text(self, names: Sequence[str]) -> list[str]:
        """One line a machine: a digit or hash where it works, L where it leads, x where it is down."""
        end = self._end()
        lines = []
        for index, name in enumerate(names):
            cells = ["."] * COLUMNS
            for ran in self.ran:
                if ran.seat == index:
                    self._fill(cells, ran.begun, ran.ended, "#" if ran.stage == 0 else str(ran.stage + 1), end)
            for spans, mark in ((self.down, "x"),):
                for span in spans:
                    if span.seat == index:
                        self._fill(cells, span.begun, end if span.ended is None else span.ended, mark, end)
            led = ["L" if self._leads(index, column, end) else " " for column in range(COLUMNS)]
            crown = "".join(led).rstrip()
            lines.append(f"{name:>6} |{''.join(cells)}|{'  led the job' if crown else ''}")
        lines.append(f"{'':6} 0{f'{end:.1f} s':>{COLUMNS}}")
        lines.append("        # 2 3: a task of the first, second, third stage   x: down   .: idle")
        return lines

    def svg(self, names: Sequence[str], title: str) -> str:
        """The same as a picture."""
        end, height = self._end(), 60 + _ROW * len(names) + 30
        scale = (_WIDTH - _LEFT - 20) / end
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="100%" height="100%" fill="white"/><text x="{_LEFT}" y="24">{escape(title)}</text>',
        ]

        def box(seat: int, begun: float, ended: float, colour: str, top: int, tall: int) -> None:
            x, y = _LEFT + begun * scale, 44 + seat * _ROW + top
            width = max(1.0, (ended - begun) * scale)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{tall}" fill="{colour}"/>')

        for index, name in enumerate(names):
            parts.append(f'<text x="{_LEFT - 8}" y="{60 + index * _ROW}" text-anchor="end">{escape(name)}</text>')
            box(index, 0, end, "#f2f2f2", 2, _ROW - 6)
        for span in self.down:
            box(span.seat, span.begun, end if span.ended is None else span.ended, "#d9a0a0", 2, _ROW - 6)
        for ran in self.ran:
            box(ran.seat, ran.begun, ran.ended, _COLOURS[ran.stage % len(_COLOURS)], 6, _ROW - 14)
        for span in self.leaders:
            box(span.seat, span.begun, end if span.ended is None else span.ended, "#d4a017", 2, 3)
        for tick in range(11):
            x = _LEFT + end * tick / 10 * scale
            parts.append(f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle">{end * tick / 10:.1f} s</text>')
        parts.append("</svg>")
        return "\n".join(parts)

    def _end(self) -> float:
        return max([0.1, *(ran.ended for ran in self.ran), *(deed.at for deed in self.deeds)])

    def _leads(self, seat: int, column: int, end: float) -> bool:
        at = (column + 0.5) * end / COLUMNS
        return any(span.seat == seat and span.begun <= at < (span.ended or end) for span in self.leaders)

    @staticmethod
    def _fill(cells: list[str], begun: float, ended: float, mark: str, end: float) -> None:
        first = min(COLUMNS - 1, int(begun / end * COLUMNS))
        last = min(COLUMNS - 1, max(first, int(ended / end * COLUMNS - 1e-9)))
        cells[first : last + 1] = mark * (last + 1 - first)


def _progress(view: JobView) -> str:
    return (
        ", ".join(f"{stage.done} of {stage.tasks} {stage.name} tasks done" for stage in view.stages) or "from the start"
    )
