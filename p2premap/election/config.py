"""The value of a cell that ends an epoch: the next replica set."""

from __future__ import annotations

from collections.abc import Mapping

import cbor2
import msgspec

from p2premap.errors import RemoteProtocolError
from p2premap.ids import NodeId
from p2premap.wire import Count, NodeIdField, Record, decode_cbor

PREFIX = "cfg/"


def config_cell(epoch: int) -> str:
    """The name of the cell that begins this epoch, and ends the one before it."""
    return f"{PREFIX}{epoch}"


def is_config(cell: str) -> bool:
    """Whether this cell ends an epoch; such cells are the election room's own."""
    return cell.startswith(PREFIX)


class Config(Record, frozen=True, kw_only=True):
    """A replica set.

    Args:
        boots: in which life each member was when it was made one.
    """

    members: tuple[NodeIdField, ...]
    boots: tuple[Count, ...]

    def boot_of(self, node: NodeId) -> int:
        """The life of this member; 0 where it is none."""
        known: Mapping[NodeId, int] = dict(zip(self.members, self.boots, strict=False))
        return known.get(node, 0)

    def encode(self) -> bytes:
        """The cell's value."""
        data: bytes = cbor2.dumps(msgspec.to_builtins(self, builtin_types=(bytes,)))
        return data

    @staticmethod
    def decode(data: bytes) -> Config:
        """The replica set that a cell's value tells.

        Raises:
            RemoteProtocolError: it tells none.
        """
        try:
            return msgspec.convert(decode_cbor(data), Config, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"not a replica set: {error}") from None
