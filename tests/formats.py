"""Samples of everything that outlives a release: ``python -m tests.formats`` writes those of this one.

::

    tests/data/<release>/messages.txt   every message of every kind of connection: registry, name, bytes
    tests/data/<release>/records.txt    what is kept inside of ledgers and gossip: name, bytes
    tests/data/<release>/batches.txt    batches of facts
    tests/data/<release>/ledger.db      a ledger, and its mark

Run it once before a release and commit what it writes; after the release those files never change again.
`tests.test_formats` reads the files of all releases.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from p2premap import __version__
from p2premap.election.records import CellRecord, JobRecord, Stored, StoredBatch, StoredRecord, StoredStream
from p2premap.election.streams import encode_head
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.node.bulk import BULK
from p2premap.node.charter import Charter
from p2premap.node.hello import HELLO
from p2premap.node.invite import FROM_GUEST, TO_GUEST
from p2premap.node.ledger_store import LedgerStore
from p2premap.node.links import ON_LINK
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.tasks import journal
from p2premap.tasks.action import ActionPlan
from p2premap.tasks.job import JobView
from p2premap.tasks.mapreduce_plan import MapReducePlan
from p2premap.wire import Message, Record, Registry

DATA: Final = Path(__file__).parent / "data"
REGISTRIES: Final = {
    "link": ON_LINK,
    "hello": HELLO,
    "bulk": BULK,
    "to-guest": TO_GUEST,
    "from-guest": FROM_GUEST,
    "from-client": FROM_CLIENT,
    "from-daemon": FROM_DAEMON,
}
RECORDS: Final = (JobRecord, CellRecord, Charter, JobView, MapReducePlan, ActionPlan)
"""Kept as MessagePack."""

# --- samples of any type --------------------------------------------------------------------------------------------


class Sampler:
    """Makes one value of any type of ours, every optional field given, every number another."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def struct(self, of: type[msgspec.Struct]) -> Any:
        """An instance."""
        info = inspect.type_info(of)
        assert isinstance(info, inspect.StructType)
        return of(**{field.name: self._value(field.type) for field in info.fields})

    def _value(self, of: inspect.Type) -> Any:  # noqa: C901  (one case a type)
        match of:
            case inspect.BoolType():
                return True
            case inspect.IntType(ge=ge, le=le):
                number = next(self._numbers) % 20 + (ge or 0)
                return number if le is None else min(number, le)
            case inspect.FloatType():
                return next(self._numbers) + 0.5
            case inspect.BytesType(min_length=least, max_length=most):
                return self._text(least, most).encode()
            case inspect.StrType(min_length=least, max_length=most):
                return self._text(least, most)
            case inspect.EnumType(cls=cls):
                return list(cls)[-1]
            case inspect.LiteralType(values=values):
                return values[0]
            case inspect.NoneType():
                return None
            case inspect.UnionType(types=types):
                return self._value(next(t for t in types if not isinstance(t, inspect.NoneType)))
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                return (self._value(item),)
            case inspect.TupleType(item_types=items):
                return tuple(self._value(item) for item in items)
            case inspect.DictType(key_type=key, value_type=value):
                return {self._value(key): self._value(value)}
            case inspect.NamedTupleType(cls=cls, fields=fields):
                return cls(**{field.name: self._value(field.type) for field in fields})
            case inspect.StructType(cls=cls):
                return self.struct(cls)
        raise NotImplementedError(f"no sample of {of}")

    def _text(self, least: int | None, most: int | None) -> str:
        text = f"text {next(self._numbers)}"
        if least is not None:
            text = text.ljust(least, ".")
        return text if most is None else text[:most]


def messages() -> Iterator[tuple[str, Registry, Message]]:
    """One message of every class: (name of the registry, the registry, the message)."""
    for name, registry in REGISTRIES.items():
        for of in registry.messages:
            yield name, registry, Sampler().struct(of)


def records() -> Iterator[Record]:
    """One of every record."""
    return (Sampler().struct(of) for of in RECORDS)


def batch() -> bytes:
    """A batch with one fact of each kind."""
    facts = []
    for of in journal.Fact.__args__:  # type: ignore[attr-defined]
        fact = Sampler().struct(of)
        if of is journal.Results:
            fact = msgspec.structs.replace(
                fact, count=1, value=b"value", tasks=b"\1\0\0\0", attempts=b"\2\0\0\0", sizes=b"\5\0\0\0",
                records=b"\3\0\0\0\0\0\0\0", blobs=b"\0\0\0\0\1\0" + b"d" * 32 + b"\7\0\0\0\0\0\0\0",
            )  # fmt: skip
        facts.append(fact)
    return journal.encode(1.5, facts)


# --- a ledger -------------------------------------------------------------------------------------------------------

HOME, OTHER = NodeId(b"h" * 16), NodeId(b"o" * 16)
RUNNING, OVER = JobId(b"r" * 16), JobId(b"z" * 16)
FIRST, SECOND = Ballot(0, 0, HOME), Ballot(0, 1, OTHER)
JOBS: Final = (
    JobRecord(
        job=RUNNING, key=b"key", spec=b"spec", members=(HOME, OTHER), promised=SECOND, strict=True, copies=2,
        acknowledged=True, boots=(3, 4),
    ),
    JobRecord(job=OVER, key=b"other key", spec=b"spec", members=(HOME,), promised=FIRST, origin=RUNNING, view=b"view"),
)  # fmt: skip
CELLS: Final = (
    CellRecord(job=RUNNING, cell="manifest/0/0", ballot=FIRST, value=b"manifest", chosen=True),
    CellRecord(job=RUNNING, cell="final", ballot=SECOND, value=b"final"),
)
BATCHES: Final = (
    StoredBatch(job=RUNNING, ballot=FIRST, serial=0, batch=encode_head({})),
    StoredBatch(job=RUNNING, ballot=FIRST, serial=1, batch=b"one"),
    StoredBatch(job=RUNNING, ballot=FIRST, serial=2, batch=b"two"),
    StoredBatch(job=RUNNING, ballot=SECOND, serial=0, batch=encode_head({FIRST: 1})),
    StoredBatch(job=RUNNING, ballot=SECOND, serial=1, batch=b"three"),
)
LEDGER: Final = Stored(
    jobs=JOBS,
    cells=tuple(sorted(CELLS, key=lambda cell: cell.cell)),
    streams=(
        StoredStream(RUNNING, FIRST, 2, BATCHES[0].batch),
        StoredStream(RUNNING, SECOND, 1, BATCHES[3].batch),
    ),
)
"""What every release's ledger holds."""


def write_ledger(path: Path) -> None:
    """A ledger of this release."""
    store = LedgerStore(path, Boot(1))
    everything: tuple[StoredRecord, ...] = (*JOBS, *CELLS, *BATCHES)
    store.write(everything, sync=True)
    store.close()


def main() -> None:
    """Write the samples of this release."""
    directory = DATA / __version__
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {type(m).__name__} {registry.encode(m).hex()}\n" for name, registry, m in messages()]
    (directory / "messages.txt").write_text("".join(lines))
    lines = [f"{type(record).__name__} {msgspec.msgpack.encode(record).hex()}\n" for record in records()]
    (directory / "records.txt").write_text("".join(lines))
    (directory / "batches.txt").write_text(f"{batch().hex()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        write_ledger(Path(scratch) / "ledger.db")
        for name in ("ledger.db", "ledger.mark"):
            shutil.copy(Path(scratch) / name, directory / name)


if __name__ == "__main__":
    main()
