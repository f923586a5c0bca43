"""Any two quorums meet."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from p2premap.election.quorum import is_quorum, needed, reached
from p2premap.ids import NodeId

A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))


@pytest.mark.parametrize("count", range(1, 7))
def test_two_quorums_always_meet_and_one_side_of_any_split_wins(count):
    members = tuple(NodeId(bytes([n]) * 16) for n in range(count))
    sets = [set(s) for s in chain.from_iterable(combinations(members, n) for n in range(count + 1))]
    quorums = [s for s in sets if is_quorum(members, s)]
    assert all(one & other for one in quorums for other in quorums)
    for side in sets:
        assert is_quorum(members, side) != is_quorum(members, set(members) - side)


def test_of_two_the_first_decides_alone():
    assert is_quorum((A, B), [A])
    assert not is_quorum((A, B), [B])
    assert not is_quorum((), [])


def test_strangers_do_not_count():
    assert not is_quorum((A, B, C), [A, NodeId(b"x" * 16), NodeId(b"y" * 16)])


def test_what_a_quorum_has_reached():
    assert reached((A, B, C), {A: 7, B: 3}) == 3
    assert reached((A, B, C), {A: 7}) == -1
    assert reached((A, B), {A: 7}) == 7
    assert reached((A, B), {B: 7}) == -1


def test_needed_is_for_people():
    assert [needed((A,) * n) for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
