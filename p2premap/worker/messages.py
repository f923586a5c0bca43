"""What the executor and a worker process say to each other over their socketpair. Numbers 200 to 219.

::

    executor                                       worker process
      | Load(job, runtime, code, directories) ------->|
      | Run(first, stage, function) + orders -------->|   again and again; the worker runs them in turn
      | RunTogether(...) + table, orders ------------>|   or at once, with other processes (`p2premap.worker.mesh`)
      |<------------------------ Ended + ends --------|   in groups: when idle, when many, or every 50 ms
      |<---------- Waits(number), GoesOn(number) -----|   the attempt that runs waits for other tasks, or no more

Orders and ends travel beside the header as msgpack, because there may be 10^5 of them in a second; both ends are of
one installation. The worker speaks last when it is asked to stop; the executor hangs up to have it killed.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.tasks.job import AttemptEnd, StageId
from p2premap.wire import Count, JobIdField, Message, NodeIdField, Record, Registry
from p2premap.worker.runtime import Segment


class Load(Message, frozen=True, tag=200, kw_only=True):
    """Which job this process works for. Comes once.

    Args:
        runtime: "package.module:Class".
        code: the bundle.
        directory: of this process alone; the executor removes it when the process has ended.
        blobs: the directory of the node's blob store.
        logs: where this job's logs go.
        log_bytes_max: of one attempt.
    """

    job: JobIdField
    runtime: str
    code: Segment
    directory: str
    blobs: str
    logs: str
    log_bytes_max: Count


class Run(Message, frozen=True, tag=201, kw_only=True):
    """Run the orders in the payload, numbered from `first`."""

    first: Count
    stage: StageId
    function: str


class RunTogether(Message, frozen=True, tag=205, kw_only=True):
    """Run the orders in the payload at once, numbered from `first`; with them comes whom to talk to meanwhile."""

    first: Count
    stage: StageId
    function: str


class Ended(Message, frozen=True, tag=202, kw_only=True):
    """The payload holds ends of attempts, in the order in which they ended."""


class Waits(Message, frozen=True, tag=203, kw_only=True):
    """The attempt of this number, which runs, waits for other tasks of the cluster."""

    number: Count


class GoesOn(Message, frozen=True, tag=204, kw_only=True):
    """It waits no more."""

    number: Count


class Order(Record, frozen=True, kw_only=True):
    """One attempt, its sources at hand."""

    task: Count
    attempt: Count
    params: bytes
    segments: tuple[Segment, ...] = ()


class Peer(Record, frozen=True, kw_only=True):
    """A process of a gang.

    Args:
        node: where it is.
        tasks: that it runs.
        path: its door, for processes of the same machine; "": it is on another one.
        addresses: of its node's daemon.
    """

    node: NodeIdField
    tasks: tuple[Count, ...]
    path: str = ""
    addresses: tuple[tuple[str, Count], ...] = ()


class Table(Record, frozen=True, kw_only=True):
    """Whom a process meets.

    Args:
        meeting: its name (`p2premap.tasks.meeting`).
        key: that all who are asked to it know.
        seat: of this process, an index into `peers`.
        path: where its own door is to be.
        peers: all processes.
    """

    meeting: bytes
    key: bytes
    seat: Count
    path: str
    peers: tuple[Peer, ...]


WORKER: Final = Registry((Load, Run, RunTogether, Ended, Waits, GoesOn), header_bytes_max=64 << 10)
"""What the socketpair carries, in both directions."""

_orders_out = msgspec.msgpack.Encoder()
_orders_in = msgspec.msgpack.Decoder(tuple[Order, ...])
_together_out = msgspec.msgpack.Encoder()
_together_in = msgspec.msgpack.Decoder(tuple[Table, tuple[Order, ...]])
_ends_out = msgspec.msgpack.Encoder()
_ends_in = msgspec.msgpack.Decoder(AttemptEnd)
_RECORD_HEAD: Final = struct.Struct(">IQ")


def encode_orders(orders: Sequence[Order]) -> bytes:
    """The payload of `Run`."""
    return _orders_out.encode(orders)


def decode_orders(payload: bytes) -> tuple[Order, ...]:
    """The orders in the payload of `Run`."""
    return _orders_in.decode(payload)


def encode_together(table: Table, orders: Sequence[Order]) -> bytes:
    """The payload of `RunTogether`."""
    return _together_out.encode((table, orders))


def decode_together(payload: bytes) -> tuple[Table, tuple[Order, ...]]:
    """Table and orders in the payload of `RunTogether`."""
    return _together_in.decode(payload)


def encode_end(number: int, end: AttemptEnd) -> bytes:
    """One record of the payload of `Ended`: its length, the number that the attempt had in `Run`, and the end."""
    data = _ends_out.encode(end)
    return _RECORD_HEAD.pack(len(data), number) + data


def decode_ends(payload: bytes) -> list[tuple[int, AttemptEnd]]:
    """The numbers and ends in the payload of `Ended`.

    Raises:
        RemoteProtocolError: it is no such payload.
    """
    ends: list[tuple[int, AttemptEnd]] = []
    offset, total = 0, len(payload)
    try:
        with memoryview(payload) as view:
            while offset < total:
                size, number = _RECORD_HEAD.unpack_from(view, offset)
                start = offset + _RECORD_HEAD.size
                offset = start + size
                ends.append((number, _ends_in.decode(view[start:offset])))
    except (msgspec.DecodeError, struct.error) as error:
        raise RemoteProtocolError(f"not the end of an attempt: {error}") from None
    return ends
