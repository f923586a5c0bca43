"""A handful of nodes on a virtual network: what they come to believe, and how soon."""

from __future__ import annotations

import pytest

from p2premap.gossip.events import IdentityClash, Leave, Left, LinkUp, MemberState, SetFact, SetLoad, WantLink, Woke
from p2premap.gossip.invariants import disagreement, living, went_back
from tests.gossip.harness import Net, node_id

ALIVE, STALLED, SUSPECT, DEAD, LEFT = MemberState


def formed(count: int, *, seed: int = 0, loss: float = 0.0) -> Net:
    net = Net(count, seed=seed, loss=loss)
    for n in range(1, count):
        net.hint(n, n - 1)
    net.run(60.0, until=net.whole)
    assert net.whole()
    net.run(8.0)
    return net


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_nodes_that_start_together_see_each_other_at_once(count: int) -> None:
    net = Net(count)
    for n in range(count):
        for other in range(count):
            if n != other:
                net.hint(n, other)
    assert net.run(5.0, until=net.whole) <= 0.05
    net.run(3.0)
    assert net.disagreement() == ""


def test_a_chain_of_hints_is_enough() -> None:
    net = Net(20)
    for n in range(1, 20):
        net.hint(n, n - 1, named=False)
    assert net.run(5.0, until=net.whole) <= 0.3


def test_one_who_joins_is_seen_by_all_and_sees_all_at_once() -> None:
    net = formed(16)
    net.start(16)
    net.hint(16, 3)
    assert net.run(5.0, until=net.whole) <= 0.02


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_a_killed_process_is_known_to_all_at_once(count: int) -> None:
    net = formed(count)
    net.kill(1)
    assert net.run(5.0, until=lambda: net.all_see(1, DEAD)) <= 0.15


@pytest.mark.parametrize("count", [3, 8, 20])
def test_a_power_off_is_known_to_all_in_five_seconds(count: int) -> None:
    for seed in range(5):
        net = formed(count, seed=seed)
        net.power_off(1)
        assert net.run(10.0, until=lambda net=net: net.all_see(1, DEAD)) <= 5.0


def test_several_killed_at_once_are_all_known() -> None:
    net = formed(12)
    for n in (1, 2, 3, 4):
        net.kill(n)
    assert net.run(10.0, until=lambda: all(net.all_see(n, DEAD) for n in (1, 2, 3, 4))) <= 5.0


def test_a_stalled_node_is_known_as_such_is_not_dead_and_comes_back_at_once() -> None:
    net = formed(8)
    net.stop(2)
    assert net.run(5.0, until=lambda: net.all_see(2, STALLED)) <= 3.0
    stalled_at = net.now
    while net.now < stalled_at + 10.0:
        net.run(0.5)
        assert not any(net.state(2, n.number) == DEAD for n in net.running())
    net.resume(2)
    net.give(2, Woke(lost_s=10.0))
    assert net.run(5.0, until=net.whole) <= 0.3


def test_a_node_that_stays_stalled_is_dead_after_fifteen_seconds() -> None:
    net = formed(8)
    net.stop(2)
    took = net.run(60.0, until=lambda: net.all_see(2, DEAD))
    assert 14.0 <= took <= 19.0


def test_a_restart_is_no_special_case() -> None:
    net = formed(8)
    net.give(3, SetFact(key="k", value=b"first life"))
    net.run(2.0)
    net.kill(3)
    net.start(3, boot=2)
    net.hint(3, 5)
    net.run(5.0)
    assert net.whole()
    assert net.disagreement() == ""
    view = net.nodes[0].core.member(node_id(3))
    assert view is not None
    assert (view.boot, view.facts) == (2, {})


def test_an_old_disk_is_noticed_by_its_owner() -> None:
    net = formed(4)
    net.kill(3)
    net.start(3, boot=2)
    net.hint(3, 0)
    net.run(5.0)
    net.kill(3)
    net.run(1.0)
    net.start(3, boot=1)
    net.hint(3, 1)
    net.run(2.0)
    assert [e for _, e in net.nodes[3].effects if isinstance(e, IdentityClash)]


def test_a_leave_is_a_leave_to_everybody() -> None:
    net = formed(12)
    net.give(4, Leave())
    assert net.run(5.0, until=lambda: any(isinstance(e, Left) for _, e in net.nodes[4].effects)) <= 0.5
    net.kill(4)
    net.run(20.0)
    assert net.all_see(4, LEFT)


@pytest.mark.parametrize("count", [2, 6, 16])
def test_a_healed_cut_becomes_whole(count: int) -> None:
    net = formed(count)
    net.cut = lambda a, b: (a < count // 2) != (b < count // 2)
    net.run(25.0)
    assert net.state(0, count - 1) == DEAD
    assert net.state(count - 1, 0) == DEAD
    net.cut = lambda a, b: False
    assert net.run(20.0, until=net.whole) <= 10.0
    net.run(3.0)
    assert net.disagreement() == ""


def test_who_only_one_other_cannot_reach_is_not_dead() -> None:
    net = formed(6)
    net.cut = lambda a, b: {a, b} == {1, 2}
    net.run(60.0)
    assert net.whole()
    assert sum(n.core.statistics().counters.deaths for n in net.running()) == 0


@pytest.mark.parametrize("loss", [0.1, 0.25])
def test_loss_kills_nobody(loss: float) -> None:
    net = formed(10, loss=loss)
    net.run(200.0)
    assert sum(n.core.statistics().counters.deaths for n in net.running()) == 0


def test_facts_and_loads_reach_everybody() -> None:
    net = formed(16, loss=0.1)
    net.give(5, SetFact(key="small", value=b"s"))
    net.give(5, SetFact(key="large", value=b"x" * 5_000))
    net.give(5, SetLoad(value=b"12345"))

    def known() -> bool:
        views = [n.core.member(node_id(5)) for n in net.running()]
        return all(v is not None and set(v.facts) == {"small", "large"} and v.load for v in views)

    assert net.run(20.0, until=known) <= 5.0


def test_a_newcomer_learns_the_loads_of_those_who_are_idle() -> None:
    net = formed(5)
    net.give(2, SetLoad(value=b"12345"))
    net.run(20.0)
    net.start(5)
    net.hint(5, 0)
    net.run(1.0)
    view = net.nodes[5].core.member(node_id(2))
    assert view is not None
    assert view.load == b"12345"


def test_a_node_that_cannot_be_dialled_takes_part_and_can_be_called() -> None:
    net = Net(10)
    hidden = 4
    net.nodes[hidden].dialable = False
    for n in range(10):
        if n != hidden:
            net.hint(n, 0 if n else 1)
    net.hint(hidden, 0)
    net.run(10.0, until=net.whole)
    net.run(30.0)
    assert net.whole()
    linked = net.nodes[hidden].links
    far = next(n for n in range(10) if n != hidden and n not in linked)
    net.give(far, WantLink(peer=node_id(hidden)))
    assert net.run(10.0, until=lambda: far in net.nodes[hidden].links) <= 3.0
    up = [e for _, e in net.nodes[far].effects if isinstance(e, LinkUp)]
    assert up == []  # LinkUp is told, not asked for


def test_an_idle_node_says_little() -> None:
    net = formed(32)
    net.run(30.0)
    before = net.bytes_sent
    net.run(30.0)
    assert (net.bytes_sent - before) / 30.0 / 32 <= 80.0


def test_beliefs_never_go_back() -> None:
    net = formed(6, loss=0.2)
    net.kill(1)
    net.power_off(2)
    seen = {v.node: v for v in net.nodes[0].core.members()}
    for step in range(100):
        net.run(0.2)
        if step == 50:
            net.start(1, boot=2)
            net.hint(1, 3)
        for view in net.nodes[0].core.members():
            if view.node in seen:
                assert not went_back(seen[view.node], view)
            seen[view.node] = view
    assert node_id(1) in living(net.nodes[0].core.members())


def test_disagreement_names_the_first_difference() -> None:
    net = formed(3)
    tables = [n.core.members() for n in net.running()]
    assert disagreement(tables) == ""
    assert "known to one node" in disagreement([tables[0], tables[1][1:]])
    assert "different numbers" in disagreement([tables[0][1:], tables[1]])
    net.give(0, SetFact(key="k", value=b"v"))
    assert "different facts" in disagreement([net.nodes[0].core.members(), tables[1]])


def test_a_shared_base_and_a_table_of_its_own_come_to_the_same() -> None:
    """What the simulator shares between nodes is an economy, not another protocol."""
    shared = Net(12, base=True)
    shared.run(5.0)
    assert shared.whole()
    own = formed(12)
    assert shared.nodes[0].core.root_hash == own.nodes[0].core.root_hash
    shared.kill(3)
    assert shared.run(5.0, until=lambda: shared.all_see(3, DEAD)) <= 0.15


def test_the_same_seed_gives_the_same_history() -> None:
    def history(seed: int) -> list[tuple[float, str]]:
        net = formed(6, seed=seed, loss=0.1)
        net.kill(1)
        net.run(10.0)
        return [(at, repr(e)) for node in net.nodes.values() for at, e in node.effects]

    assert history(1) == history(1)
    assert history(1) != history(2)
