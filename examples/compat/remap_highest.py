"""The highest value that reaches each vertex, in the longer form of remap's compute; a line is id, value, targets.

Each vertex listens to its targets instead of having them send to it: what they publish under their own name comes here.

p2premap run --compat remap examples/compat/remap_highest.py VERTICES.txt -o highest/
"""

import remap


def create_vertex_reader(filename):
    return remap.TextFileReader(filename, yieldkv=False)


def create_vertex_partitioner(outputdir, partition, mapperid):
    return remap.TextPartitioner(outputdir, partition, mapperid)


def prepare(line):
    if not line.strip():
        return None, None
    name, value, *targets = line.split()
    return name, (name, int(value), targets)


def compute(forward, subscribe, unsubscribe, superstep, vertex, messages):
    name, value, targets = vertex
    if superstep == 0:
        for target in targets:
            subscribe(target)
        return vertex, False
    highest = max([value, *messages])
    if superstep == 1 or highest > value:
        forward(name, highest)
        return (name, highest, targets), False
    return vertex, True
