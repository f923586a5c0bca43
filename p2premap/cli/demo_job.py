"""How often does each word occur? The job that `p2premap demo` runs: an ordinary job file, nothing more."""

import re
from collections.abc import Iterable, Iterator

WORD = re.compile("[a-z]+")

errors = "replace"


def map(key: str, line: str) -> Iterator[tuple[str, int]]:
    for word in WORD.findall(line.lower()):
        yield word, 1


def combine(key: str, values: Iterable[int]) -> int:
    return sum(values)


reduce = combine
