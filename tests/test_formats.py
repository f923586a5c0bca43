"""Everything that outlives a release can be read by this one: messages, records, batches of facts, ledgers.

`tests.formats` writes the samples of a release; those of former releases never change.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from p2premap import __version__
from p2premap.ids import Boot
from p2premap.node.ledger_store import LedgerStore
from p2premap.tasks import journal
from p2premap.wire import decode_cbor
from tests.formats import BATCHES, DATA, LEDGER, RECORDS, REGISTRIES, RUNNING, messages

RELEASES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
HINT = "made since the samples were written? `python -m tests.formats` writes them anew, before a release"


def extends(new: object, old: object) -> bool:
    """Whether `new` is `old` with nothing changed but fields at the end of arrays."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(new) >= len(old) and all(map(extends, new, old))
    return new == old


def lines(release: str, name: str) -> Iterator[list[str]]:
    return (line.split() for line in (DATA / release / name).read_text().splitlines())


@pytest.mark.parametrize("release", RELEASES)
def test_messages_are_read(release: str) -> None:
    for registry, name, data in lines(release, "messages.txt"):
        message = REGISTRIES[registry].decode(bytes.fromhex(data))
        assert type(message).__name__ == name, HINT
        said = msgspec.to_builtins(message, builtin_types=(bytes,))
        assert extends(said, decode_cbor(bytes.fromhex(data))), f"{name}: {HINT}"


@pytest.mark.parametrize("release", RELEASES)
def test_records_are_read(release: str) -> None:
    types = {of.__name__: of for of in RECORDS}
    for name, data in lines(release, "records.txt"):
        record = msgspec.msgpack.decode(bytes.fromhex(data), type=types[name])
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(record))
        assert extends(again, msgspec.msgpack.decode(bytes.fromhex(data))), f"{name}: {HINT}"


@pytest.mark.parametrize("release", RELEASES)
def test_batches_of_facts_are_read(release: str) -> None:
    for (data,) in lines(release, "batches.txt"):
        batch = journal.decode(bytes.fromhex(data))
        assert extends(decode_cbor(journal.encode(*batch)), decode_cbor(bytes.fromhex(data))), HINT
        assert {type(fact) for fact in batch.facts} <= set(journal.Fact.__args__)


@pytest.mark.parametrize("release", RELEASES)
def test_ledgers_are_read(release: str, tmp_path: Path) -> None:
    for name in ("ledger.db", "ledger.mark"):
        shutil.copy(DATA / release / name, tmp_path)
    store = LedgerStore(tmp_path / "ledger.db", Boot(2))
    assert store.warning == ""
    assert store.load() == LEDGER
    assert store.batches(RUNNING, {}) == tuple(batch for batch in BATCHES if batch.serial)
    store.write([LEDGER.jobs[0], BATCHES[-1]], sync=True)
    store.close()


def test_this_release_has_samples_of_every_message() -> None:
    written = {(registry, name) for registry, name, _ in lines(__version__, "messages.txt")}
    assert written == {(registry, type(message).__name__) for registry, _, message in messages()}, HINT
