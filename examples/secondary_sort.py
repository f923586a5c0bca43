"""Secondary sort: what each visitor did, in order of time, without ever holding all of it in memory.

    p2premap run examples/secondary_sort.py VISITS.csv... -o visitors/

The input has the columns visitor, at (seconds) and page. Whoever comes back after half an hour begins a new visit.
`sort_key(key, value)` has the shuffle bring the values of a key in order, so `reduce` reads them once, one by one.
"""

reader = "csv"

PAUSE_S = 1_800


def map(key, row):
    yield row["visitor"], (float(row["at"]), row["page"])


def sort_key(visitor, value):
    at, _ = value
    return at


def reduce(visitor, values):
    """The number of visits, the longest of them in seconds, and the page on which each began."""
    began = last = None
    longest, first_pages = 0.0, []
    for at, page in values:
        if last is None or at - last > PAUSE_S:
            began = at
            first_pages.append(page)
        last = at
        longest = max(longest, at - began)
    return {"visits": len(first_pages), "longest_s": longest, "began_on": first_pages}
