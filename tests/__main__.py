"""Everything that must hold, in one command: ``python -m tests [arguments of pytest]``.

Style, types and layers come first: they take seconds. The first failure ends the run; pytest's summary is the last
thing printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

WORKERS = "2"
"""Side by side: many tests wait for processes and for the network, so two take half the time of one on any machine."""

SHARED = ("--dist", "worksteal")
"""Whoever is done takes of what the other has: else one would get all of the slow tests, which come first."""

CHECKS: tuple[tuple[str, list[str]], ...] = (
    ("style", [str(BIN / "ruff"), "check", "."]),
    ("format", [str(BIN / "ruff"), "format", "--check", "."]),
    ("types", [str(BIN / "mypy")]),
    ("layers", [str(BIN / "lint-imports"), "--no-cache"]),  # a stale cache once kept a broken contract green
)


def main() -> int:
    """Run the checks, then the tests; returns the exit code."""
    for name, command in CHECKS:
        begun = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(done.stdout)
            print(f"{name}: FAILED: {' '.join(command)}")
            return done.returncode
        print(f"{name}: ok, {time.monotonic() - begun:.1f} s", flush=True)
    pytest = [sys.executable, "-m", "pytest", "-n", WORKERS, *SHARED]
    # hundreds of Pythons are started, and each would compile all that it imports: 0.7 of a node's 1.0 CPU seconds
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([*pytest, *sys.argv[1:]], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
