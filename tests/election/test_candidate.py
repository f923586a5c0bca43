"""What a candidate adopts from its promises."""

from __future__ import annotations

from random import Random

from p2premap.config import ElectionConfig
from p2premap.election.candidate import Candidacy
from p2premap.election.config import Config, config_cell
from p2premap.election.context import Context, Peer
from p2premap.election.messages import Prepare, Promise
from p2premap.election.records import CellRecord, JobRecord
from p2premap.election.replica import Replica
from p2premap.election.streams import encode_head
from p2premap.ids import JOB_ID_BYTES, Ballot, Boot, JobId, NodeId

JOB = JobId(b"j" * JOB_ID_BYTES)
A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))


def ballot(n: int, node: NodeId = A, epoch: int = 0) -> Ballot:
    return Ballot(epoch, n, node)


def cell(name: str, n: int, value: bytes, *, chosen: bool = False, epoch: int = 0) -> CellRecord:
    return CellRecord(job=JOB, cell=name, ballot=ballot(n, epoch=epoch), value=value, chosen=chosen)


def stand(n: int, *, own: tuple[CellRecord, ...] = (), epoch: int = 0) -> tuple[Context, Candidacy, list[Candidacy]]:
    context = Context(me=A, boot=Boot(1), former=(), config=ElectionConfig(), rng=Random(1), now=0.0)
    context.peers = {B: Peer(Boot(1), 0.0), C: Peer(Boot(1), 0.0)}
    promised = ballot(n - 1, epoch=epoch)
    record = JobRecord(job=JOB, key=b"k", spec=b"s", members=(A, B, C), promised=promised)
    won: list[Candidacy] = []
    candidacy = Candidacy(context, Replica(context, record, own), ballot(n, epoch=epoch), won.append)
    candidacy.start(lambda _: True)
    return context, candidacy, won


def persist(context: Context) -> None:
    write = context.journal.flush(0.0)
    assert write is not None
    context.journal.persisted(write.token)


def promise(n: int, cells: tuple[CellRecord, ...] = (), *, vector=(), epoch: int = 0) -> Promise:
    return Promise(job=JOB, ballot=ballot(n, epoch=epoch), vector=vector, cells=cells)


def test_nobody_is_asked_before_the_own_promise_is_on_disk():
    context, candidacy, _ = stand(1)
    assert context.out == []
    candidacy.ask(B)
    assert context.out == []
    persist(context)
    assert [type(effect.message) for effect in context.out] == [Prepare, Prepare]


def test_the_value_of_the_highest_ballot_is_adopted():
    context, candidacy, won = stand(9, own=(cell("m", 3, b"old"), cell("own", 1, b"mine")))
    persist(context)
    candidacy.hear(B, promise(9, (cell("m", 5, b"new"),)))
    assert won == [candidacy]
    assert {c.cell: c.value for c in candidacy.adopted()} == {"m": b"new", "own": b"mine"}
    candidacy.hear(C, promise(9, (cell("m", 4, b"other"),)))
    assert {c.cell: c.value for c in candidacy.adopted()} == {"m": b"new", "own": b"mine"}


def test_what_is_decided_is_told_and_not_adopted():
    context, candidacy, _ = stand(9)
    persist(context)
    candidacy.hear(B, promise(9, (cell("m", 5, b"v", chosen=True),)))
    assert candidacy.adopted() == []
    assert [c.value for c in candidacy.chosen()] == [b"v"]


def test_what_was_accepted_in_an_epoch_that_is_over_never_counts():
    context, candidacy, _ = stand(9, epoch=1, own=(cell("m", 3, b"old"),))
    persist(context)
    candidacy.hear(B, promise(9, (cell("n", 5, b"new"),), epoch=1))
    assert candidacy.adopted() == []


def test_before_a_stop_sign_only_what_was_proposed_with_it_or_later_is_adopted():
    stop = Config(members=(A, B), boots=(1, 1)).encode()
    context, candidacy, _ = stand(9, own=(cell("early", 3, b"x"), cell("with", 5, b"y"), cell("late", 6, b"z")))
    persist(context)
    candidacy.hear(B, promise(9, (cell(config_cell(1), 5, stop),)))
    assert sorted(c.cell for c in candidacy.adopted()) == [config_cell(1), "late", "with"]


def test_a_promise_whose_facts_were_lost_with_a_link_does_not_count():
    context, candidacy, won = stand(9)
    persist(context)
    context.out.clear()
    candidacy.hear(B, promise(9, vector=((ballot(0), 1),)))
    assert won == []
    assert [type(effect.message) for effect in context.out] == [Prepare], "it is asked again"
    streams = candidacy._replica.streams
    assert streams.take(ballot(0), 0, encode_head({}))
    assert streams.take(ballot(0), 1, b"fact")
    candidacy.hear(B, promise(9, vector=((ballot(0), 1),)))
    assert won == [candidacy]


def test_promises_of_other_ballots_and_of_strangers_do_not_count():
    context, candidacy, won = stand(9)
    persist(context)
    candidacy.hear(B, promise(8))
    candidacy.hear(NodeId(b"x" * 16), promise(9))
    assert won == []
