"""Asks the operating system what this machine is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from p2premap import __version__
from p2premap.node.capabilities import TAGS_MAX, Capabilities
from p2premap.node.installed import gpus
from p2premap.node.load import memory_bytes
from p2premap.node.paths import machine_hash


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def collect(*, blob_directory: Path, slots: int, tags: tuple[str, ...] = ()) -> Capabilities:
    """This node's capabilities.

    Args:
        slots: worker processes; 0 means one a CPU.
    """
    return Capabilities(
        machine=bytes.fromhex(machine_hash()),
        slots=slots or cpus(),
        blob_directory=str(blob_directory),
        cpus=cpus(),
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}"[:255],
        python=platform.python_version(),
        version=__version__,
        pid=os.getpid(),
        tags=tags[:TAGS_MAX],
        host=platform.node()[:255],
        gpus=gpus(),
    )
