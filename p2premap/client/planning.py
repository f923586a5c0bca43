"""From a job file and what was typed beside it to a job that can be submitted: by the planner of the job's kind.

A planner is a function ``plan(asked: Asked) -> Submission`` that a kind's director names
(`p2premap.tasks.director.Director.planner`). It runs in the process of whoever submits: it may read files and take
its time, and must not run the job file (`p2premap.client.bundle` reads one without). What it returns is best made by
`p2premap.client.submission.submission_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from p2premap import plugins
from p2premap.client.submission import Submission
from p2premap.errors import JobRejected
from p2premap.node.kinds import planner_of
from p2premap.tasks.job import JobOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asked for.

    Args:
        file: path of the job file.
        inputs: as they were typed.
        slots: worker processes of the whole cluster now.
        one_machine: all nodes are on this machine.
        partitions: output parts; 0: as the kind thinks best.
        given: what ``--option NAME=VALUE`` said, for the kind to make sense of.
        options: of the job, whatever its kind.
    """

    file: str
    inputs: Sequence[str]
    slots: int = 1
    one_machine: bool = False
    partitions: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    options: JobOptions = field(default_factory=JobOptions)


class Planner(Protocol):
    """The client's half of a kind."""

    def __call__(self, asked: Asked, /) -> Submission:
        """Plan a job.

        Raises:
            JobRejected: one sentence: a wrong job file, input or option.
        """


def plan_job(kind: str, asked: Asked) -> Submission:
    """Plan a job of this kind.

    Raises:
        JobRejected: the kind is not installed here, is none that can be run from a file, or its planner refuses.
    """
    target = planner_of(kind)
    if target is None:
        known = ", ".join(plugins.find(plugins.MODULES))
        raise JobRejected(f"No module for jobs of kind {kind!r} is installed here; there are: {known}.")
    if not target:
        raise JobRejected(f"Jobs of kind {kind} are made by programs; they cannot be run from a file.")
    try:
        planner = cast("Planner", plugins.load(target))
    except (ImportError, AttributeError) as error:
        raise JobRejected(f"The planner of jobs of kind {kind} cannot be loaded: {error}.") from None
    return planner(asked)
