"""How often does each word occur? The job that `p2premap demo` runs: an ordinary job file, nothing more."""

import re
from collections import Counter
from collections.abc import Iterable

WORD = re.compile("[a-z]+")

reader = "blocks"  # whole blocks of lines: the loop over the words then runs in C
errors = "replace"


def map(key: object, block: str) -> Counter[str]:
    return Counter(WORD.findall(block.lower()))


def reduce(word: str, counts: Iterable[int]) -> int:
    return sum(counts)
