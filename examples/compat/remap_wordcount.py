"""A remap application as it stands: p2premap run --compat remap examples/compat/remap_wordcount.py TEXTS... -o out/"""

import remap


def create_mapper_reader(filename):
    return remap.TextFileReader(filename)


def create_mapper_partitioner(outputdir, partition, mapperid):
    return remap.TextPartitioner(outputdir, partition, mapperid, combiner=add)


def create_reducer_reader(filename):
    return remap.TextPartFileReader(filename)


def create_reducer_writer(outputdir, partition):
    return remap.TextReduceWriter(outputdir, partition)


def add(word, counts):
    return sum(counts)


def map(key, value):
    for word in value.lower().split():
        word = word.strip(".,;:!?\"'()")
        if word.isalpha():
            yield "a2m" if word[0] <= "m" else "n2z", word, 1


def reduce(word, counts):
    yield word, sum(counts)
