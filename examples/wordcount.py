"""Count words, a line at a time: p2premap run examples/wordcount.py TEXTS... -o counts/"""

errors = "replace"  # a stray byte that is not UTF-8 should not cost the count


def map(key, line):
    for word in line.split():
        yield word, 1


def combine(word, counts):
    return sum(counts)


def reduce(word, counts):
    return sum(counts)
