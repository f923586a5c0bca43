"""What others do with this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2premap.node import others
from p2premap.node.load import MachineLoad
from p2premap.node.others import Others, OthersSampler, machine_now
from p2premap.node.processes import cpu_seconds

CALM = MachineLoad(0.5, 1 << 30, on_battery=True)


def test_cpu_time_of_children_that_have_ended_stays_ours() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.2, "each of four figures is cut to hundredths of a second"


def test_what_we_use_ourselves_is_not_use_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    now = machine_now(CALM, Others(own_cpus=1.5, user_active=False), cpus=4)
    assert (now.cpus, now.others_cpus, now.on_battery, now.user_active) == (4, 2.5, True, False)
    assert machine_now(CALM, Others(own_cpus=6.0, user_active=True), cpus=4).others_cpus == 0.0


def test_a_look_at_this_machine_is_plausible() -> None:
    sampler = OthersSampler()
    until = time.process_time() + 0.1  # the kernel tells it in hundredths of a second
    while time.process_time() < until:
        pass
    assert 0.0 < sampler.look().own_cpus < 2 * (os.cpu_count() or 1)


def test_who_typed_lately_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "_TERMINALS", tmp_path)
    terminal = tmp_path / "7"
    terminal.write_text("")
    os.utime(terminal, (0, 0))
    quiet = OthersSampler().look().user_active
    os.utime(terminal)
    assert OthersSampler().look().user_active
    assert not quiet or list(Path("/dev").glob("tty[0-9]*"))
