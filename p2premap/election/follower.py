"""What a replica does with what leaders and candidates send it.

Every function takes the job, the sender and the message, and answers through the context: at once where the answer
rests on nothing new, else when that is on disk.
"""

from __future__ import annotations

from p2premap.election.config import Config, is_config
from p2premap.election.context import Context
from p2premap.election.job import Job
from p2premap.election.messages import (
    Accept,
    Accepted,
    Ack,
    Append,
    Batches,
    Beat,
    Chosen,
    Moved,
    Nack,
    Over,
    Prepare,
    Promise,
)
from p2premap.election.records import CellRecord, StoredBatch
from p2premap.election.streams import portions
from p2premap.errors import RemoteProtocolError
from p2premap.ids import Ballot, NodeId


def inactive(context: Context, job: Job, node: NodeId) -> bool:
    """Whether the job is over or not ours any more; then the sender is told so."""
    record = job.replica.record
    if record.view:
        context.send(node, Over(job=record.job, view=record.view))
    elif record.gone:
        context.send(node, Moved(job=record.job, promised=record.promised, members=record.members))
    else:
        return False
    return True


def _follows(context: Context, job: Job, node: NodeId, ballot: Ballot) -> bool:
    """Whether what comes under this ballot is to be followed; the sender is told where it is not."""
    if inactive(context, job, node):
        return False
    promised = job.replica.promised
    if ballot.epoch > promised.epoch:
        job.want(node)
        return False
    if ballot.epoch < promised.epoch:
        tell_epoch(context, job, node)
        return False
    if not job.obey(ballot):
        context.send(node, Nack(job=job.replica.job, promised=promised))
        return False
    return True


def tell_epoch(context: Context, job: Job, node: NodeId) -> None:
    """Tell a node that lives in an earlier epoch what the replica set is now, and the cells that say so."""
    replica = job.replica
    context.send(node, Moved(job=replica.job, promised=replica.promised, members=replica.members))
    if cells := tuple(cell for cell in replica.chosen_cells() if is_config(cell.cell)):
        context.send(node, Chosen(cells=cells))


def on_beat(context: Context, job: Job, node: NodeId, beat: Beat) -> None:
    """The leader is there; is anything of what it has lacking here?"""
    if not _follows(context, job, node, beat.ballot) or node != beat.ballot.node:
        return
    job.heard(node, beat.copies)
    replica = job.replica
    held = replica.streams.serials.get(beat.ballot, -1)
    if held < beat.serial or replica.chosen < beat.cells:
        job.want(node)
    job.ask_boots()
    _ack(context, job, node, beat.ballot)


def on_append(context: Context, job: Job, node: NodeId, append: Append) -> None:
    """Batches of the leader's own stream."""
    ballot = append.ballot
    if not _follows(context, job, node, ballot) or node != ballot.node:
        return
    job.heard(node)
    replica = job.replica
    batches = [
        StoredBatch(job=replica.job, ballot=ballot, serial=append.serial + n, batch=batch)
        for n, batch in enumerate(append.batches)
    ]
    if not replica.store(batches, lambda: _ack(context, job, node, ballot)):
        if replica.streams.serials.get(ballot, -1) < append.serial:
            job.want(node)
        else:
            _ack(context, job, node, ballot)


def on_batches(context: Context, job: Job, node: NodeId, message: Batches) -> None:
    """Facts that were lacking here, from whom this replica follows; a candidate takes them from all."""
    if job.replica.active and job.replica.promised.node in (node, context.me):
        job.replica.store(message.batches, lambda: _ack(context, job, node, job.replica.promised))


def _ack(context: Context, job: Job, node: NodeId, ballot: Ballot) -> None:
    """Tell a leader how far its stream is on disk here, unless a higher ballot has been promised since."""
    replica = job.replica
    if node == ballot.node and ballot == replica.promised and replica.active:
        # who may have forgotten a promise to another leader must not make this one believe that its facts are safe
        serial = replica.durable.get(ballot) if job.boots.confirmed(replica.members) else None
        ack = Ack(
            job=replica.job,
            ballot=ballot,
            serial=serial,
            cells=replica.chosen_durable,
            amnesiac=replica.record.amnesiac,
            copying=job.provision.copying,
            unwritable=bool(context.journal.trouble),
        )
        context.ack(node, ack)


def on_accept(context: Context, job: Job, node: NodeId, message: Accept) -> None:
    """Accept a value."""
    if not job.votes or not _makes_sense(message.cell, message.value):
        return
    if not _follows(context, job, node, message.ballot) or node != message.ballot.node:
        return
    job.heard(node)
    replica = job.replica
    answer = Accepted(job=replica.job, ballot=message.ballot, cell=message.cell)
    known = replica.cells.get(message.cell)
    if known is not None and known.chosen:
        context.send(node, Chosen(cells=(known,)))
    elif known is not None and known.ballot == message.ballot:
        replica.write(sync=True, then=lambda: context.send(node, answer))
    else:
        accepted = CellRecord(
            job=replica.job, cell=message.cell, ballot=message.ballot, value=message.value, serial=message.serial
        )
        replica.accept(accepted, lambda: context.send(node, answer))


def on_prepare(context: Context, job: Job, node: NodeId, message: Prepare) -> None:
    """Promise, and send the facts that the candidate lacks."""
    replica = job.replica
    if not replica.active or message.ballot.epoch != replica.promised.epoch:
        _follows(context, job, node, message.ballot)
        return
    if replica.record.amnesiac:
        context.send(node, Nack(job=replica.job, promised=replica.promised, amnesiac=True))
    if not job.votes or node not in replica.members or node != message.ballot.node:
        return
    if not _follows(context, job, node, message.ballot):
        return
    job.wait(context.config.missed_s)
    vector = dict(message.vector)

    def answer(batches: tuple[StoredBatch, ...]) -> None:
        if replica.promised != message.ballot or not replica.active:
            return
        for portion in portions(batches, context.config.batch_bytes_max):
            context.send(node, Batches(batches=portion))
        promise = Promise(
            job=replica.job, ballot=message.ballot, vector=tuple(sorted(held.items())), cells=replica.promised_cells()
        )
        context.send(node, promise)

    held = dict(replica.streams.serials)
    if replica.streams.exceeds(vector):
        replica.write(sync=True, then=lambda: replica.load_beyond(vector, answer))
    else:
        replica.write(sync=True, then=lambda: answer(()))


def on_chosen(job: Job, message: Chosen) -> None:
    """Cells are decided."""
    if job.replica.active:
        for cell in message.cells:
            if cell.job == job.replica.job and job.replica.active and _makes_sense(cell.cell, cell.value):
                job.decide(cell)


def _makes_sense(cell: str, value: bytes) -> bool:
    """Whether a value may stand in this cell, as far as this room knows."""
    if is_config(cell):
        try:
            Config.decode(value)
        except RemoteProtocolError:
            return False
    return True
