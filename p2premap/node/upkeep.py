"""What a node does again and again beside its work: it looks at its machine, and removes what is old."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from p2premap.config import OwnerLimits
from p2premap.gossip import events as gossip
from p2premap.gossip.facts import LoadMeter
from p2premap.node.events import SoftwareKnown
from p2premap.node.load import LoadSampler
from p2premap.node.logs import sweep_logs
from p2premap.node.others import OthersSampler, machine_now
from p2premap.node.software import Software
from p2premap.tasks import events as tasks

if TYPE_CHECKING:
    from p2premap.node.house import House

SOFTWARE_S: Final = 1.0
LOAD_S: Final = 1.0
TIDY_S: Final = 3600.0
KEEP_S: Final = 7 * 86_400.0

log = logging.getLogger(__name__)


async def keep_load(house: House, sampler: LoadSampler) -> None:
    """Tell the others how busy this machine is, and this node's slots what its owner keeps for other things."""
    others, meter, before = OthersSampler(), LoadMeter(), b""
    mine = house.core.capabilities(house.identity.node)
    assert mine is not None
    limited = house.config.limits != OwnerLimits()
    if limited:
        house.deliver(tasks.SetLimits(limits=house.config.limits))
    while True:
        try:
            look = sampler.look()
        except OSError as error:  # no descriptor is free just now
            log.warning("this machine's load cannot be read: %s", error.strerror)
            await trio.sleep(LOAD_S)
            continue
        if limited:
            house.deliver(machine_now(look, await trio.to_thread.run_sync(others.look), cpus=mine.cpus))
        value = meter.measure(
            busy_slots=house.core.worker.busy / max(1, mine.slots),
            cpu=look.cpu,
            memory=1.0 - look.memory_free_bytes / max(1, mine.memory_bytes),
            battery_used=1.0 if look.on_battery else 0.0,
        )
        if value != before:
            house.deliver(gossip.SetLoad(value=value))
            before = value
        await trio.sleep(LOAD_S)


async def keep_tidy(house: House) -> None:
    """Results and logs stay for `KEEP_S`; what a job that goes on for longer misses then is made again."""
    while True:
        keep = house.core.jobs.blobs_in_use() | house.bringer.blobs_in_use()
        try:
            await trio.to_thread.run_sync(partial(house.blobs.sweep, older_s=KEEP_S, keep=keep))
            await trio.to_thread.run_sync(partial(sweep_logs, house.executor.logs, older_s=KEEP_S))
            await sweep_environments(house, KEEP_S)
        except OSError as error:
            house.warnings.add(f"Old results in {house.identity.directory} cannot be removed: {error.strerror}.")
        await trio.sleep(TIDY_S)


async def sweep_environments(house: House, older_s: float) -> int:
    """Environments that no job has used for so long go; how many have."""
    in_use = house.executor.environments_in_use()
    gone = await trio.to_thread.run_sync(partial(house.environments.sweep, older_s=older_s, in_use=in_use))
    for digest in gone:
        house.deliver(tasks.EnvironmentTold(digest=digest))
    return len(gone)


async def look_for_software(house: House, look: Callable[[], Software]) -> None:
    """Once the node is up: few jobs require any, and nobody's start shall wait for it."""
    await trio.sleep(SOFTWARE_S)
    house.deliver(SoftwareKnown(software=await trio.to_thread.run_sync(look)))
