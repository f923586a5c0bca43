"""Any events in any order: the invariants hold, bounds are kept, and nothing raises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.config import GossipConfig
from p2premap.gossip.events import (
    Dial,
    DialOutcome,
    GossipEvent,
    Hinted,
    Leave,
    MemberState,
    SendDatagram,
    SendLink,
    SetAddresses,
    SetFact,
    SetLoad,
    WantLink,
    Woke,
)
from p2premap.gossip.invariants import went_back
from p2premap.gossip.messages import (
    MESSAGES,
    Ack,
    Buckets,
    CallBack,
    DigestRange,
    Digests,
    Entries,
    Evidence,
    FactEntry,
    Inquire,
    LoadEntry,
    MemberEntry,
    Ping,
    Rumours,
    Witness,
)
from p2premap.ids import Boot, Incarnation
from p2premap.wire import Message, Registry
from tests.gossip.dialogue import Dialogue, address
from tests.gossip.harness import node_id

NUMBERS = st.integers(0, 6)
SMALL = st.integers(0, 3)
REGISTRY = Registry(MESSAGES, header_bytes_max=64 << 10)

members = st.builds(
    lambda n, boot, inc, state, at, age: MemberEntry(
        node=node_id(n),
        boot=Boot(boot),
        incarnation=Incarnation(inc),
        state=state,
        name=f"node-{n}",
        addresses=(address(at),),
        age=age,
    ),
    NUMBERS,
    SMALL,
    SMALL,
    st.sampled_from(MemberState),
    NUMBERS,
    st.sampled_from([0, 5, 50]),
)
facts = st.builds(
    lambda n, boot, version, key, size: FactEntry(
        node=node_id(n), boot=Boot(boot), version=version, key=key, value=b"x" * size
    ),
    NUMBERS,
    SMALL,
    SMALL,
    st.sampled_from("ab"),
    st.sampled_from([0, 3, 900, 3_000]),
)
loads = st.builds(
    lambda n, boot, version: LoadEntry(node=node_id(n), boot=Boot(boot), version=version, value=b"12345"),
    NUMBERS,
    SMALL,
    SMALL,
)
news = {
    "members": st.lists(members, max_size=4).map(tuple),
    "facts": st.lists(facts, max_size=2).map(tuple),
    "loads": st.lists(loads, max_size=2).map(tuple),
}
words = st.integers(0, 2**63 - 1)
hashes = st.binary(max_size=40)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, nonce=words, root=words, **news),
    st.builds(Ack, nonce=words, root=words, **news),
    st.builds(Rumours, **news),
    st.builds(Inquire, nonce=words, node=NUMBERS.map(node_id), boot=SMALL.map(Boot)),
    st.builds(Witness, nonce=words, evidence=st.sampled_from(Evidence)),
    st.builds(Buckets, hashes=st.binary(min_size=512, max_size=512)),
    st.builds(
        Digests,
        ranges=st.lists(
            st.builds(DigestRange, bucket=st.integers(0, 63), low=words, high=words, hashes=hashes), max_size=3
        ).map(tuple),
    ),
    st.builds(Entries, wanted=hashes, **news),
    st.builds(CallBack, caller=NUMBERS.map(node_id), callee=NUMBERS.map(node_id), addresses=st.just((address(1),))),
)

wishes: st.SearchStrategy[GossipEvent] = st.one_of(
    st.builds(Hinted, address=NUMBERS.map(address), node=st.one_of(st.none(), NUMBERS.map(node_id))),
    st.builds(Woke, lost_s=st.floats(0, 100)),
    st.builds(SetFact, key=st.sampled_from("ab"), value=st.binary(max_size=4)),
    st.builds(SetLoad, value=st.binary(max_size=4)),
    st.builds(SetAddresses, addresses=st.lists(NUMBERS.map(address), max_size=3).map(tuple)),
    st.builds(WantLink, peer=NUMBERS.map(node_id)),
    st.just(Leave()),
)

moves = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), NUMBERS, messages, st.booleans()),
        st.tuples(st.just("wish"), wishes),
        st.tuples(st.just("link"), NUMBERS, SMALL, st.booleans()),
        st.tuples(st.just("unlink"), NUMBERS, SMALL),
        st.tuples(st.just("dial"), st.sampled_from(DialOutcome), NUMBERS, SMALL),
        st.tuples(st.just("answer"), st.booleans()),
        st.tuples(st.just("tick"), st.integers(1, 30)),
        st.tuples(st.just("wait"), st.floats(0, 60)),
    ),
    min_size=5,
    max_size=60,
)

TIGHT = GossipConfig(members_max=5, dead_max=2, rumours_max=4, hints_max=3, dead_kept_s=40.0)


def play(d: Dialogue, move: tuple) -> None:
    waiting = [e for _, e in d.log if isinstance(e, Dial)]
    match move:
        case ("hear", sender, message, link):
            d.hear(sender, message, link=link)
        case ("wish", event):
            d.give(event)
        case ("link", number, boot, dialled):
            d.link(number, boot=boot, dialled=dialled)
        case ("unlink", number, boot):
            d.unlink(number, boot=boot)
        case ("dial", outcome, by, boot) if waiting:
            dial = waiting[-1]
            d.log.remove(next(item for item in reversed(d.log) if item[1] is dial))
            d.ended(dial, outcome, by=by if outcome == DialOutcome.CONNECTED else None, boot=boot)
        case ("answer", right):
            pings = [e for _, e in d.log if isinstance(e, SendDatagram) and isinstance(e.message, Ping)]
            if pings and right:
                d.ack(pings[-1])
        case ("tick", count):
            for _ in range(count):
                d.tick()
        case ("wait", seconds):
            d.now += seconds


@settings(max_examples=150)
@given(moves, st.booleans(), st.integers(0, 3))
def test_any_events_in_any_order(history: list[tuple], tight: bool, boot: int) -> None:
    d = Dialogue(config=TIGHT if tight else None, boot=boot)
    seen: dict[bytes, object] = {}
    for move in history:
        play(d, move)
        for view in d.core.members():
            before = seen.get(view.node)
            assert before is None or not went_back(before, view)  # type: ignore[arg-type]
        seen = {view.node: view for view in d.core.members()}
    for _, effect in d.log:
        if isinstance(effect, SendDatagram):
            size = len(REGISTRY.encode(effect.message))
            assert size <= d.config.datagram_bytes_max
        elif isinstance(effect, SendLink):
            REGISTRY.encode(effect.message)
