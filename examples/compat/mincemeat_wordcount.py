"""A mincemeat job as it stands: p2premap run --compat mincemeat examples/compat/mincemeat_wordcount.py"""

import mincemeat

data = [
    "the quick brown fox jumps over the lazy dog",
    "the dog sleeps in the sun",
    "a fox is quick and a dog is not",
]


def mapfn(name, corpus):
    for word in corpus.split():
        yield word, 1


def reducefn(word, counts):
    return sum(counts)


s = mincemeat.Server()
s.datasource = dict(enumerate(data))
s.mapfn = mapfn
s.reducefn = reducefn

results = s.run_server(password="changeme")
for word in sorted(results):
    print(word, results[word])
