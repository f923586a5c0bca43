"""What a worker with a bug, or of another version, may say: it must not hurt its leader."""

from __future__ import annotations

import pytest

from p2premap.errors import RemoteProtocolError
from p2premap.protocol import LINK
from p2premap.sim.workloads import Shape
from p2premap.tasks import messages
from p2premap.tasks.job import RESULT_BLOBS_MAX, AttemptEnd, Outcome, Phase, Source
from tests.tasks.dialogue import BALLOT, JOB, Led, blob
from tests.tasks.working import MAP, A


@pytest.mark.parametrize("attempt", [1, 2**33])
@pytest.mark.parametrize("blobs", [(), (blob("m"),)])
@pytest.mark.parametrize("letter", ["A", "B"])
def test_an_attempt_that_was_never_started_settles_nothing(attempt: int, blobs: tuple, letter: str) -> None:
    led = Led(Shape(1), on="AB")
    assert led.ended(letter, [AttemptEnd(task=0, attempt=attempt, outcome=Outcome.DONE, blobs=blobs)]) == []
    assert led.view.phase is Phase.RUNNING
    assert led.view.stages[0].done == 0
    assert led.done("A", 0)[-1] == "done"


def _report(blobs: int) -> messages.AttemptsEnded:
    end = AttemptEnd(task=0, attempt=0, outcome=Outcome.DONE, blobs=(blob("m"),) * blobs)
    return messages.AttemptsEnded(job=JOB, ballot=BALLOT, stage=MAP, ends=(end,), free=0)


def test_a_result_of_more_blobs_than_a_ledger_takes_is_no_message() -> None:
    most = _report(RESULT_BLOBS_MAX)
    assert LINK.decode(LINK.encode(most)) == most
    with pytest.raises(RemoteProtocolError, match="length <="):
        LINK.decode(LINK.encode(_report(RESULT_BLOBS_MAX + 1)))


def test_a_source_of_a_path_that_no_system_has_is_no_message() -> None:
    def assign(path: str) -> messages.Assign:
        source = Source(digest=blob("m").digest, start=0, end=1, holders=(A,), path=path)
        return messages.Assign(job=JOB, ballot=BALLOT, stage=MAP, runtime="r", function="map", code=source, attempts=())

    assert LINK.decode(LINK.encode(assign("/a\nb"))) == assign("/a\nb")
    with pytest.raises(RemoteProtocolError, match="regex"):
        LINK.decode(LINK.encode(assign("/a\0b")))
