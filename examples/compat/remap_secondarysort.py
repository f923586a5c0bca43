"""Rows of `id,first,last,department,salary`: those of each department in a file of its own, by salary.

p2premap run --compat remap examples/compat/remap_secondarysort.py PEOPLE.csv -o out/
"""

from operator import itemgetter

import remap


def create_mapper_reader(filename):
    return remap.TextFileReader(filename)


def create_mapper_partitioner(outputdir, partition, mapperid):
    return remap.TextPartitioner(outputdir, partition, mapperid, combiner=None, customkey=itemgetter(4))


def create_reducer_reader(filename):
    return remap.TextPartFileReader(filename)


def create_reducer_writer(outputdir, partition):
    return remap.TextReduceWriter(outputdir, partition)


def map(key, value):
    number, first, last, department, salary = value.strip().split(",")
    yield department.replace(" ", "_"), (number, first, last, department, int(salary)), ""


def reduce(key, values):
    yield " ".join(str(part) for part in key[1:3]), key[4]
