"""Mutated frames against the decoders of every kind of stream, from a seed, resumable at any number.

Each number makes one frame: a genuine message of some kind, changed in a few places (or not, or cut, or replaced by
noise), fed in pieces to a decoder of its kind. It must come out as messages or as `RemoteProtocolError`; whatever was
decoded must encode to what decodes to the same again. A failure prints the number that repeats it.

    python -m tests.node.fuzz_frames --start 0 --count 1000000
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from p2premap import control
from p2premap.errors import RemoteProtocolError
from p2premap.node.bulk import BULK
from p2premap.node.hello import HELLO
from p2premap.node.invite import FROM_GUEST, TO_GUEST
from p2premap.node.links import ON_LINK
from p2premap.protocol import GOSSIP
from p2premap.wire import FrameDecoder, Message, Registry, encode_frame

REGISTRIES: dict[str, Registry] = {
    "hello": HELLO,
    "link": ON_LINK,
    "gossip": GOSSIP,
    "bulk": BULK,
    "from client": control.FROM_CLIENT,
    "from daemon": control.FROM_DAEMON,
    "from guest": FROM_GUEST,
    "to guest": TO_GUEST,
}


type_info = functools.cache(msgspec.inspect.type_info)


def values(rng: random.Random, kind: object) -> object:
    """Something of a type; small, with the edges of its bounds."""
    match kind:
        case msgspec.inspect.TupleType(item_types=items):
            return [values(rng, item) for item in items]
        case msgspec.inspect.NamedTupleType(fields=fields):
            return [values(rng, field.type) for field in fields]
        case msgspec.inspect.VarTupleType(item_type=item):
            return [values(rng, item) for _ in range(rng.randrange(4))]
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {values(rng, key): values(rng, value) for _ in range(rng.randrange(3))}
        case msgspec.inspect.UnionType(types=types):
            return values(rng, rng.choice(types))
        case msgspec.inspect.StructType(fields=fields, tag=tag):
            made = [values(rng, field.type) for field in fields]
            return [tag, *made] if tag is not None else made
        case _:
            return scalar(rng, kind)


def scalar(rng: random.Random, kind: object) -> object:
    """Something of a type that has no parts."""
    match kind:
        case msgspec.inspect.IntType(ge=low, le=high, lt=below):
            least = low if low is not None else -5
            most = high if high is not None else (below - 1 if below is not None else 1_000)
            return rng.choice((least, most, rng.randint(least, most)))
        case msgspec.inspect.FloatType():
            return rng.choice((0.0, 1.5, rng.random() * 1e9))
        case msgspec.inspect.BoolType():
            return rng.random() < 0.5
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            size = rng.randint(low or 0, min(high or 12, (low or 0) + 12))
            letters = "abcé0 " if pattern else "abcé0 \0"  # the one pattern there is refuses NUL
            return "".join(rng.choice(letters) for _ in range(size))
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return rng.randbytes(rng.randint(low or 0, min(high or 40, (low or 0) + 40)))
        case msgspec.inspect.EnumType(cls=cls):
            return rng.choice(list(cls)).value
        case _:
            raise AssertionError(f"no values of {kind}")


def genuine(rng: random.Random, kind: type[Message]) -> Message:
    """A valid message of a class."""
    built = values(rng, type_info(kind))
    return msgspec.convert(built, kind, builtin_types=(bytes,))


def mutated(rng: random.Random, frame: bytes) -> bytes:
    """The frame, changed as bad luck or bad will would."""
    data = bytearray(frame)
    match rng.randrange(8):
        case 0:
            pass
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            data = bytearray(rng.randbytes(rng.randrange(1, 80)))
        case 3:
            place = rng.randrange(len(data))
            data[place:place] = rng.randbytes(rng.randrange(1, 5))
        case 4:
            place = rng.randrange(len(data))
            del data[place : place + rng.randrange(1, 5)]
        case 5:  # the inside only, so that it gets as far as the messages
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(min(9, len(data) - 1), len(data))] = rng.randrange(256)
        case _:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def pieces(rng: random.Random, data: bytes) -> Iterable[bytes]:
    """The data in two pieces, as a network would deliver it."""
    middle = rng.randrange(len(data) + 1)
    return data[:middle], data[middle:]


def one(number: int) -> str:
    """Try one frame.

    Returns:
        "decoded", "waiting" (for more bytes) or "refused".
    """
    rng = random.Random(f"frames/{number}")
    registry = REGISTRIES[rng.choice(list(REGISTRIES))]
    payload = rng.randbytes(rng.randrange(20)) if rng.random() < 0.3 else b""
    frame = encode_frame(registry, genuine(rng, rng.choice(registry.messages)), payload)
    decoder = FrameDecoder(registry, payload_bytes_max=1 << 10)
    decoded = []
    try:
        for piece in pieces(rng, mutated(rng, frame)):
            decoded += decoder.feed(piece)
    except RemoteProtocolError:
        return "refused"
    for got in decoded:
        again = registry.decode(registry.encode(got.message))
        # repr: a NaN is a value that is not equal to itself
        assert repr(again) == repr(got.message), (again, got.message)
    return "decoded" if decoded else "waiting"


def run(*, start: int, count: int, report: int = 0) -> Counter[str]:
    """Try frames `start` to `start + count - 1`.

    Args:
        report: print a line each time so many have been tried; 0 means never.
    """
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    for number in range(start, start + count):
        try:
            counts[one(number)] += 1
        except BaseException:
            print(
                f"frame {number} failed: python -m tests.node.fuzz_frames --start {number} --count 1", file=sys.stderr
            )
            raise
        if report and (number + 1) % report == 0:
            print(f"{number + 1} {dict(counts)} {time.perf_counter() - began:.0f} s", flush=True)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--start", type=int, default=0, help="the first frame's number")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    print(dict(run(start=options.start, count=options.count, report=50_000)))
