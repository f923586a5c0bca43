"""From evidence to a verdict: pure functions, so that the table can be read and tested line by line.

================================================================================================  ==========
evidence                                                                                          verdict
================================================================================================  ==========
the accuser or a juror got an authenticated answer                                                ALIVE
**Gone**: refused twice, 50 ms apart, at every address where a hello had succeeded, or answered
there by another id or boot; and the accuser's link has closed; and UDP is silent; and one juror
agrees, or there is none                                                                          DEAD
**Stalled**: the kernel accepts, no authenticated hello                                           STALLED
**Silent**: no SYN-ACK and no UDP, for the accuser and all jurors that answered                   SUSPECT
================================================================================================  ==========

A juror that never finished a hello there abstains. STALLED becomes DEAD after 15 s of it, SUSPECT after 2 s, and only
if the evidence is still the same then: `p2premap.gossip.suspicion`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from p2premap.gossip.events import DialOutcome
from p2premap.gossip.messages import Evidence
from p2premap.ids import Boot, NodeId


class Verdict(enum.Enum):
    """What a trial found."""

    ALIVE = "alive"
    LINK_FAULT = "link fault"
    """A juror reaches the node, this one does not: the fault is between the two, or this node's own."""
    STALLED = "stalled"
    SUSPECT = "suspect"
    DEAD = "dead"


class Finding(enum.IntEnum):
    """What is known about one address."""

    OPEN = 0
    """Not known yet."""
    REFUSED_ONCE = 1
    GONE = 2
    SILENT = 3
    STALLED = 4
    ANSWERED = 5


def finding(
    before: Finding,
    outcome: DialOutcome,
    *,
    answered_by: tuple[NodeId | None, Boot | None],
    wanted: tuple[NodeId, Boot],
) -> Finding:
    """What an address is known for after one more dial.

    Args:
        before: what was known.
        outcome: how the dial ended.
        answered_by: the id and boot in the hello, where there was one.
        wanted: the id and boot that is being looked for.
    """
    match outcome:
        case DialOutcome.CONNECTED:
            return Finding.ANSWERED if answered_by == wanted else Finding.GONE
        case DialOutcome.REFUSED:
            return Finding.REFUSED_ONCE if before == Finding.OPEN else Finding.GONE
        case DialOutcome.SILENT:
            return Finding.SILENT
        case DialOutcome.STALLED:
            return Finding.STALLED
        case DialOutcome.FOREIGN | DialOutcome.INCOMPATIBLE:
            return Finding.GONE  # whoever had proved itself here has made room for another


def own_evidence(proven: Iterable[Finding], others: Iterable[Finding]) -> Evidence:
    """What a prober can testify.

    Args:
        proven: findings at the addresses where it had finished a hello with that id and boot.
        others: findings at addresses that are only said to be the node's: they can speak for it, not against it.
    """
    known, hearsay = list(proven), list(others)
    if Finding.ANSWERED in known or Finding.ANSWERED in hearsay:
        return Evidence.ANSWERED
    if Finding.STALLED in known or Finding.STALLED in hearsay:
        return Evidence.STALLED
    if not known:
        return Evidence.ABSTAINS
    return Evidence.GONE if all(f == Finding.GONE for f in known) else Evidence.SILENT


def is_gone(own: Evidence, testimony: Iterable[Evidence], *, link_closed: bool, jurors_pending: int) -> bool:
    """Whether the evidence for Gone is complete.

    Args:
        own: the accuser's evidence.
        testimony: of the jurors that have answered.
        link_closed: the accuser has no link to the node.
        jurors_pending: how many of those asked have not answered.
    """
    if own != Evidence.GONE or not link_closed:
        return False
    voices = [t for t in testimony if t != Evidence.ABSTAINS]
    if Evidence.ANSWERED in voices or Evidence.STALLED in voices:
        return False
    return Evidence.GONE in voices or (not voices and jurors_pending == 0)


def verdict(own: Evidence, testimony: Iterable[Evidence], *, link_closed: bool, jurors_pending: int) -> Verdict:
    """What follows when the time for a trial is over."""
    voices = list(testimony)
    if own == Evidence.ANSWERED:
        return Verdict.ALIVE
    if Evidence.ANSWERED in voices:
        return Verdict.LINK_FAULT
    if is_gone(own, voices, link_closed=link_closed, jurors_pending=jurors_pending):
        return Verdict.DEAD
    if own == Evidence.STALLED or Evidence.STALLED in voices:
        return Verdict.STALLED
    return Verdict.SUSPECT
