"""A command starts in a tenth of a second: what it must not load, and how much CPU it may take."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import environment

HEAVY = {
    "trio", "rich", "ssl", "cryptography", "asyncio", "numpy", "cloudpickle", "psutil", "zeroconf", "sqlite3",
    "p2premap.gossip.events",
}  # fmt: skip
CPU_S = 0.6
"""Four times what it takes on a slow machine: this is about a heavy import that creeps in, not about the machine."""


@pytest.mark.parametrize("command", ["status", "nodes", "jobs", "watch", "logs", "cancel", "invite", "leave"])
def test_a_plain_command_loads_nothing_heavy(home: Path, command: str) -> None:
    code = (
        "import sys\n"
        "from p2premap.cli.app import cli\n"
        f"try:\n    cli.main({[command, *(['89abcdef'] if command in ('watch', 'logs', 'cancel') else [])]})\n"
        "except SystemExit as end:\n    assert end.code == 69, end.code\n"
        f"print(*sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_plain_command_takes_little_cpu(home: Path) -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "p2premap", "status"], env=environment(home), capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < CPU_S  # the first may compile, and whoever shares a core with others takes longer
