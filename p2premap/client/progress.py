"""A bar for many futures, or a job, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent import futures
from typing import TYPE_CHECKING, TypeVar, overload

from p2premap.client.future import as_completed

if TYPE_CHECKING:
    from rich.console import Console

    from p2premap.client.handle import Job

T = TypeVar("T")


@overload
def progress(fs: Job, title: str = ..., *, console: Console | None = ...) -> Job: ...
@overload
def progress(
    fs: Iterable[futures.Future[T]], title: str = ..., *, console: Console | None = ...
) -> list[futures.Future[T]]: ...
def progress(
    fs: Job | Iterable[futures.Future[T]], title: str = "", *, console: Console | None = None
) -> Job | list[futures.Future[T]]:
    """Wait until all of these have their results, or a job is over, with a bar that says how far; returns them.

    Args:
        title: beside the bar; "": "calls", or the job's name.
        console: where it is drawn; by default where stderr goes, or in the cell of a notebook.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from p2premap.client.handle import Job

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True)) as bar:
        if isinstance(fs, Job):
            task = bar.add_task(title)
            for view in fs.watch():
                done = sum(stage.done for stage in view.stages)
                tasks = sum(stage.tasks for stage in view.stages)
                bar.update(task, description=title or f"{view.name}, {view.phase}", completed=done, total=tasks)
            return fs
        waited = list(fs)
        task = bar.add_task(title or "calls", total=len(set(waited)))
        for _ in as_completed(waited):
            bar.advance(task)
    return waited
