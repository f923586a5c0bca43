"""What a node can do: the slow fact "capabilities" that each member publishes about itself.

The node's shell collects it (`p2premap.node.machine`); cores and status displays read it.
"""

from __future__ import annotations

from typing import Annotated, Final

import cbor2
import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.wire import Count, Record, Short, Text, decode_cbor

FACT: Final = "capabilities"
"""The key under which gossip spreads it."""

TAGS_MAX: Final = 64


class Capabilities(Record, frozen=True, kw_only=True):
    """One node's abilities; of a later release, perhaps with further fields at the end.

    Args:
        machine: a hash that differs from machine to machine: nodes with the same one share disk and memory.
        blob_directory: where its blobs lie: a node of the same machine and user opens them as files.
        slots: worker processes that it offers now.
        system: such as "Linux 6.1.0 x86_64".
        python: such as "3.11.2".
        version: of p2premap.
        host: what the machine calls itself.
        gpus: that the system knows.
        held_back: why it offers fewer slots than its owner gave it, as half a sentence; "" where it does not.
        refused_actions: of which it runs no tasks.
    """

    machine: Annotated[bytes, msgspec.Meta(max_length=32)]
    slots: Count
    blob_directory: Text = ""
    cpus: Count = 0
    memory_bytes: Count = 0
    system: Short = ""
    python: Short = ""
    version: Short = ""
    pid: Count = 0
    tags: Annotated[tuple[Short, ...], msgspec.Meta(max_length=TAGS_MAX)] = ()
    held_back: Short = ""
    host: Short = ""
    gpus: Count = 0
    refused_actions: Annotated[tuple[Short, ...], msgspec.Meta(max_length=TAGS_MAX)] = ()

    def encode(self) -> bytes:
        """As the fact's value."""
        return cbor2.dumps(msgspec.to_builtins(self, builtin_types=(bytes,)))

    @classmethod
    def decode(cls, value: bytes) -> Capabilities:
        """From the fact's value.

        Raises:
            RemoteProtocolError: it is not one.
        """
        try:
            return msgspec.convert(decode_cbor(value), cls, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"not capabilities: {error}") from None
