"""The machine's load: plausible numbers from the real system, and the arithmetic between two looks."""

from __future__ import annotations

import pytest

from p2premap.node import load
from p2premap.node.load import LoadSampler


def test_a_look_is_plausible_on_this_machine() -> None:
    sampler = LoadSampler()
    sum(range(200_000))
    look = sampler.look()
    assert 0.0 <= look.cpu <= 1.0
    assert 0 < look.memory_free_bytes <= load.memory_bytes()


def test_cpu_is_the_share_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(10.0, 100.0), (40.0, 200.0), (40.0, 200.0), (50.0, 210.0)])
    monkeypatch.setattr(load, "_cpu_times", lambda: next(times))
    sampler = LoadSampler()
    assert [sampler.look().cpu for _ in range(3)] == [0.3, 0.0, 1.0]
