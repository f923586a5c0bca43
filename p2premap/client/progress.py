"""A bar for many futures, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent import futures
from typing import TYPE_CHECKING, TypeVar

from p2premap.client.future import as_completed

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def progress(
    fs: Iterable[futures.Future[T]], title: str = "calls", *, console: Console | None = None
) -> list[futures.Future[T]]:
    """Wait until all of these have their results, with a bar that says how far they are; returns them.

    Args:
        console: where it is drawn; by default where stderr goes, or in the cell of a notebook.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    waited = list(fs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True)) as bar:
        task = bar.add_task(title, total=len(set(waited)))
        for _ in as_completed(waited):
            bar.advance(task)
    return waited
