"""A failing trial made small: faults are dropped and shortened for as long as the same checker still fails.

Dropping goes by halves, quarters and so on down to single ones, again and again until none can go (delta debugging:
Zeller and Hildebrandt, 2002, "Simplifying and Isolating Failure-Inducing Input"); then clients that hand in jobs go;
then the times of what is left are halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from p2premap.sim.observers import InvariantBroken
from p2premap.sim.trial import Plan, Trial

HALVINGS_MAX: Final = 6

Verdict = Callable[[Plan], str | None]
"""The name of the checker that fails under a plan; None: none does."""


def verdict(plan: Plan) -> str | None:
    """Run it."""
    try:
        Trial(plan).run()
    except InvariantBroken as error:
        return error.checker
    return None


def shrink(plan: Plan, checker: str, judge: Verdict = verdict) -> Plan:
    """The smallest plan found under which this checker fails.

    Args:
        plan: under which it fails.
    """

    def fails(smaller: Plan) -> bool:
        return judge(smaller) == checker

    strikes = tuple(range(len(plan.strikes()))) if plan.kept is None else plan.kept
    plan = replace(plan, kept=_fewest(strikes, lambda kept: fails(replace(plan, kept=kept))))
    clients = tuple(range(plan.jobs)) if plan.clients is None else plan.clients
    plan = replace(plan, clients=_fewest(clients, lambda left: bool(left) and fails(replace(plan, clients=left))))
    for place in plan.kept or ():
        plan = _shortest(plan, place, fails)
    return plan


def _fewest(items: Iterable[int], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """Without as many as possible."""
    left = tuple(items)
    size = len(left)
    while size := size // 2 or (1 if size > 1 else 0):
        start = 0
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if fails(fewer):
                left = fewer
            else:
                start += size
        if size == 1:
            break
    return left


def _shortest(plan: Plan, place: int, fails: Callable[[Plan], bool]) -> Plan:
    """With the time of one strike halved as often as it still fails."""
    for times in range(1, HALVINGS_MAX + 1):
        halved = (*(pair for pair in plan.halved if pair[0] != place), (place, times))
        shorter = replace(plan, halved=halved)
        if not fails(shorter):
            return plan
        plan = shorter
    return plan
