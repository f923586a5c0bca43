"""From the command line to a job: see `p2premap.client.planning`."""

import msgspec

from p2premap.client.bundle import pack_file
from p2premap.client.submission import submission_of
from p2premap.errors import JobRejected
from p2premap_montecarlo.director import Plan


def plan(asked):
    if asked.inputs:
        raise JobRejected("Monte Carlo jobs have no inputs.")
    try:
        error = float(asked.given.get("error", 0.01))
        seed = int(asked.given.get("seed", 1))
    except ValueError as wrong:
        raise JobRejected(f"error and seed are numbers: {wrong}.") from None
    source = pack_file(asked.file)
    packed = msgspec.msgpack.encode(Plan(error=error, tasks=asked.slots, samples=10_000, seed=seed))
    code, tasks = source.bundle, asked.slots
    return submission_of("montecarlo", asked.options, name=source.name, code=code, plan=packed, tasks=tasks)
