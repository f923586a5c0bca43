"""What clients are told of a vertex job stays small, and the beginning and the end of it stand there."""

from __future__ import annotations

import itertools

from p2premap.vertex.loading import Loaded
from p2premap.vertex.plan import EpochReport, StepRow
from p2premap.vertex.told import FIRST_ROWS, LAST_ROWS, ROWS_TOLD_MAX, Account, Told, unpack_told


def rows(first: int, count: int) -> tuple[StepRow, ...]:
    return tuple(
        StepRow(superstep=n, active=1, computed=1, sent=1, dropped=0, seconds=0.1, values=(("delta", 0.5**n),))
        for n in range(first, first + count)
    )


def told(account: Account) -> Told:
    found = unpack_told(account.pack())
    assert found is not None
    return found


def test_few_supersteps_are_all_told() -> None:
    account = Account()
    account.load(Loaded(lines=5, edges=4, bad=1, first_bad=("a, line 2: no.",)))
    account.build(3, 4)
    account.epoch(EpochReport(superstep=2, vertices=3, edges=4, rows=rows(0, 2)))
    account.epoch(EpochReport(superstep=3, vertices=3, edges=4, rows=rows(2, 1), over=True, why="Enough.", dropped=7))
    found = told(account)
    assert (found.vertices, found.edges, found.supersteps, found.checkpoints) == (3, 4, 3, 2)
    assert (found.loaded.bad, found.why, found.dropped) == (1, "Enough.", 7)
    assert [row.superstep for row in found.rows] == [0, 1, 2]


def test_of_very_many_the_first_and_the_last_are() -> None:
    account = Account()
    for epoch in range(200):
        account.epoch(EpochReport(superstep=50 * epoch + 50, rows=rows(50 * epoch, 50)))
    found = [row.superstep for row in told(account).rows]
    assert len(found) <= ROWS_TOLD_MAX
    assert found == sorted(found)
    assert found[:FIRST_ROWS] == list(range(FIRST_ROWS))
    assert found[-LAST_ROWS:] == list(range(10_000 - LAST_ROWS, 10_000))
    assert max(later - earlier for earlier, later in itertools.pairwise(found)) <= 128
    assert len(account.pack()) < 40_000


def test_what_another_version_tells_is_nothing() -> None:
    assert unpack_told(b"") is None
    assert unpack_told(b"\xc1") is None
