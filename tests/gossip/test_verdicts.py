"""The table of evidence, line by line."""

from __future__ import annotations

import pytest

from p2premap.gossip.events import DialOutcome
from p2premap.gossip.messages import Evidence
from p2premap.gossip.verdicts import Finding, Verdict, finding, own_evidence, verdict
from p2premap.ids import Boot
from tests.gossip.harness import node_id

GONE, SILENT, STALLED, ANSWERED, ABSTAINS = (
    Evidence.GONE,
    Evidence.SILENT,
    Evidence.STALLED,
    Evidence.ANSWERED,
    Evidence.ABSTAINS,
)


@pytest.mark.parametrize(
    ("own", "testimony", "link_closed", "pending", "expected"),
    [
        # Gone: needs the closed link, and a juror's agreement or no juror
        (GONE, [GONE], True, 2, Verdict.DEAD),
        (GONE, [GONE, SILENT], True, 0, Verdict.DEAD),
        (GONE, [], True, 0, Verdict.DEAD),
        (GONE, [ABSTAINS, ABSTAINS], True, 0, Verdict.DEAD),
        (GONE, [GONE], False, 0, Verdict.SUSPECT),
        (GONE, [SILENT], True, 0, Verdict.SUSPECT),
        (GONE, [], True, 3, Verdict.SUSPECT),
        (GONE, [ABSTAINS], True, 1, Verdict.SUSPECT),
        (GONE, [GONE, STALLED], True, 0, Verdict.STALLED),
        (GONE, [GONE, ANSWERED], True, 0, Verdict.LINK_FAULT),
        # Silent: nobody who answered knows better
        (SILENT, [], True, 0, Verdict.SUSPECT),
        (SILENT, [SILENT, SILENT], True, 1, Verdict.SUSPECT),
        (SILENT, [GONE, SILENT], True, 0, Verdict.SUSPECT),
        (ABSTAINS, [ABSTAINS], True, 0, Verdict.SUSPECT),
        # Stalled: one kernel's word is enough for patience
        (STALLED, [], True, 0, Verdict.STALLED),
        (STALLED, [SILENT, GONE], True, 0, Verdict.STALLED),
        (SILENT, [SILENT, STALLED], True, 0, Verdict.STALLED),
        # a juror's answer saves
        (SILENT, [SILENT, ANSWERED], True, 0, Verdict.LINK_FAULT),
        (STALLED, [ANSWERED], True, 0, Verdict.LINK_FAULT),
        (ANSWERED, [GONE, GONE, GONE], True, 0, Verdict.ALIVE),
    ],
)
def test_verdicts(own: Evidence, testimony: list[Evidence], link_closed: bool, pending: int, expected: Verdict) -> None:
    assert verdict(own, testimony, link_closed=link_closed, jurors_pending=pending) == expected


@pytest.mark.parametrize(
    ("proven", "hearsay", "expected"),
    [
        ([Finding.GONE, Finding.GONE], [], GONE),
        ([Finding.GONE, Finding.REFUSED_ONCE], [], SILENT),
        ([Finding.GONE, Finding.SILENT], [], SILENT),
        ([Finding.OPEN], [], SILENT),
        ([Finding.GONE, Finding.STALLED], [], STALLED),
        ([Finding.GONE, Finding.ANSWERED], [], ANSWERED),
        # where no hello had succeeded, an address can speak for the node, never against it
        ([], [Finding.GONE], ABSTAINS),
        ([], [Finding.SILENT], ABSTAINS),
        ([], [], ABSTAINS),
        ([], [Finding.STALLED], STALLED),
        ([], [Finding.ANSWERED], ANSWERED),
    ],
)
def test_own_evidence(proven: list[Finding], hearsay: list[Finding], expected: Evidence) -> None:
    assert own_evidence(proven, hearsay) == expected


@pytest.mark.parametrize(
    ("before", "outcome", "answered_by", "expected"),
    [
        (Finding.OPEN, DialOutcome.REFUSED, (None, None), Finding.REFUSED_ONCE),
        (Finding.REFUSED_ONCE, DialOutcome.REFUSED, (None, None), Finding.GONE),
        (Finding.REFUSED_ONCE, DialOutcome.SILENT, (None, None), Finding.SILENT),
        (Finding.OPEN, DialOutcome.STALLED, (None, None), Finding.STALLED),
        (Finding.OPEN, DialOutcome.CONNECTED, (node_id(1), Boot(4)), Finding.ANSWERED),
        (Finding.OPEN, DialOutcome.CONNECTED, (node_id(1), Boot(5)), Finding.GONE),
        (Finding.OPEN, DialOutcome.CONNECTED, (node_id(2), Boot(4)), Finding.GONE),
        (Finding.OPEN, DialOutcome.FOREIGN, (None, None), Finding.GONE),
        (Finding.OPEN, DialOutcome.INCOMPATIBLE, (None, None), Finding.GONE),
    ],
)
def test_findings_about_one_address(
    before: Finding, outcome: DialOutcome, answered_by: tuple, expected: Finding
) -> None:
    assert finding(before, outcome, answered_by=answered_by, wanted=(node_id(1), Boot(4))) == expected
