"""How a vertex job converges, for people: a line a superstep, and a small plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from p2premap.cli.show import clean, count
from p2premap.tasks.job import JobView
from p2premap.vertex.plan import KIND, SUPERSTEPS, StepRow
from p2premap.vertex.told import Told, unpack_told

PLOT_COLUMNS: Final = 60
PLOT_ROWS: Final = 8
_LOGARITHMIC: Final = 100.0
"""Where the largest value is so many times the smallest, the plot is of logarithms."""
_VALUES_SHOWN: Final = 3
_CHANGE: Final = ("delta", "changed")
"""Names under which programs tell how much a superstep has changed."""


def told_of(view: JobView) -> Told | None:
    """What a vertex job tells; None of other jobs, and before it tells anything."""
    return unpack_told(view.told) if view.kind == KIND else None


class Convergence:
    """Lines about a vertex job, each told once."""

    def __init__(self) -> None:
        self._told = Told()

    def of(self, view: JobView) -> list[str]:
        """What this view says that the ones before did not."""
        told, before = told_of(view), self._told
        if told is None or told == before:
            return []
        self._told = told
        lines = []
        if told.loaded != before.loaded and told.loaded.bad:
            lines += bad_lines(told)
        if told.vertices and not before.vertices:
            edges = count(told.loaded.edges or told.edges, "edge")  # not those that were turned round as well
            lines.append(f"graph: {count_of(told.vertices, 'vertex', 'vertices')}, {edges}")
        known = before.supersteps
        lines += [row_text(row) for row in told.rows if row.superstep >= known]
        if told.why and told.why != before.why:
            lines.append(clean(told.why))
        if told.dropped and told.why:
            lines.append(f"{count(told.dropped, 'message')} to vertices that do not exist went nowhere.")
        return lines


def bad_lines(told: Told) -> list[str]:
    """Which lines were left out."""
    loaded = told.loaded
    lines = [f"Left out: {clean(text)}" for text in loaded.first_bad]
    if (more := loaded.bad - len(lines)) > 0:
        lines.append(f"Left out: {count(more, 'more line')} that cannot be read.")
    return lines


def row_text(row: StepRow) -> str:
    """A superstep in numbers."""
    values = "".join(f", {clean(name)} {value:.4g}" for name, value in row.values[:_VALUES_SHOWN])
    what = f"{row.computed:,} computed, {row.active:,} active, {count(row.sent, 'message')}"
    return f"superstep {row.superstep}: {what}{values}, {row.seconds:.3f} s"


def row_cells(row: StepRow) -> tuple[str, ...]:
    """The same as cells of a table, see `ROW_HEAD`."""
    values = "  ".join(f"{clean(name)} {value:.4g}" for name, value in row.values[:_VALUES_SHOWN])
    return (str(row.superstep), f"{row.active:,}", f"{row.sent:,}", values, f"{row.seconds:.3f}")


ROW_HEAD: Final = ("superstep", "active", "messages", "", "seconds")


def count_of(number: int, one: str, many: str) -> str:
    """ "1 vertex", "3 vertices"."""
    return f"{number:,} {one if number == 1 else many}"


def plot(rows: Sequence[StepRow]) -> list[str]:
    """The change of each superstep, or how many messages it sent, as lines of text; none where there is nothing."""
    name, points = _series(rows)
    if len(points) < 2:
        return []
    positive = [value for _, value in points if value > 0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    logarithmic = bool(positive) and high > _LOGARITHMIC * min(positive)
    if logarithmic:
        low = min(positive)
    first, last = points[0][0], points[-1][0]
    width = min(PLOT_COLUMNS, last - first + 1)
    field = [[" "] * width for _ in range(PLOT_ROWS)]
    for superstep, value in points:
        if logarithmic and value <= 0:
            continue
        column = (superstep - first) * (width - 1) // max(last - first, 1)
        field[PLOT_ROWS - 1 - _height(value, low, high, logarithmic=logarithmic)][column] = "*"
    labels = {0: f"{high:.3g}", PLOT_ROWS - 1: f"{low:.3g}"}
    margin = max(map(len, labels.values()))
    lines = [f"{name}{' (logarithmic)' if logarithmic else ''}"]
    lines += [f"{labels.get(i, ''):>{margin}} |{''.join(row).rstrip()}" for i, row in enumerate(field)]
    axis = f"{first}{last:>{max(width - len(str(first)), len(str(last)) + 1)}}"
    return [*lines, f"{'':>{margin}} +{'-' * width}", f"{'':>{margin}}  {axis} superstep"]


def plot_of(view: JobView) -> list[str]:
    """`plot` of what a view tells."""
    told = told_of(view)
    return [] if told is None else plot(told.rows)


def _series(rows: Sequence[StepRow]) -> tuple[str, list[tuple[int, float]]]:
    """What is plotted: its name, and (superstep, value)."""
    for name in _CHANGE:
        points = [
            (row.superstep, value) for row in rows for key, value in row.values if key == name and math.isfinite(value)
        ]
        if len(points) > 1:
            return name, points
    return "messages", [(row.superstep, float(row.sent)) for row in rows]


def _height(value: float, low: float, high: float, *, logarithmic: bool) -> int:
    if logarithmic:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return round((value - low) / (high - low) * (PLOT_ROWS - 1)) if high > low else 0


def told_shape(view: JobView) -> dict[str, object]:
    """What JSON says of a vertex job beside what it says of any job; nothing of others."""
    told = told_of(view)
    if told is None:
        return {}
    rows = [
        {
            "superstep": row.superstep,
            "computed": row.computed,
            "active": row.active,
            "messages": row.sent,
            "dropped": row.dropped,
            "seconds": row.seconds,
            **dict(row.values),
        }
        for row in told.rows
    ]
    return {
        "vertices": told.vertices,
        "edges": told.edges,
        "lines": told.loaded.lines,
        "bad_lines": told.loaded.bad,
        "first_bad_lines": list(told.loaded.first_bad),
        "supersteps": told.supersteps,
        "checkpoints": told.checkpoints,
        "dropped": told.dropped,
        "ended": told.why,
        "convergence": rows,
    }


def stages_shown(view: JobView) -> JobView:
    """The job with the epochs of a vertex job as one stage: each is one, and there may be hundreds."""
    epochs = [stage for stage in view.stages if stage.name == SUPERSTEPS]
    if view.kind != KIND or not epochs:
        return view
    before = [stage for stage in view.stages if stage.number < epochs[0].number]
    behind = [stage for stage in view.stages if stage.number > epochs[-1].number]
    together = msgspec.structs.replace(
        epochs[-1],
        failed_attempts=sum(stage.failed_attempts for stage in epochs),
        lost_attempts=sum(stage.lost_attempts for stage in epochs),
    )
    return msgspec.structs.replace(view, stages=(*before, together, *behind))
