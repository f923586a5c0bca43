"""Looks what is installed on this machine: packages, programs, GPUs.

It is read from the names of directories and files alone, which takes milliseconds and imports nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from typing import Final

from p2premap.node.software import Software
from p2premap.tasks.placement import normal

PACKAGES_MAX: Final = 4_000
PROGRAMS_MAX: Final = 16_000

_INSTALLED: Final = re.compile(r"(?P<name>[A-Za-z0-9_.+-]+?)-(?P<version>\d[^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")


def look() -> Software:
    """This node's. Directories that cannot be read are passed over."""
    return Software(_packages(sys.path), tuple(_programs(os.get_exec_path())))


def _packages(path: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for directory in path:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(directory or ".")):
                installed = _INSTALLED.fullmatch(name)
                if installed is not None and len(found) < PACKAGES_MAX:
                    found.setdefault(normal(installed["name"]), installed["version"][:64])
    return found


def _programs(path: Iterable[str]) -> list[str]:
    """Short names first: those are the ones that somebody types."""
    found: set[str] = set()
    for directory in path:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            found |= {entry.name for entry in entries if len(entry.name) <= 100 and _runs(entry)}
    return sorted(found, key=lambda name: (len(name), name))[:PROGRAMS_MAX]


def _runs(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() and os.access(entry.path, os.X_OK)
    except OSError:
        return False


def gpus() -> int:
    """GPUs that the system's drivers show; 0 where there is none, or none that it tells of."""
    with contextlib.suppress(OSError):
        if found := os.listdir("/proc/driver/nvidia/gpus"):
            return len(found)
    with contextlib.suppress(OSError):  # AMD: a topology node with computing units is a GPU
        root = "/sys/class/kfd/kfd/topology/nodes"
        return sum(_is_gpu(f"{root}/{name}/properties") for name in os.listdir(root))
    return 0


def _is_gpu(path: str) -> bool:
    try:
        with open(path) as properties:
            return any(line.startswith("simd_count ") and line.split()[1] != "0" for line in properties)
    except OSError:
        return False
