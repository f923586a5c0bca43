"""What a client is told when it hands a job in."""

from __future__ import annotations

import pytest

from p2premap.election import events as election
from p2premap.ids import NodeId
from p2premap.node.events import JobAccepted, NodeEffect, SubmitJob
from p2premap.node.submissions import Submissions
from p2premap.sim.workloads import Shape, spec_of
from p2premap.tasks.job import JobOptions

A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))


@pytest.mark.parametrize(("one_machine", "copies"), [(False, 3), (True, 1)])
def test_a_job_that_reads_one_machines_files_has_one_copy_however_many_ledgers(one_machine: bool, copies: int) -> None:
    told: list[NodeEffect] = []
    asked: list[election.ElectionEvent] = []
    submissions = Submissions(
        me=A,
        find=lambda key: None,
        copies=lambda job: 0,
        check=lambda job, spec, plan: one_machine,
        plans={},
        candidates=lambda: (B, C),
        elect=lambda now, event: asked.append(event),
        emit=told.append,
    )
    shape = Shape(2)
    submissions.submit(0.0, SubmitJob(request=7, spec=spec_of(shape, key=b"k", options=JobOptions()), plan=b""))
    [create] = [event for event in asked if isinstance(event, election.CreateJob)]
    assert create.members == (A, B, C)
    submissions.created(7, create.job, 3)
    assert [e for e in told if isinstance(e, JobAccepted)] == [JobAccepted(request=7, job=create.job, copies=copies)]
