"""What a client is told when it hands a job in."""

from __future__ import annotations

import pytest

from p2premap.election import events as election
from p2premap.ids import JobId, NodeId
from p2premap.node.charter import Charter
from p2premap.node.events import JobAccepted, JobRefused, NodeEffect, SubmitJob
from p2premap.node.submissions import Submissions
from p2premap.sim.workloads import Shape, spec_of
from p2premap.tasks.job import JobOptions

A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))


class Door:
    """Node A's, at which jobs are handed in; `asked` and `told` are what came of that."""

    def __init__(self, *, one_machine: bool = False) -> None:
        self.told: list[NodeEffect] = []
        self.asked: list[election.ElectionEvent] = []
        self.submissions = Submissions(
            me=A,
            find=lambda key: None,
            submitted=lambda job: None,
            copies=lambda job: 0,
            check=lambda job, spec, plan: one_machine,
            plans={},
            candidates=lambda: (B, C),
            elect=lambda now, event: self.asked.append(event),
            emit=self.told.append,
        )

    def submit(self, request: int, shape: Shape, *, again: bool = False) -> None:
        spec = spec_of(shape, key=b"k", options=JobOptions())
        self.submissions.submit(0.0, SubmitJob(request=request, spec=spec, plan=b"", again=again))

    @property
    def created(self) -> election.CreateJob:
        [create] = [event for event in self.asked if isinstance(event, election.CreateJob)]
        return create

    @property
    def refused(self) -> list[int]:
        found = [e for e in self.told if isinstance(e, JobRefused)]
        assert all("that of another job, 'shape'" in e.text for e in found)
        return [e.request for e in found]

    @property
    def accepted(self) -> list[int]:
        return [e.request for e in self.told if isinstance(e, JobAccepted)]


@pytest.mark.parametrize(("one_machine", "copies"), [(False, 3), (True, 1)])
def test_a_job_that_reads_one_machines_files_has_one_copy_however_many_ledgers(one_machine: bool, copies: int) -> None:
    door = Door(one_machine=one_machine)
    door.submit(7, Shape(2))
    create = door.created
    assert create.members == (A, B, C)
    door.submissions.created(7, create.job, 3)
    assert [e for e in door.told if isinstance(e, JobAccepted)] == [
        JobAccepted(request=7, job=create.job, copies=copies)
    ]


def test_while_a_job_is_being_created_its_key_is_its_own() -> None:
    door = Door()
    door.submit(1, Shape(2))
    door.submit(2, Shape(2))
    door.submit(3, Shape(3))
    assert (door.accepted, door.refused) == ([], [3])
    door.submissions.created(1, door.created.job, 3)
    assert (door.accepted, door.refused) == ([1, 2], [3])


@pytest.mark.parametrize(
    ("there", "accepted"),
    [(Shape(2), True), (Shape(3), False), (None, True)],
    ids=["the same job", "another job", "an earlier release says which id only"],
)
def test_what_another_node_knows_under_the_key_must_be_the_same_job(there: Shape | None, accepted: bool) -> None:
    door = Door()
    door.submit(1, Shape(2), again=True)
    spec = spec_of(there, key=b"k", options=JobOptions()) if there is not None else None
    told = Charter(spec=spec, home=B).encode() if spec is not None else b""
    door.submissions.found(0.0, 1, JobId(b"j" * 16), told)
    assert (door.accepted, door.refused) == (([1], []) if accepted else ([], [1]))
