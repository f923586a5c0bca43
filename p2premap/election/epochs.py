"""From one replica set of a job to the next, as this node learns of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from p2premap.election.boots import BootCheck
from p2premap.election.config import Config, config_cell
from p2premap.election.context import Context
from p2premap.election.events import Dropped
from p2premap.election.messages import Moved, StoreJob
from p2premap.ids import Ballot, NodeId

if TYPE_CHECKING:
    from p2premap.election.job import Job


def enter(context: Context, job: Job) -> None:
    """Follow the replica sets that are decided, one after the other."""
    replica = job.replica
    led = job.leadership is not None
    while replica.active:
        cell = replica.cells.get(config_cell(replica.promised.epoch + 1))
        if cell is None or not cell.chosen:
            break
        _enter(context, job, Config.decode(cell.value))
        if led and replica.active and job.may_stand():
            job.stand()
        elif job.carried is not None:
            job.step_down(context.config.missed_s)
        led = False
    job.announce()


def _enter(context: Context, job: Job, config: Config) -> None:
    replica, me = job.replica, context.me
    promised = Ballot(replica.promised.epoch + 1, replica.promised.n, replica.promised.node)
    job.pause()
    job.leader = None
    job.highest = max(job.highest, promised)
    if me not in config.members:
        leave(context, job, promised, config.members)
        return
    fresh = config.boot_of(me) == context.boot
    job.forgetful.clear()
    job.boots = BootCheck(me, fresh=fresh, amnesiac=replica.record.amnesiac and not fresh)
    replica.update(
        msgspec.structs.replace(
            replica.record,
            members=config.members,
            promised=promised,
            boots=config.boots,
            amnesiac=job.boots.amnesiac,
        )
    )


def leave(context: Context, job: Job, promised: Ballot, members: tuple[NodeId, ...]) -> None:
    """Be no replica any more."""
    job.retire()
    replica = job.replica
    replica.leave(promised, members, lambda: context.out.append(Dropped(job=replica.job)))


def on_moved(context: Context, job: Job, node: NodeId, message: Moved) -> None:
    """Somebody tells that the replica set is another one."""
    replica, me = job.replica, context.me
    if replica.record.gone and message.promised.epoch > replica.promised.epoch:
        record = msgspec.structs.replace(replica.record, promised=message.promised, members=message.members)
        replica.update(record)
    if not replica.active:
        return
    if not message.members:
        leave(context, job, replica.promised, ())
    elif message.promised.epoch > replica.promised.epoch:
        for member in message.members:
            if member != me and context.reachable(member):
                job.want(member)
    elif job.leadership is not None and node in job.leadership.others():
        context.send(node, StoreJob(record=replica.record))
    elif me not in replica.members and message.promised.epoch == replica.promised.epoch:
        leave(context, job, replica.promised, replica.members)
