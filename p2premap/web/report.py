"""The report of a job that is over: one HTML file to keep, without scripts, that fetches nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.responses import Response

from p2premap import __version__
from p2premap.client.amounts import duration, size
from p2premap.tasks.job import JobView
from p2premap.web.endpoints import Call, Endpoint, Media
from p2premap.web.jobs import show, whole_view
from p2premap.web.jobshapes import GraphShape, OneJobShape
from p2premap.web.problems import Problem

STYLE: Final = Path(__file__).parent / "page" / "style.css"
PARTS_MAX: Final = 1_000
"""Further ones are counted."""
_WIDE, _HIGH = 600, 120
_TEXTS: Final = frozenset(("Node", "Stage", "Since", "Why", "Part"))
"""Heads of columns without numbers."""

Row = Sequence[object]


async def get_report(call: Call) -> Response:
    """What became of a job."""
    view = await whole_view(call)
    if not view.phase.over:
        raise Problem(HTTPStatus.CONFLICT, "The job goes on; its report is there when it is over.")
    name = f"{view.job.hex()[:8]}.html"
    return Response(
        page(await show(call, view), view),
        media_type="text/html; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def page(job: OneJobShape, view: JobView) -> str:
    """The file.

    Args:
        job: for its facts.
        view: of the same, for its parts.
    """
    title = escape(job.name or job.id[:8])
    return "".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - p2premap</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE.read_text()}</style>'
            f"</head><body><main><h1>{title} <span class='phase {job.phase}'>{job.phase}</span></h1>",
            _failure(job),
            _facts(job),
            _failed_attempts(job),
            _stages(job),
            _graph(job.graph),
            _section("Work by node", ("Node", "Tasks"), ((one.name, one.tasks) for one in job.nodes)),
            _section("Left out", ("Stage", "Task", "Why"), ((s.stage, s.task, s.error) for s in job.skipped)),
            _section("Who has led it", ("Since", "Node"), ((_clock(t.at), t.leader.name) for t in job.history)),
            _output(view),
            f"<p class='small'>Written by p2premap {escape(__version__)} at {_clock(time.time())}.</p>",
            "</main></body></html>\n",
        )
    )


def _failure(job: OneJobShape) -> str:
    if not job.error:
        return ""
    detail = f"<pre>{escape(job.detail)}</pre>" if job.detail else ""
    return f"<div class='failure'><p>{escape(job.error)}</p>{detail}</div>"


def _facts(job: OneJobShape) -> str:
    facts: dict[str, str] = {
        "Id": job.id,
        "Kind": job.kind,
        "Submitted": _clock(job.submitted_at),
        "Took": duration(job.lasted_s) if job.lasted_s else "",
        "Led by": job.leader.name,
        "Ledger kept by": ", ".join(replica.name for replica in job.replicas),
        "Takeovers": str(job.takeovers),
        "Retries": str(job.retries),
        "Backups of stragglers": str(job.backups),
        "Attempts lost with nodes": str(sum(stage.lost_attempts for stage in job.stages)),
        "Moved between stages": size(moved) if (moved := sum(s.bytes_in for s in job.stages if s.number)) else "",
        "Spilled to disk": size(spilled) if (spilled := sum(s.spilled_bytes for s in job.stages)) else "",
        "Note": job.note,
    }
    rows = (
        f"<div class='fact'><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items() if value
    )
    return f"<dl class='facts'>{''.join(rows)}</dl>"


def _failed_attempts(job: OneJobShape) -> str:
    """With their tracebacks, but for the one that the job failed of."""
    parts = []
    for one in job.failures:
        where = f"{one.stage_name} {one.task}, attempt {one.attempt} on {one.node.name}: {one.outcome}"
        detail = f"<pre>{escape(one.detail)}</pre>" if one.detail and one.detail != job.detail else ""
        parts.append(f"<div class='failure'><p>{escape(where)}. {escape(one.error)}</p>{detail}</div>")
    return f"<h2>Attempts that failed</h2>{''.join(parts)}" if parts else ""


def _stages(job: OneJobShape) -> str:
    heads = ("Stage", "Tasks", "Failed attempts", "Read", "Records out", "Work")
    rows = (
        (s.name, f"{s.done} of {s.tasks}", s.failed_attempts, size(s.bytes_done), s.records_out, duration(s.seconds))
        for s in job.stages
    )
    return _section("Stages", heads, rows)


def _graph(graph: GraphShape | None) -> str:
    if graph is None:
        return ""
    told = f"{graph.vertices:,} vertices, {graph.edges:,} edges; {graph.supersteps:,} supersteps. {graph.why}"
    drawn = {"run": [row.active for row in graph.rows], "fetch": [row.sent for row in graph.rows]}
    top = max((*drawn["run"], *drawn["fetch"], 1))
    lines = "".join(
        f"<polyline fill='none' stroke='var(--{colour})' stroke-width='2' points='{_points(values, top)}'/>"
        for colour, values in drawn.items()
    )
    legend = "".join(
        f"<span><i class='swatch {colour}'></i>{name}</span>"
        for colour, name in (("run", "active vertices"), ("fetch", "mail"))
    )
    heads = ("Superstep", "Active", "Sent", "Took")
    rows = ((row.superstep, f"{row.active:,}", f"{row.sent:,}", duration(row.seconds)) for row in graph.rows)
    return (
        f"<h2>Supersteps</h2><p>{escape(told)}</p><p class='legend'>{legend}<span>highest: {top:,}</span></p>"
        f"<svg viewBox='0 -2 {_WIDE} {_HIGH + 4}' width='{_WIDE}' role='img' "
        f"aria-label='active vertices and mail'>{lines}</svg>{_table(heads, rows)}"
    )


def _points(values: Sequence[int], top: int) -> str:
    """Of a line as wide as there is room, and as high for `top`."""
    across = max(len(values) - 1, 1)
    return " ".join(f"{_WIDE * n / across:.1f},{_HIGH * (1 - value / top):.1f}" for n, value in enumerate(values))


def _output(view: JobView) -> str:
    if view.output:
        return f"<h2>Output</h2><p>Written to <code>{escape(view.output)}</code>.</p>"
    rows = [(part.file_name, size(part.source.size), part.records) for part in view.parts[:PARTS_MAX]]
    more = len(view.parts) - len(rows)
    return _section("Output", ("Part", "Size", "Records"), rows) + (f"<p>and {more:,} more</p>" if more else "")


def _section(title: str, heads: Sequence[str], rows: Iterable[Row]) -> str:
    """A table with a title; nothing where it has no rows."""
    if not (listed := list(rows)):
        return ""
    return f"<h2>{title}</h2>{_table(heads, listed)}"


def _table(heads: Sequence[str], rows: Iterable[Row]) -> str:
    marks = {name: "" if name in _TEXTS else " class='num'" for name in heads}
    head = "".join(f"<th{marks[name]}>{name}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(_cell(h, marks[h], v) for h, v in zip(heads, row, strict=True))}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(head: str, mark: str, value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else escape(str(value))
    return f'<td data-label="{head}"{mark}>{text}</td>'


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))


ENDPOINTS: Final = [
    Endpoint(
        "GET",
        "/api/v1/jobs/{job}/report",
        get_report,
        "The page of a job that is over, as one HTML file to keep.",
        {200: Media("text/html")},
        fails={404: "no such job", 409: "it goes on"},
    )
]
