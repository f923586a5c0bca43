"""The picture that `top` draws, by rich: nodes, jobs, and the attempts that failed last."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from p2premap.cli.show import clean
from p2premap.client.amounts import duration, size
from p2premap.client.shapes import JobShape, NodeShape, StatusShape
from p2premap.control.nodes import Status
from p2premap.control.web import News
from p2premap.tasks.job import Phase
from p2premap.web.world import Update, World

FRAMES_PER_S: Final = 4
BAR_CELLS: Final = 10
FAILED_SHOWN: Final = 5
RATE_S: Final = 5.0
"""Tasks a second are counted over so long."""
FIXED_LINES: Final = 14
"""Titles, heads and failures."""

T = TypeVar("T")

_STYLES: Final = {
    "alive": "green",
    "dead": "red",
    "suspect": "yellow",
    "stalled": "yellow",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "waiting": "dim",
}


class _Head(NamedTuple):
    """A column.

    Args:
        from_width: of the terminal, in characters; a narrower one goes without it.
        gives: it gets narrower before others do.
    """

    name: str
    right: bool = False
    from_width: int = 0
    gives: bool = False


_NODE_HEADS: Final = (
    _Head("node"),
    _Head("state"),
    _Head("slots", from_width=60),
    _Head("busy", right=True),
    _Head("load", right=True),
    _Head("memory free", right=True),
    _Head("note", from_width=60, gives=True),
)
_JOB_HEADS: Final = (
    _Head("job"),
    _Head("name", gives=True),
    _Head("phase"),
    _Head("progress", from_width=100),
    _Head("", right=True),
    _Head("stage", from_width=100),
    _Head("left", right=True, from_width=60),
    _Head("leader", from_width=60),
    _Head("note", from_width=60, gives=True),
)


class Picture:
    """The cluster as it is now."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._world = World()
        self._trouble = ""
        self._ended: deque[tuple[float, int]] = deque()
        self._failed: deque[tuple[str, str]] = deque(maxlen=FAILED_SHOWN)

    def live(self) -> Live:
        """Drawn on the whole terminal until it is left."""
        return Live(get_renderable=self._render, console=self._console, screen=True, refresh_per_second=FRAMES_PER_S)

    def print(self) -> None:
        """Once, all of it."""
        self._console.print(self._drawn(lines=10_000))

    def everything(self) -> Update:
        """For programs."""
        return self._world.everything()

    def begin(self, status: Status) -> None:
        """A node answers; what another one said is told anew."""
        self._world = World()
        self._trouble = ""
        self.know(status)

    def know(self, status: Status) -> None:
        """How the node is that answers."""
        self._world.know(StatusShape.of(status, self._world.jobs))

    def hear(self, news: News) -> None:
        """A node says something."""
        self._world.hear(news)
        update = self._world.changes()
        now = time.monotonic()
        for task in () if update is None else update.tasks:
            if task.ended_at is None:
                continue
            self._ended.append((now, task.tasks))
            if task.outcome not in ("done", "running", "stopped"):
                node = next((one.name for one in self._world.nodes.values() if one.id == task.node), "?")
                text = f"{task.job[:8]} {task.stage}.{task.task} on {node}: {task.outcome}. {task.error}"
                told = time.strftime("%H:%M:%S", time.localtime(task.ended_at)), clean(text)
                if told not in self._failed:  # another node tells it anew
                    self._failed.append(told)

    def lost(self, why: str) -> None:
        """Nobody answers just now."""
        self._trouble = why

    def _render(self) -> RenderableType:
        return self._drawn(lines=self._console.height)

    def _drawn(self, *, lines: int) -> RenderableType:
        nodes = sorted((n for n in self._world.nodes.values() if n.state != "left"), key=lambda n: (n.name, n.id))
        jobs = sorted(self._world.jobs, key=lambda job: (Phase(job.phase).over, -job.submitted_at))
        room = max(lines - FIXED_LINES, 4)
        shown = max(min(len(nodes), room - min(len(jobs), room // 2)), 1)
        parts: list[RenderableType] = [self._head(nodes)]
        if self._trouble:
            parts.append(Text(clean(self._trouble), style="red"))
        parts += [
            Text(),
            _nodes(nodes, shown, self._console.width),
            Text(),
            _jobs(jobs, max(room - shown, 1), self._console.width),
        ]
        if self._failed:
            parts.append(Text("\nfailed last", style="bold"))
            parts += [Text(f"{at}  {text}", no_wrap=True, overflow="ellipsis") for at, text in self._failed]
        return Group(*parts)

    def _head(self, nodes: list[NodeShape]) -> Text:
        now = time.monotonic()
        while self._ended and now - self._ended[0][0] > RATE_S:
            self._ended.popleft()
        alive = [node for node in nodes if node.state == "alive"]
        cluster = self._world.cluster
        name = (cluster.open_name or cluster.cluster[:8]) if cluster is not None else ""
        busy, slots = sum(node.busy for node in alive), sum(node.slots for node in alive)
        rate = sum(tasks for _, tasks in self._ended) / RATE_S
        text = f"p2premap {name}  {len(alive)} of {len(nodes)} nodes  {busy}/{slots} slots busy  {rate:.1f} tasks/s"
        return Text(f"{text}  {time.strftime('%H:%M:%S')}", style="bold", no_wrap=True, overflow="ellipsis")


def _nodes(nodes: list[NodeShape], most: int, width: int) -> Table:
    table = _table(_NODE_HEADS, width)
    for node in nodes[:most]:
        share = node.busy / node.slots if node.slots else 0.0
        cells: tuple[str | Text, ...] = (
            clean(node.name) + (" *" if node.me else ""),
            Text(node.state, style=_STYLES.get(node.state, "")),
            _bar(share),
            f"{node.busy}/{node.slots}",
            f"{node.load:.0%}",
            size(node.memory_free_bytes),
            _clipped(node.held_back),
        )
        table.add_row(*_fitting(_NODE_HEADS, cells, width))
    if len(nodes) > most:
        table.add_row(Text(f"and {len(nodes) - most} more", style="dim"))
    return table


def _jobs(jobs: list[JobShape], most: int, width: int) -> Table:
    table = _table(_JOB_HEADS, width)
    for job in jobs[:most]:
        stage = job.stages[-1] if job.stages else None
        going = not Phase(job.phase).over
        left = duration(job.age_s * (1 - job.progress) / job.progress) if going and job.progress > 0.02 else ""
        cells: tuple[str | Text, ...] = (
            job.id[:8],
            _clipped(job.name),
            Text(job.phase, style=_STYLES.get(job.phase, "")),
            _bar(job.progress),
            f"{job.progress:.0%}",
            f"{stage.name} {stage.done}/{stage.tasks}" if stage is not None and going else "",
            left,
            clean(job.leader.name) + (f" ({job.takeovers} takeovers)" if job.takeovers else ""),
            _clipped(job.error or job.note),
        )
        table.add_row(*_fitting(_JOB_HEADS, cells, width))
    if len(jobs) > most:
        table.add_row(Text(f"{len(jobs) - most} more", style="dim"))
    return table


def _table(heads: Sequence[_Head], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for head in _fitting(heads, heads, width):
        table.add_column(
            head.name,
            justify="right" if head.right else "left",
            no_wrap=not head.gives,
            max_width=width // 3 if head.gives and head.name != "note" else None,
            overflow="ellipsis",
            ratio=1 if head.name == "note" else None,  # it takes what the others leave
        )
    return table


def _fitting(heads: Sequence[_Head], cells: Sequence[T], width: int) -> list[T]:
    """Those of these columns that a terminal so wide has."""
    return [cell for head, cell in zip(heads, cells, strict=True) if width >= head.from_width]


def _clipped(text: str) -> Text:
    """On one line, however narrow its column."""
    return Text(clean(text), no_wrap=True, overflow="ellipsis")


def _bar(share: float) -> str:
    full = round(max(0.0, min(share, 1.0)) * BAR_CELLS)
    return "█" * full + "░" * (BAR_CELLS - full)
