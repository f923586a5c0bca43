"""Rotation as a protocol: whoever is cut off when, all that may be members end under one secret. Pure, and on disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2premap.errors import ConfigError
from p2premap.ids import NodeId
from p2premap.node import keyfile, keyring, secret
from p2premap.node.keyring import FRESH_S, GRACE_S, Keyring, RotationRefused
from p2premap.node.secret import ClusterSecret

FIRST = ClusterSecret(b"s" * 32)


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 16)


def offered(ring: Keyring, number: int, *, members: int = 3, evicts: bool = False) -> keyring.Offer:
    return keyring.next_offer(ring, bytes([number]) * 32, listed=tuple(node(i) for i in range(members)), evicts=evicts)


# --- one node -------------------------------------------------------------------------------------------------------


def test_a_prepared_secret_is_the_cluster_s_only_once_it_is_decided() -> None:
    ring = Keyring(FIRST)
    offer = offered(ring, 1)
    prepared = keyring.prepare(ring, offer, 100.0)
    assert prepared.current == FIRST
    assert prepared.is_pending(offer.secret.tag)
    switched = keyring.switch(prepared, offer.secret.tag, 101.0)
    assert switched.current == offer.secret
    assert not switched.pending
    assert (switched.current.epoch, switched.current.place) == (2, FIRST.tag)
    assert keyring.switch(switched, offer.secret.tag, 102.0) == switched
    assert keyring.drop(prepared, offer.secret.tag) == ring


def test_the_former_secret_gets_the_present_one_to_listed_nodes_for_a_time() -> None:
    ring = Keyring(FIRST)
    offer = offered(ring, 1)
    ring = keyring.switch(keyring.prepare(ring, offer, 0.0), offer.secret.tag, 0.0)
    assert keyring.entitled(ring, FIRST.tag, node(2), GRACE_S - 1)
    assert not keyring.entitled(ring, FIRST.tag, node(2), GRACE_S)
    assert not keyring.entitled(ring, FIRST.tag, node(3), 0.0), "it was no member"
    assert not keyring.entitled(ring, offer.secret.tag, node(2), 0.0)
    assert ring.was_ours(FIRST.tag)


def test_an_eviction_has_no_grace_and_ends_that_of_earlier_rotations() -> None:
    ring = Keyring(FIRST)
    plain = offered(ring, 1)
    ring = keyring.switch(keyring.prepare(ring, plain, 0.0), plain.secret.tag, 0.0)
    evicting = offered(ring, 2, members=2, evicts=True)
    ring = keyring.switch(keyring.prepare(ring, evicting, 50.0), evicting.secret.tag, 50.0)
    assert not ring.former
    assert all(ring.was_ours(tag) for tag in (FIRST.tag, plain.secret.tag))
    assert not any(keyring.entitled(ring, tag, node(1), 50.0) for tag in (FIRST.tag, plain.secret.tag))


def test_a_second_rotation_waits_until_the_first_is_over_or_was_cut_off() -> None:
    ring = keyring.prepare(Keyring(FIRST), offered(Keyring(FIRST), 1), 100.0)
    with pytest.raises(RotationRefused, match="Another rotation"):
        keyring.prepare(ring, offered(ring, 2), 100.0 + FRESH_S / 2)
    assert len(keyring.prepare(ring, offered(ring, 2), 100.0 + FRESH_S).pending) == 2


def test_what_is_not_of_this_cluster_or_is_older_is_refused() -> None:
    ring = Keyring(FIRST)
    with pytest.raises(RotationRefused):
        keyring.prepare(ring, offered(Keyring(ClusterSecret(b"o" * 32)), 1), 0.0)
    with pytest.raises(RotationRefused):
        keyring.prepare(Keyring(ClusterSecret(b"n" * 32, "", 2, FIRST.tag)), offered(ring, 1), 0.0)
    with pytest.raises(RotationRefused, match="open cluster"):
        keyring.prepare(Keyring(secret.open_secret("lab")), offered(Keyring(secret.open_secret("lab")), 1), 0.0)
    later = ClusterSecret(b"l" * 32, "", 3, FIRST.tag)
    assert keyring.take(ring, later, 0.0).current == later
    assert keyring.take(Keyring(later), FIRST, 0.0).current == later
    assert keyring.take(ring, ClusterSecret(b"x" * 32, "", 9, "0" * 16), 0.0) == ring


# --- many nodes -----------------------------------------------------------------------------------------------------


class World:
    """Nodes whose keyrings are on disk at every step: a crash loses what its process was about to do, nothing else."""

    def __init__(self, size: int) -> None:
        self.rings = [Keyring(FIRST)] * size
        self.now = 0.0
        self.values = itertools.count(1)

    def rotate(self, asked: int, reached: list[int], steps: int, evicted: int | None = None) -> None:
        """The node `asked` rotates and is cut off after so many steps; `reached` are the members that answer."""
        self.now += 2 * FRESH_S
        listed = tuple(node(i) for i in range(len(self.rings)) if i != evicted)
        before = self.rings[asked]
        offer = keyring.next_offer(before, bytes([next(self.values)]) * 32, listed=listed, evicts=evicted is not None)
        script = [("prepare", asked), *(("prepare", i) for i in reached if self.speak(asked, i)), ("switch", asked)]
        for what, at in [*script, *(("switch", i) for i in reached)][:steps]:
            if what == "prepare":
                try:
                    self.rings[at] = keyring.prepare(self.rings[at], offer, self.now)
                except RotationRefused:
                    return
            elif at == asked or self.rings[at].is_pending(offer.secret.tag):
                self.rings[at] = keyring.switch(self.rings[at], offer.secret.tag, self.now)

    def speak(self, one: int, other: int) -> bool:
        """Whether both are under one secret now."""
        return self.rings[one].current == self.rings[other].current

    def meet(self, dialler: int, acceptor: int) -> None:
        """One dials the other, as the transport does it."""
        mine, theirs = self.rings[dialler], self.rings[acceptor]
        tag = mine.current.tag
        self.rings[acceptor] = theirs = keyring.switch(theirs, tag, self.now)
        if theirs.current.tag == tag:
            return
        if keyring.entitled(theirs, tag, node(dialler), self.now):
            self.rings[dialler] = keyring.take(mine, theirs.current, self.now)
        elif mine.is_pending(theirs.current.tag):
            self.rings[dialler] = keyring.switch(mine, theirs.current.tag, self.now)
        elif any(keyring.entitled(theirs, t, node(dialler), self.now) for t in mine.understood(self.now)):
            self.rings[dialler] = keyring.take(mine, theirs.current, self.now)

    def settle(self, members: list[int]) -> None:
        for _ in range(3):
            for one, other in itertools.permutations(members, 2):
                self.meet(one, other)


@given(
    rotations=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), unique=True), st.integers(0, 9)), max_size=5
    ),
    meetings=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6),
)
@example(rotations=[(0, [], 2), (0, [], 1), (0, [], 1), (0, [], 1), (0, [], 2)], meetings=[])
def test_rotations_cut_off_anywhere_leave_all_members_under_one_secret(
    rotations: list[tuple[int, list[int], int]], meetings: list[tuple[int, int]]
) -> None:
    world = World(4)
    for asked, reached, steps in rotations:
        world.rotate(asked, [i for i in reached if i != asked], steps)
        for one, other in meetings:
            if one != other:
                world.meet(one, other)
    world.settle([0, 1, 2, 3])
    assert len({ring.current for ring in world.rings}) == 1


@given(
    reached=st.lists(st.integers(1, 3), unique=True),
    steps=st.integers(0, 9),
    order=st.permutations([(a, b) for a in range(4) for b in range(4) if a != b]),
)
def test_an_eviction_cut_off_anywhere_is_whole_or_nothing_and_never_reaches_the_evicted(
    reached: list[int], steps: int, order: list[tuple[int, int]]
) -> None:
    world = World(5)
    world.rotate(0, reached, steps, evicted=4)
    for one, other in order:
        world.meet(one, other)
        world.meet(4, one)
        world.meet(one, 4)
    assert world.rings[4] == Keyring(FIRST)
    world.settle([0, *reached])
    assert len({world.rings[i].current for i in (0, *reached)}) == 1
    if world.rings[0].current == FIRST:
        assert all(ring.current == FIRST for ring in world.rings), "it was given up, for everybody"


# --- on disk --------------------------------------------------------------------------------------------------------


def test_the_keyring_is_on_disk_and_nodes_of_one_user_share_it(tmp_path: Path) -> None:
    made = secret.load_or_make(tmp_path)
    one = keyfile.load(tmp_path)
    assert one == Keyring(made)
    offer = offered(one, 1)
    prepared = keyfile.change(tmp_path, one, lambda ring: keyring.prepare(ring, offer, 5.0))
    assert keyfile.load(tmp_path) == prepared
    assert secret.load(tmp_path) == made, "who starts now speaks under the present secret"
    switched = keyfile.change(tmp_path, prepared, lambda ring: keyring.switch(ring, offer.secret.tag, 6.0))
    assert keyfile.load(tmp_path) == switched
    assert secret.load(tmp_path) == offer.secret
    # another node of this user, which is told the same a moment later
    assert keyfile.change(tmp_path, prepared, lambda ring: keyring.switch(ring, offer.secret.tag, 7.0)) == switched
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_machine_that_has_joined_another_cluster_meanwhile_changes_nothing(tmp_path: Path) -> None:
    ring = Keyring(secret.load_or_make(tmp_path))
    secret.replace(tmp_path, ClusterSecret(b"o" * 32))
    assert keyfile.change(tmp_path, ring, lambda ring: keyring.prepare(ring, offered(ring, 1), 0.0)) == ring
    secret.forget(tmp_path)
    assert keyfile.change(tmp_path, ring, lambda ring: keyring.prepare(ring, offered(ring, 1), 0.0)) == ring
    assert secret.load(tmp_path) is None


@pytest.mark.parametrize(
    "line",
    ["{", '{"epoch":"x"}', '{"epoch":2}\n{}', '{"epoch":2,"pending":[1]}', "word", '{"origin":"../../elsewhere"}'],
)
def test_a_damaged_second_line_is_one_sentence(tmp_path: Path, line: str) -> None:
    secret.load_or_make(tmp_path)
    file = tmp_path / "secret"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ConfigError) as error:
        keyfile.load(tmp_path)
    assert str(error.value).endswith(".")
    assert "restore" in str(error.value)
