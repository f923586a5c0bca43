"""Two machines, as far as one machine can show them: two homes, one cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap import connect
from p2premap.client import reach
from p2premap.client.private import PrivateCluster
from p2premap.client.reach import _addresses
from tests.cluster import eventually, p2premap, private


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CONNECT_S", 30.0)  # these members are there, however busy this machine is


@pytest.fixture(scope="module")
def guest_and_host() -> Iterator[tuple[PrivateCluster, PrivateCluster]]:
    """A node that was invited by another one, under another home."""
    with private(["host"]) as host, private(["guest"]) as guest:
        token = p2premap(host.home, "invite").stdout.strip()
        joined = p2premap(guest.home, "join", token)
        assert joined.exit_code == 0, joined.stderr
        eventually(lambda: names(guest.home) == {"host", "guest"})
        eventually(lambda: names(host.home) == {"host", "guest"})
        yield guest, host


def names(home: str) -> set[str]:
    return names_at(home, "")


def names_at(home: str, node: str) -> set[str]:
    done = p2premap(home, "--node", node, "nodes", "--json")
    return (
        {view["name"] for view in json.loads(done.stdout) if view["state"] == "alive"} if not done.exit_code else set()
    )


def test_a_token_is_good_once(guest_and_host: tuple[PrivateCluster, PrivateCluster]) -> None:
    _, host = guest_and_host
    token = p2premap(host.home, "invite").stdout.strip()
    with private(["second"]) as second, private(["third"]) as third:
        assert p2premap(second.home, "join", token).exit_code == 0
        refused = p2premap(third.home, "join", token)
        assert refused.exit_code == 1
        assert refused.stderr.count("\n") == 1
        assert "invite" in refused.stderr
        eventually(lambda: "second" in names(host.home))
        left = p2premap(second.home, "leave")
        assert left.exit_code == 0, left.stderr
        eventually(lambda: "second" not in names(host.home))


def test_joining_twice_changes_nothing_and_joining_another_cluster_needs_leave(
    guest_and_host: tuple[PrivateCluster, PrivateCluster],
) -> None:
    guest, host = guest_and_host
    again = p2premap(guest.home, "join", p2premap(host.home, "invite").stdout.strip())
    assert (again.exit_code, again.stderr) == (0, "This machine is already a member of that cluster.\n")
    with private(["stranger"]) as stranger:
        refused = p2premap(guest.home, "join", p2premap(stranger.home, "invite").stdout.strip())
    assert refused.exit_code == 1
    assert "--leave" in refused.stderr


def test_without_its_own_node_a_machine_asks_members_that_it_knew(
    guest_and_host: tuple[PrivateCluster, PrivateCluster],
) -> None:
    guest, host = guest_and_host
    job = p2premap(host.home, "run", "examples/wordcount.py", __file__, "--detach").stdout.strip()
    guest.stop("guest")
    found = p2premap(guest.home, "nodes", "--json")
    assert found.exit_code == 0, found.stderr
    assert found.stderr == "No node runs on this machine; host answers.\n"
    assert "host" in {view["name"] for view in json.loads(found.stdout)}
    assert p2premap(guest.home, "watch", job).exit_code == 0
    assert p2premap(guest.home, "status").exit_code == 69
    refused = p2premap(guest.home, "run", "examples/wordcount.py", __file__)
    assert refused.exit_code == 69


def test_whoever_was_met_a_moment_ago_is_remembered_after_a_power_cut() -> None:
    with private(["inviting"]) as inviting, private(["invited"]) as invited:
        token = p2premap(inviting.home, "invite").stdout.strip()
        assert p2premap(invited.home, "join", token).exit_code == 0
        eventually(lambda: names(inviting.home) == {"inviting", "invited"})
        remembered = eventually(lambda: list(_addresses(inviting.paths, tag(inviting))))
        assert remembered
        inviting.kill("inviting")
        found = p2premap(inviting.home, "nodes")
        assert found.exit_code == 0, found.stderr
        assert found.stderr == "No node runs on this machine; invited answers.\n"


def test_a_program_goes_on_over_tls_when_its_machine_has_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    with private(["there"]) as there, private(["here"]) as here:
        assert p2premap(here.home, "join", p2premap(there.home, "invite").stdout.strip()).exit_code == 0
        eventually(lambda: names(here.home) == names(there.home) == {"here", "there"})
        monkeypatch.setenv("P2PREMAP_HOME", here.home)
        with connect() as cluster:
            assert cluster.submit(abs, -1).result(60) == 1
            waiting = [cluster.submit(_beyond, str(gate), n) for n in range(8)]
            here.stop("here")
            gate.touch()
            assert [future.result(120) for future in waiting] == list(range(8))
            assert list(cluster.map(abs, range(-1_000, 0))) == list(range(1_000, 0, -1))


def _beyond(gate: str, number: int) -> int:
    while not Path(gate).exists():
        time.sleep(0.01)
    return number


def tag(cluster: PrivateCluster) -> str:
    """The public name of the cluster that these nodes are in."""
    return str(json.loads(p2premap(cluster.home, "status", "--json").stdout)["cluster"])


def test_who_leaves_hears_that_other_nodes_of_the_machine_stay() -> None:
    with private(["one", "other"]) as machine:
        left = p2premap(machine.home, "--node", "one", "leave")
        assert left.stderr.endswith("1 other node of it stays in the old one until stopped.\n"), left.stderr
        eventually(lambda: names_at(machine.home, "one") == {"one"})
        eventually(lambda: names_at(machine.home, "other") == {"other"})
