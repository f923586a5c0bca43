"""Futures: `submit` calls one function, `map` calls it for many; the cluster is an Executor of the standard library.

    python examples/futures.py

With no node running, a private one is started for as long as this program is connected.
"""

import p2premap


def collatz(n):
    """How many steps it takes from n to 1."""
    steps = 0
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps


def fraction(a, b):
    return a / b


if __name__ == "__main__":
    with p2premap.connect() as cluster:
        # many calls: as many in one task as are quick
        numbers = range(1, 100_000)
        longest = max(zip(cluster.map(collatz, numbers), numbers, strict=True))
        print("the longest way below 100,000 has", longest[0], "steps, from", longest[1])

        # single calls, and whoever is ready first
        futures = [cluster.submit(collatz, 2**n - 1) for n in range(50, 60)]
        print("ready:", sorted(future.result() for future in p2premap.as_completed(futures)))

        # what a call raises is raised here, with its traceback there as the cause
        try:
            cluster.submit(fraction, 1, b=0).result()
        except ZeroDivisionError as error:
            print("as it was raised there:", repr(error))
