"""Persist before you speak; what fails is tried again in order."""

from __future__ import annotations

import math

from p2premap.election.journal import Journal
from p2premap.election.records import ForgetJob
from p2premap.ids import JOB_ID_BYTES, JobId


def record(n: int) -> ForgetJob:
    return ForgetJob(job=JobId(bytes([n]) * JOB_ID_BYTES))


def test_what_comes_while_a_write_is_under_way_shares_the_next():
    journal, said = Journal(0.5), []
    journal.write(record(1), sync=False, then=lambda: said.append(1))
    one = journal.flush(0.0)
    assert one is not None
    assert not one.sync
    journal.write(record(2), sync=False, then=lambda: said.append(2))
    journal.write(record(3), sync=True, then=lambda: said.append(3))
    assert journal.flush(0.0) is None
    assert said == []
    journal.persisted(one.token)
    assert said == [1]
    two = journal.flush(0.0)
    assert two is not None
    assert two.records == (record(2), record(3))
    assert two.sync
    journal.persisted(one.token)
    assert said == [1], "an old answer changes nothing"
    journal.persisted(two.token)
    assert said == [1, 2, 3]
    assert journal.flush(0.0) is None


def test_a_failed_write_is_tried_again_with_all_behind_it():
    journal, said = Journal(0.5), []
    journal.write(record(1), sync=True, then=lambda: said.append(1))
    journal.write(record(2), sync=True, failed=said.append)
    one = journal.flush(0.0)
    assert one is not None
    journal.write(record(3), sync=True, then=lambda: said.append(3))
    journal.failed(1.0, one.token, "The disk is full.")
    assert said == ["The disk is full."]
    assert journal.trouble
    assert journal.flush(1.4) is None
    assert journal.deadline() == 1.5
    two = journal.flush(1.5)
    assert two is not None
    assert two.records == (record(1), record(3))
    assert journal.deadline() == math.inf
    journal.persisted(two.token)
    assert said == ["The disk is full.", 1, 3]
    assert journal.trouble == ""
