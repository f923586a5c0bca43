"""The JSON that ``--json`` prints, documented in docs/cli.md. Keys are added over time, never renamed or removed."""

from __future__ import annotations

from typing import cast

import msgspec

from p2premap.client.shapes import JobShape, NodeShape, StatusShape
from p2premap.control.nodes import Finding, NodeView, Status
from p2premap.tasks.job import JobView

Json = dict[str, object]


def node_shape(view: NodeView) -> Json:
    """One object of ``nodes --json``."""
    return cast("Json", msgspec.to_builtins(NodeShape.of(view)))


def status_shape(status: Status, jobs: list[JobView]) -> Json:
    """``status --json``, with what the jobs that are listed wait for."""
    return cast("Json", msgspec.to_builtins(StatusShape.of(status, map(JobShape.of, jobs))))


def finding_shape(finding: Finding) -> Json:
    """One object of ``doctor --json``."""
    return {"ok": finding.ok, "about": finding.about, "text": finding.text, "remedy": finding.remedy}


def job_shape(view: JobView) -> Json:
    """One object of ``jobs --json``, and what ``watch --json`` and ``run --json`` print."""
    shape = cast("Json", msgspec.to_builtins(JobShape.of(view)))
    if not view.told:
        return shape
    from p2premap.cli.convergence import told_shape  # with the records of a kind that most jobs are not of

    return {**shape, **told_shape(view)}
