"""The node's database: what it keeps, and what it does with damage."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from p2premap.errors import ConfigError
from p2premap.ids import Address, NodeId
from p2premap.node.store import PEERS_MAX, SCHEMA_VERSION, Store

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)


def test_peers_survive_a_restart_and_new_addresses_replace_old_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    store.remember([(A, [Address("10.0.0.1", 7321), Address("fe80::1%eth0", 7321)]), (B, [Address("10.0.0.2", 1)])])
    store.remember([(A, [Address("10.0.0.9", 7321)])])
    store.close()
    again = Store(tmp_path / "node.db")
    assert sorted(again.peers()) == [(A, Address("10.0.0.9", 7321)), (B, Address("10.0.0.2", 1))]
    again.forget(B)
    assert again.peers() == [(A, Address("10.0.0.9", 7321))]
    again.close()


def test_a_damaged_database_is_put_aside_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"not a database" * 1000)
    store = Store(path)
    assert "damaged" in store.warning
    assert store.peers() == []
    store.remember([(A, [Address("10.0.0.1", 1)])])
    assert store.peers() == [(A, Address("10.0.0.1", 1))]
    assert [p.read_bytes()[:14] for p in tmp_path.glob("node.db.damaged-*")] == [b"not a database"]
    store.close()


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match="later release"):
        Store(path)


def test_a_directory_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot write"):
        Store(tmp_path / "nowhere" / "node.db")


def test_remembered_peers_are_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    for batch in range(PEERS_MAX // 100 + 3):
        store.remember((NodeId(f"{batch:08}{n:08}".encode()), [Address("10.0.0.1", n + 1)]) for n in range(100))
    assert PEERS_MAX <= len(store.peers()) <= PEERS_MAX + 100
    store.close()
