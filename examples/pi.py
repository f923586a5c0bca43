"""Pi by throwing darts: futures, with a number that gets better while one watches.

    python examples/pi.py [MILLIONS]

Each call has a seed of its own, so the answer is the same on one machine and on fifty.
"""

import random
import sys

import p2premap

DARTS = 1_000_000


def hits(seed):
    """How many of so many darts fall into the quarter circle."""
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1 for _ in range(DARTS))


def estimate(cluster, millions):
    """Pi from so many million darts."""
    inside = 0
    for number, hit in enumerate(cluster.map(hits, range(millions), ordered=False), 1):
        inside += hit
        print(f"\r{number} million darts: {4 * inside / (number * DARTS):.6f}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return 4 * inside / (millions * DARTS)


if __name__ == "__main__":
    with p2premap.connect() as cluster:
        print(estimate(cluster, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
