"""Jobs as people see them at a node that does not lead them: from what its replica says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from p2premap.election.core import ElectionCore
from p2premap.ids import NOBODY, JobId, short
from p2premap.node.charter import Charter
from p2premap.tasks.job import JobView, Phase

_ID: Final = re.compile(r"\b[0-9a-f]{8}\b")
BESIDE: Final = "The job itself has ended otherwise, and that counts; this is what its fork made."


def outline(core: ElectionCore, job: JobId, names: Callable[[], Mapping[str, str]]) -> JobView | None:
    """A job that another node leads, or nobody for now; None where this node does not keep it (any more).

    Args:
        names: what the nodes are called, by their ids as sentences name them.
    """
    state = core.job(job)
    if state is None or state.record.gone:
        return None
    if state.record.view:
        return msgspec.msgpack.decode(state.record.view, type=JobView)
    spec = Charter.decode(state.record.spec).spec
    leader = state.leader if state.leader is not None else NOBODY
    return JobView(
        job=job,
        name=spec.name,
        kind=spec.kind,
        phase=Phase.WAITING,
        leader=leader,
        leader_name="" if leader == NOBODY else names().get(short(leader), short(leader)),
        leader_pid=0,
        age_s=0.0,
        copies=state.copies,
        note=named(state.note, names) or ("" if state.leader is not None else "Its replicas are electing a leader."),
        fork=state.fork,
        submitted=Charter.decode(state.record.spec).submitted,
    )


def named(note: str, names: Callable[[], Mapping[str, str]]) -> str:
    """A sentence of the election room, with the nodes' names."""
    known = names() if note else {}
    return _ID.sub(lambda found: known.get(found.group(), found.group()), note)


def submitted(core: ElectionCore, job: JobId) -> Charter | None:
    """What was submitted, and where; None of a job of which no replica is here."""
    state = core.job(job)
    return None if state is None or state.record.gone else Charter.decode(state.record.spec)


def dated(core: ElectionCore, view: JobView, names: Callable[[], Mapping[str, str]] = dict) -> JobView:
    """With the time of its submission and its first leader, which its present leader's room does not know."""
    charter = submitted(core, JobId(view.job))
    if charter is None:
        return view
    home = charter.home, names().get(short(charter.home), short(charter.home)), 0.0
    return msgspec.structs.replace(view, submitted=charter.submitted, history=(home, *view.history))


def age_s(view: JobView, wall_s: float) -> float:
    """How long ago the job was accepted. A leader's clock stands still while no node runs; that of people does not.

    Args:
        wall_s: now, in seconds since 1970.
    """
    return max(view.age_s, wall_s - view.submitted) if view.submitted else view.age_s


def aged(view: JobView, wall_s: float) -> JobView:
    """A job that was over before this node started, which is as old on its disk as it was then, with its age now."""
    if not view.phase.over or view.age_s > (view.lasted_s or view.age_s):
        return view
    return msgspec.structs.replace(view, age_s=age_s(view, wall_s))


def as_origin(origin: JobId, view: JobView) -> JobView:
    """A fork as those see it who asked for the job that it was forked from."""
    return msgspec.structs.replace(view, job=origin, fork=short(view.job))


def alike(one: JobView, other: JobView) -> bool:
    """Whether two lineages of a job have ended in the same way, with the same output."""
    return _end(one) == _end(other)


def _end(view: JobView) -> tuple[object, ...]:
    return view.phase, view.error, {(part.number, part.name, part.source.digest) for part in view.parts}


def beside(core: ElectionCore, view: JobView) -> JobView:
    """A fork that has ended and is kept beside its job, because that has ended too, says so."""
    state = core.job(JobId(view.job))
    origin = core.job(JobId(state.record.origin)) if state is not None and state.record.origin else None
    if origin is None or not origin.record.view or not view.phase.over:
        return view
    return msgspec.structs.replace(view, note=BESIDE)
