"""Word count with collect functions of both forms, without a reduce function: what is left is summed here.

p2premap run --compat mincemeat examples/compat/mincemeat_collect.py TEXTS...
"""

import glob
import sys

import mincemeat


class Texts:
    """A data source that is lazy: a file is read when its turn comes."""

    def __init__(self, patterns):
        self.names = [name for pattern in patterns for name in sorted(glob.glob(pattern))]

    def __iter__(self):
        return iter(self.names)

    def __getitem__(self, name):
        with open(name, errors="replace") as file:
            return file.read()


def words(name, corpus):
    for word in corpus.split():
        yield word.lower(), 1


def collect(word, counts):
    return sum(counts)


def collect_all(items):
    for word, counts in items:
        yield word, counts if len(counts) < 10 else [sum(counts)]


def total(word, counts):
    return sum(counts)


for collectfn in (collect, collect_all):
    server = mincemeat.Server()
    server.datasource = Texts(sys.argv[1:])
    server.mapfn = words
    server.collectfn = collectfn
    server.finishfn = total
    results = server.run_server(password="changeme")
    top = sorted(results.items(), key=lambda item: (-item[1], item[0]))[:5]
    print(collectfn.__name__, len(results), *(f"{word}={count}" for word, count in top))
