"""Which words stand in which texts, by a reader and a writer of one's own.

p2premap run --compat remap examples/compat/remap_collation.py TEXTS... -o out/
"""

import os

import remap


class Paragraphs(remap.BaseReader):
    def read(self):
        with open(self.filename, errors="replace") as file:
            for number, paragraph in enumerate(file.read().split("\n\n")):
                yield (os.path.basename(self.filename), number), paragraph
        self.complete = True


class Index(remap.BaseReduceWriter):
    def __init__(self, outputdir, partition):
        super().__init__(outputdir, partition)
        self.lines = []

    def store(self, key, value):
        self.lines.append(f"{key}: {' '.join(value)}")

    def close(self):
        with open(os.path.join(self.outputdir, f"index-{self.partition}.txt"), "w") as file:
            file.write("\n".join([f"{len(self.lines)} words", *self.lines, ""]))


def create_mapper_reader(filename):
    return Paragraphs(filename)


def create_mapper_partitioner(outputdir, partition, mapperid):
    return remap.TextPartitioner(outputdir, partition, mapperid)


def create_reducer_reader(filename):
    return remap.TextPartFileReader(filename)


def create_reducer_writer(outputdir, partition):
    return Index(outputdir, partition)


def map(key, value):
    name, number = key
    for word in sorted(set(value.lower().split())):
        if word.isalpha():
            yield word[0], word, f"{name}/{number}"


def reduce(word, places):
    yield word, sorted(places)
