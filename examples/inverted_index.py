"""An inverted index: in which files, and how often, each word stands; the files with most of a word first.

    p2premap run examples/inverted_index.py TEXTS... -o index/

A line of the index is a word and a list of [file, count].
"""

import re

WORD = re.compile(r"[^\W\d_]+")

errors = "replace"


def map(key, line):
    name, _ = key
    for word in WORD.findall(line.lower()):
        yield word, {name: 1}


def combine(word, counts):
    """One dict for many: what travels is as short as the number of files."""
    total = {}
    for count in counts:
        for name, n in count.items():
            total[name] = total.get(name, 0) + n
    return total


def reduce(word, counts):
    files = combine(word, counts)
    return sorted(files.items(), key=lambda item: (-item[1], item[0]))
