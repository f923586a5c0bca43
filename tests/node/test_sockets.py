"""The runtime directory: who is found, who is stale, and who comes back while being judged."""

import os
import socket
from pathlib import Path

import pytest

from p2premap.errors import ConfigError
from p2premap.ids import NodeId
from p2premap.node.sockets import identity_of, listed, node_of, publish, remove_stale, socket_path, unpublish

ONE, TWO = NodeId(b"\x01" * 16), NodeId(b"\x02" * 16)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


@pytest.fixture
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("r")


def test_a_published_socket_listens_and_is_private(directory):
    with publish(directory, ONE):
        path = socket_path(directory, ONE)
        assert listed(directory) == [path]
        assert node_of(path) == ONE
        assert path.stat().st_mode & 0o777 == 0o600
        assert connects(path)


def test_a_socket_has_its_name_only_when_it_listens(directory, monkeypatch):
    rename, renamed = Path.rename, []

    def look_and_rename(hidden, path):
        renamed.append(connects(hidden))
        return rename(hidden, path)

    monkeypatch.setattr(Path, "rename", look_and_rename)
    publish(directory, ONE).close()
    assert renamed == [True]


def test_the_oldest_come_first_and_strangers_are_not_listed(directory):
    (directory / "note.txt").write_text("x")
    (directory / f"{'0' * 32}.sock").write_text("a file, not a socket")
    (directory / "zz.sock").write_text("x")
    with publish(directory, TWO), publish(directory, ONE):
        for when, node in enumerate((TWO, ONE)):
            os.utime(socket_path(directory, node), ns=(when, when))
        assert listed(directory) == [socket_path(directory, TWO), socket_path(directory, ONE)]


def test_a_directory_that_is_not_there_holds_nothing(tmp_path):
    assert listed(tmp_path / "none") == []


def test_a_dead_owners_socket_refuses_and_is_removed(directory):
    publish(directory, ONE).close()
    path = socket_path(directory, ONE)
    seen = identity_of(path)
    assert seen is not None
    assert not connects(path)
    assert remove_stale(path, seen)
    assert listed(directory) == []
    assert list(directory.iterdir()) == []


def test_a_node_that_came_back_meanwhile_keeps_its_socket(directory):
    publish(directory, ONE).close()
    path = socket_path(directory, ONE)
    seen = identity_of(path)
    assert seen is not None
    with publish(directory, ONE):
        assert not remove_stale(path, seen)
        assert connects(path)
        assert [p.name for p in directory.iterdir()] == [path.name]


def test_a_node_removes_only_its_own_socket(directory):
    path = socket_path(directory, ONE)
    with publish(directory, ONE):
        first = identity_of(path)
    with publish(directory, ONE):
        unpublish(path, first)
        assert connects(path)
        unpublish(path, identity_of(path))
        assert not path.exists()
        unpublish(path, None)


def test_a_directory_that_cannot_be_written_is_one_sentence(directory):
    with pytest.raises(ConfigError, match="control socket"):
        publish(directory / "none", ONE)


def test_a_path_too_long_is_one_sentence(tmp_path):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with pytest.raises(ConfigError, match="too long"):
        publish(deep, ONE)
