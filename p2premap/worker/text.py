"""Output parts as text: one ``key TAB value`` line a pair, UTF-8.

Strings are written as they are, numbers as Python writes them, everything else as JSON (where JSON has no word for it,
as `repr`). A string that would break its line, because a key holds a tab or either holds a line end, is written as a
JSON string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from p2premap.worker.output import BufferedOutput
from p2premap.worker.pairs import Key, Value, in_json

_IN_KEY: Final = "\t\n\r"
_IN_VALUE: Final = "\n\r"
_PLAIN: Final = frozenset((str, int, float))
_json: Final = msgspec.json.Encoder(enc_hook=in_json).encode


class TextOutput(BufferedOutput):
    """Writes an attempt's output part."""

    def add_columns(self, keys: Sequence[Key], values: Sequence[Value]) -> None:
        """Write these pairs."""
        text = ""
        if set(map(type, keys)) == {str} and set(map(type, values)) <= _PLAIN:
            text = "".join([f"{key}\t{value}\n" for key, value in zip(keys, values, strict=True)])
        if not text or text.count("\n") > len(keys) or text.count("\t") > len(keys) or "\r" in text:
            text = "".join(
                [f"{_field(k, _IN_KEY)}\t{_field(v, _IN_VALUE)}\n" for k, v in zip(keys, values, strict=True)]
            )
        self._write(text.encode("utf-8", "backslashreplace"), len(keys))


def _field(thing: Value, breaking: str) -> str:
    if isinstance(thing, str):
        return thing if not any(c in thing for c in breaking) else _json(thing).decode()
    if type(thing) in _PLAIN:
        return str(thing)
    try:
        return _json(thing).decode()
    except Exception:
        text = repr(thing)
        return text if not any(c in text for c in breaking) else _json(text).decode()
