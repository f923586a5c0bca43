"""Distances from one vertex over roads with lengths, and by which neighbour: a program that thinks like a vertex.

    p2premap run examples/shortest_paths.py roads.csv -o distances/ --option weights=yes --option start=Ulm

where a line of `roads.csv` is "Ulm,Augsburg,79.5". A road leads both ways.
"""

import p2premap


class ShortestPaths(p2premap.VertexProgram):
    combiner = min  # of several ways to a vertex only the best travels
    weighted = True  # a road without a length has 1
    start = None  # the id of a vertex

    def create(self, id):
        return float("inf"), ""

    def compute(self, ctx, vertex, messages):
        best = (0.0, "") if ctx.superstep == 0 and vertex.id == self.start else vertex.value
        for length, neighbour in messages:
            best = min(best, (length, neighbour))
        if best != vertex.value:
            vertex.value = best
            for other, length in zip(vertex.edges, vertex.edge_values, strict=True):
                ctx.send(other, (best[0] + length, vertex.id))
        ctx.halt()

    def result(self, vertex):
        length, neighbour = vertex.value
        return (round(length, 1), neighbour)
