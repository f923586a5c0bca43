"""The code bundle: a job file and the local modules that it imports, by value, as source.

Source runs on any Python minor that understands it, and shows in tracebacks; nothing in a bundle is executed before
a worker process loads it. The job file comes first and is imported under the name `JOB_MODULE`, never ``__main__``:
a script's ``if __name__ == "__main__":`` part stays asleep. One with relative imports is imported under that name
within its package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from p2premap.errors import JobRejected
from p2premap.wire import Count, Record, Text

JOB_MODULE: Final = "p2premap_job"
"""What a job file is imported as: its own name might be a module's that it needs (a job file ``json.py``)."""

WRITTEN: Final = "/<p2premap>/"
"""Where the modules seem to be that p2premap has written itself: tracebacks leave them out on every node, wherever
p2premap is installed there."""

BUNDLE_VERSION: Final = 1


class Module(Record, frozen=True, kw_only=True):
    """One module's source.

    Args:
        name: as it is imported.
        path: where it came from; tracebacks show it.
        source: the text, already decoded.
        package: it is an ``__init__.py`` (or a directory without one: `source` is "").
    """

    name: Text
    path: Text
    source: str
    package: bool = False


class _Bundle(Record, frozen=True, kw_only=True):
    version: Count
    modules: tuple[Module, ...]


def is_job(module: Module) -> bool:
    """Whether it is the job file."""
    return module.name.rpartition(".")[2] == JOB_MODULE


def pack_bundle(modules: Sequence[Module]) -> bytes:
    """The bundle blob: the job file first."""
    assert modules
    assert is_job(modules[0])
    return msgspec.msgpack.encode(_Bundle(version=BUNDLE_VERSION, modules=tuple(modules)))


def unpack_bundle(data: bytes) -> tuple[Module, ...]:
    """The modules of a bundle blob, the job file first.

    Raises:
        JobRejected: it is not a bundle that this version can read.
    """
    try:
        bundle = msgspec.msgpack.decode(data, type=_Bundle)
    except msgspec.DecodeError as error:
        raise JobRejected(f"The job's code bundle cannot be read: {error}.") from None
    if bundle.version != BUNDLE_VERSION or not bundle.modules or not is_job(bundle.modules[0]):
        raise JobRejected(f"The job's code bundle has version {bundle.version}, this node reads {BUNDLE_VERSION}.")
    return bundle.modules
