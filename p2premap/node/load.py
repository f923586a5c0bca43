"""How busy this machine is: CPU, memory, battery. Read from /proc where there is one, else by psutil.

psutil costs 30 ms and 2 MB to import, so a node on Linux never does it for this.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

_LINUX = sys.platform == "linux"
_POWER = Path("/sys/class/power_supply")


class MachineLoad(msgspec.Struct, frozen=True):
    """One look at the machine.

    Args:
        cpu: share of all CPUs in use since the last look, 0 to 1.
        memory_free_bytes: what programs could still take without swapping.
        on_battery: the machine runs from its battery.
    """

    cpu: float
    memory_free_bytes: int
    on_battery: bool


class LoadSampler:
    """Looks at the machine; each look covers the time since the one before."""

    def __init__(self) -> None:
        self._busy, self._total = _cpu_times()

    def look(self) -> MachineLoad:
        """The load now. Costs well under a millisecond.

        Raises:
            OSError: the system cannot be asked now, such as where no descriptor is free.
        """
        busy, total = _cpu_times()
        passed = total - self._total
        cpu = (busy - self._busy) / passed if passed > 0 else 0.0
        self._busy, self._total = busy, total
        return MachineLoad(min(1.0, max(0.0, cpu)), memory_free_bytes(), on_battery())


def _cpu_times() -> tuple[float, float]:
    """(busy, total) time of all CPUs together, in any one unit."""
    if _LINUX:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
        return float(sum(fields) - fields[3] - fields[4]), float(sum(fields))
    import psutil

    times = psutil.cpu_times()
    return float(sum(times) - times.idle), float(sum(times))


def memory_free_bytes() -> int:
    """What programs could still take without swapping."""
    if _LINUX:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    import psutil

    return int(psutil.virtual_memory().available)


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def on_battery() -> bool:
    """Whether the machine runs from its battery; False where it has none or nobody knows."""
    if _LINUX:
        return any(_read(supply / "status") == "Discharging" for supply in sorted(_POWER.glob("BAT*")))
    import psutil

    battery = psutil.sensors_battery()
    return battery is not None and not battery.power_plugged


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
