"""Whether all processes of a gang have been told the same by a master hook: a digest of what it said."""

from __future__ import annotations

from blake3 import blake3


def digest_of(said: object) -> bytes:
    """A digest that is the same in every process for what is the same; of what it cannot look into, the type counts."""
    return blake3(_canonical(said).encode(errors="surrogatepass")).digest(8)


def _canonical(value: object) -> str:
    match value:
        case None | bool() | int() | str() | bytes():
            return repr(value)
        case float():
            return float(value).hex()
        case list() | tuple():
            return f"[{','.join(map(_canonical, value))}]"
        case set() | frozenset():
            return f"{{{','.join(sorted(map(_canonical, value)))}}}"
        case dict():
            return f"({','.join(sorted(f'{_canonical(k)}:{_canonical(v)}' for k, v in value.items()))})"
        case _:
            return type(value).__qualname__
