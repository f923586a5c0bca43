"""Nodes of one machine find each other through their control sockets."""

from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from p2premap.config import DiscoveryConfig
from p2premap.control.answers import Welcome
from p2premap.control.nodes import Announce, Announced
from p2premap.gossip.events import Hinted
from p2premap.ids import Address, NodeId, RequestId
from p2premap.node.neighbours import Neighbours, answer, hints_of
from p2premap.node.sockets import listed, publish, socket_path
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.wire import FrameDecoder, encode_frame


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 16)


def at(number: int) -> Address:
    return Address("127.0.0.1", 7000 + number)


class Daemon:
    """The control socket of a node, as far as neighbours need it."""

    def __init__(self, directory, number, *, config):
        self.directory, self.number = directory, number
        self.hints: list[Hinted] = []
        self.listener = publish(directory, node(number))
        self.neighbours = Neighbours(
            directory=directory,
            me=node(number),
            addresses=(at(number),),
            hint=self.hints.append,
            config=config,
            rng=Random(number),
        )

    async def serve(self):
        await trio.serve_listeners(self._one, [trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))])

    async def _one(self, stream):
        welcome = Welcome(node=node(self.number), name="n", pid=1, version="0", cluster="c")
        await stream.send_all(encode_frame(FROM_DAEMON, welcome))
        decoder = FrameDecoder(FROM_CLIENT)
        while data := await stream.receive_some(65_536):
            for frame in decoder.feed(data):
                assert isinstance(frame.message, Announce)
                reply, hints = answer(frame.message, node(self.number), (at(self.number),))
                self.hints += hints
                await stream.send_all(encode_frame(FROM_DAEMON, reply))

    def heard(self) -> set[NodeId]:
        return {hint.node for hint in self.hints}


@pytest.fixture
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def start(directory):
    """Makes nodes in the directory; their sockets are closed in the end."""
    made: list[Daemon] = []

    def make(number: int, **limits: int) -> Daemon:
        made.append(Daemon(directory, number, config=DiscoveryConfig(**limits)))
        return made[-1]

    yield make
    for daemon in made:
        daemon.listener.close()


@asynccontextmanager
async def running(daemons):
    async with trio.open_nursery() as nursery:
        for daemon in daemons:
            nursery.start_soon(daemon.serve)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_both_sides_are_hinted(start):
    old, new = start(1), start(2)
    async with running([old, new]):
        await new.neighbours.run()
    assert new.hints == [Hinted(address=at(1), node=node(1))]
    assert old.hints == [Hinted(address=at(2), node=node(2))]


@pytest.mark.trio
async def test_many_started_together_are_one_connected_graph(start):
    daemons = [start(number, neighbours_max=4) for number in range(1, 31)]
    with trio.fail_after(60):
        async with running(daemons), trio.open_nursery() as nursery:
            for daemon in daemons:
                nursery.start_soon(daemon.neighbours.run)
    reached, todo = set(), [daemons[0]]
    while todo:
        daemon = todo.pop()
        reached.add(daemon.number)
        todo += [d for d in daemons if node(d.number) in daemon.heard() and d.number not in reached]
    assert reached == set(range(1, 31))
    assert sum(len(d.hints) for d in daemons) <= 2 * 4 * len(daemons)


@pytest.mark.trio
async def test_stale_sockets_are_removed_and_replaced_by_living_ones(start, directory):
    for number in range(1, 21):
        publish(directory, node(number)).close()
    old, new = start(100), start(101, neighbours_max=2)
    async with running([old, new]):
        await new.neighbours.run()
    assert new.heard() == {node(100)}
    assert len(listed(directory)) <= 2 + 20
    assert socket_path(directory, node(1)) not in listed(directory)


@pytest.mark.trio
async def test_a_stopped_owner_is_not_stale_and_is_told_when_it_goes_on(start, directory):
    stopped, new = start(1), start(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(new.neighbours.run)
        await trio.testing.wait_all_tasks_blocked()
        assert socket_path(directory, node(1)) in listed(directory)
        assert new.hints == []
        nursery.start_soon(stopped.serve)
        with trio.fail_after(60):
            while not (stopped.hints and new.hints):
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert stopped.hints == [Hinted(address=at(2), node=node(2))]


@pytest.mark.trio
async def test_a_socket_that_talks_nonsense_is_left_alone(start, directory):
    listener = publish(directory, node(1))
    new = start(2)

    async def nonsense(stream):
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners, nonsense, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        )
        await new.neighbours.run()
        nursery.cancel_scope.cancel()
    assert new.hints == []


def test_loopback_is_hinted_first_and_own_announcements_are_not_hints():
    lan, loop, wrong = Address("10.0.0.1", 1), Address("::1", 1), Address("not numeric", 1)
    assert [hint.address for hint in hints_of(node(1), (lan, wrong, loop))] == [loop, lan, wrong]
    reply, hints = answer(Announce(request=RequestId(7), node=node(1), addresses=(lan,)), node(1), (loop,))
    assert reply == Announced(request=RequestId(7), node=node(1), addresses=(loop,))
    assert hints == ()
