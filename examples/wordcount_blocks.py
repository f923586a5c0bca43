"""Count words, all of a task's in one call: for when `map` has something faster than a loop over lines.

p2premap run examples/wordcount_blocks.py TEXTS... -o counts/
"""

from collections import Counter

reader = "task"
errors = "replace"  # a stray byte that is not UTF-8 should not cost the count


def map(key, blocks):
    counts = Counter()
    for block in blocks:
        counts.update(block.split())
    return counts


def combine(word, counts):
    return sum(counts)


def reduce(word, counts):
    return sum(counts)
