"""Whole daemons in a virtual world: jobs outlive machines, one seed is one history, and a crash is no good-bye."""

from __future__ import annotations

import threading
from typing import get_args

import pytest
import trio
from trio._core import _run as private

from p2premap.ids import JobId
from p2premap.node.blobs import StoreUnwritable
from p2premap.node.events import NodeEffect
from p2premap.node.ledger_store import LedgerUnwritable
from p2premap.sim.daemon import determinism
from p2premap.sim.daemon.houses import DaemonWorld, simulate
from p2premap.sim.daemon.visitor import Visitor
from p2premap.sim.disks import Fault
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.observers import InvariantBroken
from p2premap.tasks.job import Phase
from tests.sim.stories import hand_in, leader_of, run_job


def test_the_private_parts_of_trio_are_there_and_are_put_back() -> None:
    before = private._ALLOW_DETERMINISTIC_SCHEDULING, trio.to_thread.run_sync, private._r.getstate()
    seen: list[tuple[bool, bool, str]] = []

    async def look() -> None:
        swapped = trio.to_thread.run_sync is not before[1]
        name = await trio.to_thread.run_sync(lambda: threading.current_thread().name)
        seen.append((private._ALLOW_DETERMINISTIC_SCHEDULING, swapped, name))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(order.append_later, number)

    class Order(list[int]):
        async def append_later(self, number: int) -> None:
            await trio.sleep(1.0)
            self.append(number)

    orders: list[list[int]] = []
    for seed in (1, 1, 2, 3, 4):
        order = Order()
        determinism.run(seed, look)
        orders.append(list(order))
    assert set(seen) == {(True, True, threading.current_thread().name)}
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) > 1, "trio's choices do not come from the seed"
    assert before == (private._ALLOW_DETERMINISTIC_SCHEDULING, trio.to_thread.run_sync, private._r.getstate())


def test_no_real_thread_and_no_real_socket_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a simulation went outside")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.socket.bind", refuse)

    async def story(daemons: DaemonWorld) -> Phase:
        await daemons.start_all()
        view, _ = await run_job(daemons)
        return view.phase

    assert simulate(story, nodes=3, seed=1) is Phase.DONE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["crash", "power_off", "pause"])
def test_a_job_outlives_its_leader(seed: int, how: str) -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()

        async def lose_the_leader(job: JobId) -> None:
            await trio.sleep(daemons.random.uniform(0.1, 1.2))
            seat = leader_of(daemons, job)
            assert seat is not None
            getattr(daemons.world, how)(seat)
            await trio.sleep(6.0)
            daemons.world.resume(seat)  # who watches a job through a node that stands still waits with it
            await trio.sleep_forever()

        view, visitor = await run_job(daemons, lose_the_leader)
        assert view.phase is Phase.DONE
        assert view.takeovers >= 1
        assert visitor.moves >= 1 or how == "pause"
        assert trio.current_time() < 20

    simulate(story, nodes=4, seed=seed)


def test_all_nodes_killed_at_once_and_started_again() -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()

        async def all_at_once(_: JobId) -> None:
            await trio.sleep(0.6)
            for seat in daemons.world.seats:
                daemons.world.crash(seat)
            await trio.sleep(1.0)
            for seat in daemons.world.seats:
                daemons.world.start(seat, Disk.KEPT)

        view, _ = await run_job(daemons, all_at_once)
        assert view.phase is Phase.DONE
        assert daemons.ledgers.counts["protected"] >= 24

    simulate(story, nodes=3, seed=2)


def test_a_bad_network_costs_time_only() -> None:
    async def story(daemons: DaemonWorld) -> Phase:
        await daemons.start_all()
        view, _ = await run_job(daemons)
        return view.phase

    assert simulate(story, nodes=3, seed=4, network=NetworkConfig(loss=0.1, duplicate=0.1, reorder=0.1)) is Phase.DONE


def test_a_crash_is_no_good_bye() -> None:
    """Nothing that the dead process still does in its `finally` reaches a disk, a peer or a client."""

    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        visitor = Visitor(daemons)
        job = await hand_in(visitor)
        await trio.sleep(0.5)
        seat = leader_of(daemons, job)
        assert seat is not None
        host, said = daemons.host_of(seat), _Effects(seat)
        daemons.world.observe(said)
        await trio.sleep(0.3)
        effects = len(said.effects)
        assert effects, "a leader is never silent"
        before = daemons.ledger_of(seat).batches(job, {})
        daemons.world.crash(seat)
        await trio.sleep(5.0)
        assert len(said.effects) == effects
        assert daemons.ledger_of(seat).batches(job, {}) == before
        with pytest.raises(StoreUnwritable):
            host.house.blobs.writer()
        with pytest.raises(LedgerUnwritable):
            host.house._records.write((), sync=True)

    simulate(story, nodes=3, seed=5)


class _Effects:
    """What one machine's process asks for."""

    kinds: tuple[type, ...] = get_args(NodeEffect)

    def __init__(self, seat: Seat) -> None:
        self.effects: list[object] = []
        self._seat = seat

    def effect(self, seat: Seat, effect: object) -> None:
        if seat is self._seat:
            self.effects.append(effect)

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass


def test_a_full_disk_is_told_and_another_node_takes_the_job() -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        daemons.set_disk(daemons.world.seats[0], Fault.FULL)
        visitor = Visitor(daemons, at=(0,))
        with trio.move_on_after(3.0) as scope:
            await hand_in(visitor)
        assert scope.cancelled_caught
        assert visitor.moves > 3
        elsewhere = Visitor(daemons, at=(1, 2))
        job = await hand_in(elsewhere)
        assert (await elsewhere.see_through(job)).phase is Phase.DONE

    simulate(story, nodes=3, seed=6)


def test_the_power_takes_what_was_not_synced() -> None:
    async def story(daemons: DaemonWorld) -> int:
        await daemons.start_all()

        async def lose_power(_: JobId) -> None:
            await trio.sleep(0.7)
            for seat in daemons.world.seats[2:]:
                daemons.world.power_off(seat)
                await trio.sleep(0.1)
                daemons.world.start(seat)

        view, _ = await run_job(daemons, lose_power)
        assert view.phase is Phase.DONE
        return sum(daemons.disk_of(seat).torn for seat in daemons.world.seats)

    assert sum(simulate(story, nodes=5, seed=seed) for seed in range(3)) > 0


def test_what_breaks_in_a_daemon_is_told_with_the_command_that_shows_it_again() -> None:
    async def story(daemons: DaemonWorld) -> None:
        await daemons.start_all()
        core = daemons.host_of(daemons.world.seats[1]).house.core
        core.worker.check_invariants = lambda: (_ for _ in ()).throw(AssertionError("a broken worker"))  # type: ignore[method-assign]
        await trio.sleep(5.0)

    with pytest.raises(InvariantBroken, match=r"core: .*a broken worker(.|\n)*replay: do it again") as caught:
        simulate(story, nodes=2, seed=1, replay="do it again")
    assert caught.value.checker == "core"
