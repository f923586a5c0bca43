"""What a node tells of itself: its status, its counters, and what of its surroundings works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from p2premap.control.nodes import Finding, Status
from p2premap.ids import RequestId

if TYPE_CHECKING:
    from p2premap.node.examiner import Examiner
    from p2premap.node.house import House


class Account:
    """One node's.

    Args:
        house: the node.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._examiner: Examiner | None = None

    def status(self, request: RequestId) -> Status:
        """This node and its cluster in a few facts."""
        house = self._house
        views = house.nodes()
        return Status(
            request=request,
            me=views[0],
            cluster=house.keys.secret.tag,
            scope=house.reach(),
            open_name=house.keys.secret.open_name,
            members=1 + len(house.others()),
            dead=sum(view.state == "dead" for view in views),
            state_dir=str(house.identity.directory),
            foreign=house.search.foreign(),
            warnings=(*filter(None, (house.ledger.trouble,)), *house.warnings.all(), *house.search.warnings()),
            counters=_counters(house),
            key_epoch=house.keys.secret.epoch,
            kept_bytes=house.quota.used.bytes,
            kept_bytes_max=house.quota.bytes_max,
        )

    async def diagnose(self) -> tuple[Finding, ...]:
        """What works and what does not."""
        from p2premap.node.examiner import Examiner  # only this question needs it

        house = self._house
        if self._examiner is None:
            self._examiner = Examiner(
                paths=house.user,
                config=house.config.discovery,
                port_first=house.transport_config().port_first,
                transport=house.transport,
                nodes=house.nodes,
                scope=house.reach,
                discovery=house.search.discovery,
                heard=house.transport.heard,
                open_name=house.keys.secret.open_name,
                troubles=house.search.troubles,
                warnings=house.warnings.all,
            )
        return await self._examiner.examine()


def _counters(house: House) -> dict[str, int]:
    """Every part's numbers under dotted names."""
    counters: dict[str, int] = {"core.refused_messages": house.core.refused_messages}
    for name, part in (
        ("driver", house.driver.statistics()),
        ("transport", house.transport.statistics()),
        ("gossip", house.gossip.statistics()),
        ("executor", house.executor.statistics()),
        ("stager", house.stager.statistics()),
        ("ledger", house.ledger.statistics()),
        ("discovery", house.search.discovery.statistics()),
        ("jobs", {"led": house.core.jobs.led, "kept": len(house.core.jobs.core.jobs())}),
    ):
        _flatten(name, part, counters)
    return counters


def _flatten(prefix: str, part: object, into: dict[str, int]) -> None:
    if isinstance(part, msgspec.Struct):
        part = msgspec.structs.asdict(part)
    if isinstance(part, Mapping):
        for key, value in part.items():
            _flatten(f"{prefix}.{key}", value, into)
    elif isinstance(part, int | float):
        into[prefix] = int(part)
