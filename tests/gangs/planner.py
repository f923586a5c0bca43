"""From the command line to a job of `tests.gangs.kind`."""

from __future__ import annotations

import msgspec

from p2premap.client.bundle import pack_file
from p2premap.client.submission import submission_of
from tests.gangs.kind import Plan


def plan(asked):
    """See `p2premap.client.planning`."""
    given = {name: type(getattr(Plan(1), name))(value) for name, value in asked.given.items()}
    made = Plan(**given)
    source = pack_file(asked.file)
    packed = msgspec.msgpack.encode(made)
    return submission_of(
        "sums", asked.options, name=source.name, code=source.bundle, plan=packed, tasks=made.tasks * (made.epochs + 1)
    )
