"""Messages as bytes: CBOR positional arrays in length-capped frames (RFC 8949).

A message is a frozen struct with a number; on the wire it is the array ``[number, field, field, ...]``. New
fields go at the end and have defaults; a reader ignores fields that it does not know; numbers are never reused.
Every decoded message has been checked against the types and bounds of its struct, so a room never sees a value
of a wrong shape.

A frame on a stream is ``version (1) | header length (4) | payload length (4) | header | payload``: the header is a
message, the payload raw bytes beside it (CBOR encodes long byte strings slowly, and nobody needs to copy them).

What a stranger may send: `Registry.decode` refuses, before building anything large, input over its cap, CBOR tags
(cbor2 would compile regular expressions from tag 35), duplicate keys, trailing bytes and deep nesting.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NamedTuple, NoReturn

import cbor2
import msgspec

from p2premap.errors import LocalProtocolError, RemoteProtocolError
from p2premap.ids import DIGEST_BYTES, JOB_ID_BYTES, NODE_ID_BYTES, Boot, Digest, Incarnation, JobId, NodeId

WIRE_VERSION: Final = 1
"""The major version: a peer that speaks another is refused in the hello, with a sentence."""

HEADER_BYTES_MAX: Final = 4 << 20
PAYLOAD_BYTES_MAX: Final = 16 << 20
DEPTH_MAX: Final = 16
COUNT_MAX: Final = 2**53

_AGAIN_BYTES_MAX: Final = 64
"""A message that is no longer than this and comes twice in a row is decoded once: many say little beside a payload."""

_FRAME_HEAD: Final = struct.Struct(">BII")

# Field types with their bounds: decoding refuses anything outside them.
NodeIdField = Annotated[NodeId, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
JobIdField = Annotated[JobId, msgspec.Meta(min_length=JOB_ID_BYTES, max_length=JOB_ID_BYTES)]
DigestField = Annotated[Digest, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
BootField = Annotated[Boot, msgspec.Meta(ge=0, le=2**53)]
IncarnationField = Annotated[Incarnation, msgspec.Meta(ge=0, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Short = Annotated[str, msgspec.Meta(max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=64 << 10)]
FilePath = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]
"""A path of some machine; asked for one with a NUL, Python raises what is no OSError."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A part of a message: data without a number of its own. Subclasses add ``frozen=True, kw_only=True``."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What nodes say to each other. Subclasses add ``tag=<number>, frozen=True, kw_only=True``.

    Modules of messages do without ``from __future__ import annotations``: msgspec would compile each annotation of
    what it decodes, in each process anew, which takes three times as long as the rest of what it has to find out.
    """


class Frame(NamedTuple):
    """One message from a stream, with the raw bytes that came beside it."""

    message: Message
    payload: bytes


class Registry:
    """The messages that one kind of connection may carry.

    Args:
        messages: their classes, each with an integer tag; two of the same number are our bug.
        header_bytes_max: the cap on one encoded message.
    """

    def __init__(self, messages: Iterable[type[Message]], *, header_bytes_max: int = HEADER_BYTES_MAX) -> None:
        self.messages: tuple[type[Message], ...] = tuple(messages)
        self._header_bytes_max = header_bytes_max
        numbers = [self.number(m) for m in self.messages]
        if len(set(numbers)) != len(numbers):
            raise LocalProtocolError(f"two messages share a number: {sorted(numbers)}")
        self._types = frozenset(self.messages)
        self._by_number = dict(zip(numbers, self.messages, strict=True))
        self._encoded: tuple[Message, bytes] | None = None
        self._decoded: tuple[bytes, Message] | None = None

    @staticmethod
    def number(message: type[Message]) -> int:
        """The number that names a message class on the wire."""
        tag = message.__struct_config__.tag
        if not isinstance(tag, int):
            raise LocalProtocolError(f"{message.__name__} has no number")
        return tag

    def encode(self, message: Message) -> bytes:
        """The message's bytes. The very message that was encoded last is not encoded anew.

        Raises:
            LocalProtocolError: the message does not belong here or is over the cap.
        """
        last = self._encoded
        if last is not None and last[0] is message:
            return last[1]
        if type(message) not in self._types:
            raise LocalProtocolError(f"{type(message).__name__} does not belong on this connection")
        data: bytes = cbor2.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))
        if len(data) > self._header_bytes_max:
            raise LocalProtocolError(f"{type(message).__name__} is {len(data)} bytes, over {self._header_bytes_max}")
        if len(data) <= _AGAIN_BYTES_MAX:
            self._encoded = message, data
        return data

    def decode(self, data: bytes) -> Message:
        """The message in `data`, its types and bounds checked.

        Raises:
            RemoteProtocolError: anything else than exactly one well-formed known message.
        """
        last = self._decoded
        if last is not None and last[0] == data:
            return last[1]
        if len(data) > self._header_bytes_max:
            raise RemoteProtocolError(f"a message of {len(data)} bytes, over {self._header_bytes_max}")
        item = decode_cbor(data)
        number = item[0] if isinstance(item, list) and item else None
        # looked up here: msgspec would build what it knows of a union of all classes anew for every message
        known = self._by_number.get(number) if type(number) is int else None
        if known is None:
            raise RemoteProtocolError(f"not a known message: {number!r:.40}")
        try:
            message = msgspec.convert(item, known, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"not a known message: {known.__name__}: {error}") from None
        if len(data) <= _AGAIN_BYTES_MAX:
            self._decoded = data, message
        return message


def decode_cbor(data: bytes) -> object:
    """One CBOR item of plain values, and nothing after it.

    Raises:
        RemoteProtocolError: malformed, tagged, too deep, with duplicate keys or trailing bytes.
    """
    stream = io.BytesIO(data)
    try:
        item: object = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_BUILT_IN_TAGS,
            max_depth=DEPTH_MAX,
            allow_duplicate_keys=False,
            allow_indefinite=False,
        ).decode()
    except Exception as error:
        # cbor2 reports malformed input by many exception classes; none of them may stop a daemon
        raise RemoteProtocolError(f"not CBOR: {error}") from None
    if stream.tell() != len(data):
        raise RemoteProtocolError("bytes after the end of a message")
    return item


def _refuse_tag(*_: object) -> NoReturn:
    raise RemoteProtocolError("CBOR tags are not used here")


# cbor2 asks `tag_hook` only about tags that it does not know itself; these it knows (a test tries all of them)
_BUILT_IN_TAGS: Final = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse_tag
)


def encode_frame(registry: Registry, message: Message, payload: bytes | memoryview = b"") -> bytes:
    """One frame for a stream.

    Raises:
        LocalProtocolError: the message or the payload is over its cap.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise LocalProtocolError(f"a payload of {len(payload)} bytes, over {PAYLOAD_BYTES_MAX}")
    header = registry.encode(message)
    return b"".join((_FRAME_HEAD.pack(WIRE_VERSION, len(header), len(payload)), header, payload))


class UnknownVersion(RemoteProtocolError):
    """The other side speaks another major version of the wire.

    Args:
        version: the first byte that it sent.
    """

    def __init__(self, version: int) -> None:
        super().__init__(f"wire version {version}, expected {WIRE_VERSION}")
        self.version = version


class FrameDecoder:
    """Frames out of a stream of bytes, in whatever pieces they arrive.

    Args:
        registry: what may come.
        payload_bytes_max: the cap on what comes beside a message; before a peer has proved itself, 0.
    """

    def __init__(self, registry: Registry, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self._registry = registry
        self._header_bytes_max = registry._header_bytes_max
        self._payload_bytes_max = payload_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Sequence[Frame]:
        """Take what has arrived; return the frames that are now complete, in order.

        Raises:
            RemoteProtocolError: the stream cannot be read further; close it.
        """
        self.push(data)
        frames: list[Frame] = []
        while (frame := self.next()) is not None:
            frames.append(frame)
        return frames

    def push(self, data: bytes) -> None:
        """Take what has arrived, without looking at it."""
        self._buffer += data

    def admit(self, registry: Registry, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        """From the next frame on, this may come: after a hello, which is its own kind of frame on every stream."""
        self._registry = registry
        self._header_bytes_max = registry._header_bytes_max
        self._payload_bytes_max = payload_bytes_max

    @property
    def partial(self) -> bool:
        """Whether there are bytes that have not become a frame."""
        return bool(self._buffer)

    @property
    def missing(self) -> int:
        """At least so many bytes of the next frame are still to come: who reads no more takes nothing beyond it."""
        if len(self._buffer) < _FRAME_HEAD.size:
            return _FRAME_HEAD.size - len(self._buffer)
        _, header_size, payload_size = _FRAME_HEAD.unpack_from(self._buffer)
        return max(0, _FRAME_HEAD.size + int(header_size) + int(payload_size) - len(self._buffer))

    def next(self) -> Frame | None:
        """The next frame of what was pushed; None until it is complete.

        Raises:
            UnknownVersion: the other side speaks another major version.
            RemoteProtocolError: the stream cannot be read further; close it.
        """
        if len(self._buffer) < _FRAME_HEAD.size:
            if self._buffer and self._buffer[0] != WIRE_VERSION:
                raise UnknownVersion(self._buffer[0])
            return None
        version, header_size, payload_size = _FRAME_HEAD.unpack_from(self._buffer)
        if version != WIRE_VERSION:
            raise UnknownVersion(version)
        if header_size > self._header_bytes_max or payload_size > self._payload_bytes_max:
            raise RemoteProtocolError(f"a frame of {header_size} + {payload_size} bytes is over the cap")
        middle = _FRAME_HEAD.size + header_size
        end = middle + payload_size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            header, payload = bytes(view[_FRAME_HEAD.size : middle]), bytes(view[middle:end])
        del self._buffer[:end]
        return Frame(self._registry.decode(header), payload)
