"""Discovery is begun anew where the system refused it something; what is a fault is one."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from p2premap.node.search import REFUSED_S, persist

pytestmark = pytest.mark.trio


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), ImportError("cannot open it")])
async def test_what_the_system_refuses_is_tried_again(autojump_clock: trio.testing.MockClock, error: Exception) -> None:
    begun: list[float] = []

    async def refused_twice() -> None:
        begun.append(trio.current_time())
        async with trio.open_nursery():
            if len(begun) < 3:
                raise error

    await persist(refused_twice)
    assert [at - begun[0] for at in begun] == [0, REFUSED_S, 2 * REFUSED_S]


async def test_a_fault_is_not_hidden() -> None:
    async def faulty() -> None:
        async with trio.open_nursery():
            raise ValueError("ours")

    with pytest.raises(ExceptionGroup):
        await persist(faulty)
