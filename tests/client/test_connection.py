"""A program's line to a daemon: finding it, asking, and what happens when it goes away."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from p2premap.client import connection as module
from p2premap.client.connection import NO_NODE, NodeSilent, RequestRefused, connect_to, local
from p2premap.control.answers import Done, Refused, Trouble
from p2premap.control.jobs import Jobs, ListJobs
from p2premap.control.nodes import GetStatus, ListNodes, Nodes, Stop
from p2premap.errors import NodeUnavailable, PeerUnreachable, RemoteProtocolError
from p2premap.ids import NodeId
from p2premap.node import sockets
from p2premap.node.paths import Paths
from p2premap.wire import Message
from tests.fakedaemon import Answer, FakeDaemon

OTHER = NodeId(b"other node id 16")


def nothing(message: Message, payload: bytes) -> Iterable[Answer]:
    return []


def done(message: Message, payload: bytes) -> Iterable[Answer]:
    return [Done(request=message.request, text="so be it")]


def test_without_any_directory_there_is_no_node_and_none_is_made(paths: Paths) -> None:
    with pytest.raises(NodeUnavailable, match=NO_NODE):
        local(paths=paths)
    assert not paths.runtime.exists()


def test_a_request_gets_its_answer(paths: Paths) -> None:
    with FakeDaemon(paths, done) as daemon, local(paths=paths) as connection:
        assert connection.welcome.name == "pi1"
        assert connection.do(lambda n: Stop(request=n)) == "so be it"
        assert connection.do(lambda n: Stop(request=n)) == "so be it"
        assert [m.request for m in daemon.requests] == [1, 2]


def test_a_dead_daemons_socket_is_passed_over(paths: Paths) -> None:
    dead = FakeDaemon(paths, done, name="dead")
    dead.close()
    assert dead.path.exists()
    with FakeDaemon(paths, done, node=OTHER, name="pi2"), local(paths=paths) as connection:
        assert connection.welcome.name == "pi2"


def test_a_stopped_daemon_is_passed_over(paths: Paths) -> None:
    directory = paths.sockets("c0ffee")
    with sockets.publish(directory, NodeId(bytes(16))):  # the kernel accepts, nobody speaks
        with FakeDaemon(paths, done, node=OTHER, name="pi2"), local(paths=paths) as connection:
            assert connection.welcome.name == "pi2"
        with pytest.raises(NodeSilent, match="does not answer"):
            local(paths=paths, patience_s=0.0)


def test_a_daemon_with_no_room_for_one_more_is_silent(paths: Paths) -> None:
    directory = paths.sockets("c0ffee")
    with sockets.publish(directory, OTHER) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.listen(0)
        waiting.connect(str(sockets.socket_path(directory, OTHER)))  # there is room for one
        with pytest.raises(NodeSilent, match="does not answer"):
            local(paths=paths, patience_s=0.0)


@pytest.mark.parametrize("name", ["", "pi1"])
def test_a_node_that_says_nothing_is_waited_for_where_no_other_will_do(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with FakeDaemon(paths, done) as slow, contextlib.ExitStack() as later:
        if name:
            later.enter_context(FakeDaemon(paths, done, node=OTHER, name="pi2"))
        connect, silences = module._connect_once, [module._Silent("it is busy"), module._Silent("it is busy")]

        def connect_once(path: Path) -> module.Connection:
            if path == slow.path and silences:
                raise silences.pop()
            return connect(path)

        monkeypatch.setattr(module, "_connect_once", connect_once)
        with pytest.raises(NodeSilent, match=r"it is busy|there is pi2, and one that does not say"):
            local(name, paths=paths, patience_s=0.0)
        with local(name, paths=paths) as connection:
            assert connection.welcome.name == "pi1"
        assert not silences


def test_who_serves_the_page_waits_for_its_node(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDaemon(paths, done) as slow:
        connect, silences = module._connect_once, [module._Silent("it is busy"), module._Silent("it is busy")]
        monkeypatch.setattr(module, "_connect_once", lambda path: connect(path) if not silences else tell(silences))

        def tell(silences: list[module._Silent]) -> module.Connection:
            raise silences.pop()

        with connect_to(str(slow.path)) as connection:
            assert connection.welcome.name == "pi1"
    with pytest.raises(PeerUnreachable, match="does not answer"):
        connect_to(str(slow.path))


def test_a_node_is_chosen_by_name_or_by_the_beginning_of_its_id(paths: Paths) -> None:
    with FakeDaemon(paths, done), FakeDaemon(paths, done, node=OTHER, name="pi2"):
        for wanted in ("pi2", OTHER.hex(), OTHER.hex()[:6].upper()):
            with local(wanted, paths=paths) as connection:
                assert connection.welcome.node == OTHER
        with pytest.raises(NodeUnavailable, match="No node called 'pi3' answers on this machine; there is pi1, pi2"):
            local("pi3", paths=paths)


def test_a_refusal_is_an_error_with_the_daemons_sentence(paths: Paths) -> None:
    def refuse(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Refused(request=message.request, trouble=Trouble.NOT_FOUND, text="No such job.")]

    with FakeDaemon(paths, refuse), local(paths=paths) as connection:
        with pytest.raises(RequestRefused, match=r"No such job\.") as caught:
            connection.do(lambda n: Stop(request=n))
        assert caught.value.trouble is Trouble.NOT_FOUND


def test_late_answers_to_an_earlier_request_are_dropped(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case ListNodes():
                return []
            case _:
                return [Nodes(request=1, views=()), Jobs(request=message.request, views=())]

    with FakeDaemon(paths, script), local(paths=paths) as connection:
        with pytest.raises(PeerUnreachable, match="did not answer"):
            connection.ask(lambda n: ListNodes(request=n), Nodes, timeout_s=0.05)
        assert connection.ask(lambda n: ListJobs(request=n), Jobs).request == 2


def test_an_answer_of_another_kind_is_a_protocol_error(paths: Paths) -> None:
    with FakeDaemon(paths, done), local(paths=paths) as connection, pytest.raises(RemoteProtocolError):
        connection.ask(lambda n: ListNodes(request=n), Nodes)


def test_a_daemon_that_dies_is_unreachable(paths: Paths) -> None:
    def die(message: Message, payload: bytes) -> Iterable[Answer]:
        return [None]

    with FakeDaemon(paths, die), local(paths=paths) as connection, pytest.raises(PeerUnreachable, match="closed"):
        connection.do(lambda n: GetStatus(request=n))


@pytest.mark.parametrize(
    "first_words",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02" + bytes(20), b"\x01\xff\xff\xff\xff\0\0\0\0", bytes(9)],
    ids=["another protocol", "another version", "over the cap", "zeros"],
)
def test_what_is_no_welcome_is_told_in_one_sentence(paths: Paths, first_words: bytes) -> None:
    daemon = FakeDaemon(paths, nothing)
    daemon.welcome = first_words
    with daemon, pytest.raises(NodeUnavailable) as caught:
        local(paths=paths)
    assert str(caught.value).startswith("No p2premap node answers on this machine: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_socket_is_not_asked(paths: Paths) -> None:
    directory = paths.sockets("c0ffee")
    sockets.socket_path(directory, OTHER).write_text("")
    (directory / "notes.txt").write_text("")
    with pytest.raises(NodeUnavailable, match="start one"):
        local(paths=paths)


def test_a_large_frame_arrives_whole(paths: Paths) -> None:
    from p2premap.client.jobs import read_log
    from p2premap.control.answers import Chunk

    data = bytes(range(256)) * 20_000

    def log(message: Message, payload: bytes) -> Iterable[Answer]:
        return [(Chunk(request=message.request), data), (Chunk(request=message.request, last=True), b"end")]

    with FakeDaemon(paths, log), local(paths=paths) as connection:
        assert b"".join(read_log(connection, b"ab")) == data + b"end"


def test_the_socket_of_the_test_is_a_unix_socket(paths: Paths) -> None:
    with FakeDaemon(paths, done) as daemon:
        assert isinstance(daemon.path, Path)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(daemon.path))
