"""PageRank by hand, on arrays: a program that thinks like a partition of the graph.

    p2premap run examples/rank_pages.py links.txt -o ranks/ --option supersteps=21

`p2premap graph pagerank` is the same with all its corners; this is what a program of your own looks like.
"""

import numpy as np

import p2premap


class RankPages(p2premap.ArrayProgram):
    combine = "sum"
    aggregators = {"lost": "sum"}  # what vertices without out-edges would have sent
    damping = 0.85

    def start(self, part):
        part.state["rank"] = np.full(part.n, 1.0 / part.globals.vertices)

    def compute(self, part, inbox):
        rank, n = part.state["rank"], part.globals.vertices
        if part.superstep:
            lost = part.globals.aggregates.get("lost", 0.0)
            rank[:] = (1 - self.damping) / n + self.damping * (inbox.values + lost / n)
        dangling = part.degrees == 0
        part.aggregate("lost", float(rank[dangling].sum()))
        part.send_all(rank / np.maximum(part.degrees, 1))
        return False  # nobody halts: --option supersteps=N ends it

    def result(self, part):
        return part.state["rank"]
