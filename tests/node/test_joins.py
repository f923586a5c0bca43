"""`--join`: what may be typed, and how long it is tried."""

from random import Random

import pytest
import trio

from p2premap.config import DiscoveryConfig
from p2premap.errors import ConfigError
from p2premap.gossip.events import Hinted
from p2premap.ids import Address
from p2premap.node import joins
from p2premap.node.joins import Joins, JoinTarget, parse_join, resolve


@pytest.mark.parametrize(
    ("typed", "host", "port"),
    [
        ("pi3.local:7321", "pi3.local", 7321),
        (" pi3 ", "pi3", 99),
        ("10.0.0.5", "10.0.0.5", 99),
        ("10.0.0.5:1", "10.0.0.5", 1),
        ("[fe80::1%eth0]:7321", "fe80::1%eth0", 7321),
        ("[::1]", "::1", 99),
        ("2001:db8::5", "2001:db8::5", 99),
    ],
)
def test_forms_that_are_understood(typed, host, port):
    assert parse_join(typed, default_port=99) == JoinTarget(host, port)


@pytest.mark.parametrize(
    "typed",
    [
        *("", ":7321", "host:", "host:x", "host:0", "host:65536", "host:٣", "[10.0.0.1]:1", "[::1", "300.1.1.1"),
        *(
            "1.2.3:4",
            "0.0.0.0:1",
            "224.0.0.1",
            "[fe80::1]:5",
            "a b",
            "-x",
            "http://host:1",
            "[::1]x:5",
            "x" * 300,
            "10.0.0.1:1:",
        ),
    ],
)
def test_bad_ones_are_one_clear_sentence(typed):
    with pytest.raises(ConfigError, match=r"--join .*Write HOST:PORT") as caught:
        parse_join(typed, default_port=99)
    assert "\n" not in str(caught.value)


@pytest.mark.trio
async def test_numbers_and_names_resolve():
    assert await resolve(JoinTarget("127.0.0.1", 5)) == (Address("127.0.0.1", 5),)
    assert Address("127.0.0.1", 5) in await resolve(JoinTarget("localhost", 5))


@pytest.mark.trio
async def test_tried_with_growing_pauses_until_a_member_is_known_there(autojump_clock, monkeypatch):
    hints: list[tuple[float, Hinted]] = []
    members: set[Address] = set()
    answers: list[OSError | tuple[Address, ...]] = [OSError(-2, "Name or service not known")]
    there = Address("10.0.0.9", 7)

    async def fake(target: JoinTarget) -> tuple[Address, ...]:
        await trio.lowlevel.checkpoint()
        answer = answers.pop() if answers else (there,)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(joins, "resolve", fake)
    config = DiscoveryConfig(join_retry_s=1.0, join_retry_max_s=8.0)
    tried = Joins(
        [JoinTarget("late", 7)],
        hint=lambda hint: hints.append((trio.current_time(), hint)),
        settled=members.__contains__,
        config=config,
        rng=Random(1),
    )
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tried.run)
        await trio.sleep(0.5)
        assert "--join late:7" in tried.warnings[0]
        assert hints == []
        await trio.sleep(60)
        assert tried.warnings == ()
        pauses = [b - a for (a, _), (b, _) in zip([(start, None), *hints], hints, strict=False)]
        assert 0.75 <= pauses[0] <= 1.0
        assert all(6.0 <= pause <= 8.0 for pause in pauses[4:])
        assert {hint for _, hint in hints} == {Hinted(address=there, node=None)}
        members.add(there)
        count = len(hints)
        await trio.sleep(60)
        assert len(hints) == count
        members.clear()  # lost again: tried again
        await trio.sleep(60)
        assert len(hints) > count
        nursery.cancel_scope.cancel()
