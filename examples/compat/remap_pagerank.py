"""The rank of each page, as a vertex application of remap; a line is a page and the pages that it links to.

p2premap run --compat remap examples/compat/remap_pagerank.py PAGES.txt -o ranks/
"""

import remap

SUPERSTEPS = 30
DAMPING = 0.85


def create_vertex_reader(filename):
    return remap.TextFileReader(filename, yieldkv=False)


def create_vertex_partitioner(outputdir, partition, mapperid):
    return remap.TextPartitioner(outputdir, partition, mapperid)


def prepare(line):
    page, *links = line.split() or [None]
    return page, (1.0, links)


def compute(send, superstep, vertex, messages):
    rank, links = vertex
    if superstep > 0:
        rank = 1 - DAMPING + DAMPING * sum(messages)
    if superstep == SUPERSTEPS:
        return (rank, links), True
    for page in links:
        send(page, rank / len(links))
    return (rank, links), False
