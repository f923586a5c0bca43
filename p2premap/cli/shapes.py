"""The JSON that ``--json`` prints, documented in docs/cli.md. Keys are added over time, never renamed or removed."""

from __future__ import annotations

from p2premap.control.nodes import Finding, NodeView, Status
from p2premap.ids import NOBODY
from p2premap.tasks.job import JobView, StageView

Json = dict[str, object]


def node_shape(view: NodeView) -> Json:
    """One object of ``nodes --json``."""
    return {
        "id": view.node.hex(),
        "name": view.name,
        "pid": view.pid,
        "state": view.state,
        "me": view.me,
        "boot": view.boot,
        "addresses": list(view.addresses),
        "version": view.version,
        "system": view.system,
        "python": view.python,
        "cpus": view.cpus,
        "slots": view.slots,
        "busy": view.busy,
        "load": view.load,
        "memory_bytes": view.memory_bytes,
        "memory_free_bytes": view.memory_free_bytes,
        "tags": list(view.tags),
        "host": view.host,
        "held_back": view.held_back,
    }


def status_shape(status: Status, running: list[JobView]) -> Json:
    """``status --json``, with the jobs that go on."""
    return {
        "node": node_shape(status.me),
        "cluster": status.cluster,
        "key_epoch": status.key_epoch,
        "scope": status.scope,
        "open_name": status.open_name,
        "members": status.members,
        "dead": status.dead,
        "jobs_running": len(running),
        "jobs_waiting_for": {view.job.hex(): view.note for view in running if view.note},
        "state_dir": status.state_dir,
        "kept_bytes": status.kept_bytes,
        "kept_bytes_max": status.kept_bytes_max,
        "foreign": [{"address": f.address, "cluster": f.cluster, "hint": f.hint} for f in status.foreign],
        "warnings": list(status.warnings),
        "counters": dict(status.counters),
    }


def finding_shape(finding: Finding) -> Json:
    """One object of ``doctor --json``."""
    return {"ok": finding.ok, "about": finding.about, "text": finding.text, "remedy": finding.remedy}


def stage_shape(stage: StageView) -> Json:
    """One object of a job's "stages"."""
    return {
        "number": stage.number,
        "name": stage.name,
        "tasks": stage.tasks,
        "done": stage.done,
        "running": stage.running,
        "failed_attempts": stage.failed_attempts,
        "lost_attempts": stage.lost_attempts,
        "bytes_in": stage.bytes_in,
        "bytes_done": stage.bytes_done,
        "records_out": stage.records_out,
        "seconds": stage.seconds,
    }


def job_shape(view: JobView) -> Json:
    """One object of ``jobs --json``, and what ``watch --json`` and ``run --json`` print."""
    return {
        "id": view.job.hex(),
        "name": view.name,
        "kind": view.kind,
        "phase": view.phase.value,
        "leader": {
            "id": "" if view.leader == NOBODY else view.leader.hex(),
            "name": view.leader_name,
            "pid": view.leader_pid,
        },
        "submitted_at": view.submitted,
        "age_s": view.age_s,
        "copies": view.copies,
        "takeovers": view.takeovers,
        "unprotected": view.unprotected,
        "unprotected_s": view.unprotected_s,
        "fork": view.fork,
        "backups": view.backups,
        "retries": view.retries,
        "stages": [stage_shape(stage) for stage in view.stages],
        "parts": view.part_count,
        "url": view.output,
        "nodes": [{"name": name, "tasks": tasks} for name, tasks in view.nodes],
        "error": view.error,
        "detail": view.detail,
        "note": view.note,
        "skipped": [{"stage": stage, "task": task, "error": error} for stage, task, error in view.skipped],
        "unmet": [{"node": node, "lacks": lacks, "has": has} for node, lacks, has in view.unmet],
    }
