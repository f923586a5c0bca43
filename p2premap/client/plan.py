"""From a job file and what was typed beside it to a map/reduce job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from p2premap.client.bundle import JobCode, load_job
from p2premap.client.splits import Splits, cut_files, find_files, listing
from p2premap.client.submission import Submission, submission_of
from p2premap.client.urlfiles import needing
from p2premap.errors import JobRejected
from p2premap.tasks.job import JobOptions
from p2premap.tasks.mapreduce import KIND
from p2premap.tasks.mapreduce_plan import PARTITIONS_MAX, pack_plan

if TYPE_CHECKING:
    from p2premap.client.planning import Asked

KEYS_TASKS: Final = 8
"""The keys of a datasource are shared out to so many tasks a slot: nobody knows which of them take long."""

PARTITION_BYTES: Final = 4 << 20
"""Less input than this a partition is not worth another reduce task."""


def plan(asked: Asked) -> Submission:
    """The planner of map/reduce jobs; see `p2premap.client.planning`.

    Raises:
        JobRejected: as `plan_mapreduce`.
    """
    if asked.given:
        raise JobRejected(f"Map/reduce jobs have no option {next(iter(asked.given))!r}: leave --option out.")
    return plan_asked(asked)


def plan_asked(asked: Asked, *, code: JobCode | None = None) -> Submission:
    """`plan_mapreduce` of what a command was given.

    Args:
        code: see there.

    Raises:
        JobRejected: see there.
    """
    return plan_mapreduce(
        asked.file,
        asked.inputs,
        slots=asked.slots,
        partitions=asked.partitions,
        compression="none" if asked.one_machine else "zlib",
        options=asked.options,
        code=code,
    )


def plan_mapreduce(
    job_file: str,
    inputs: Sequence[str],
    *,
    slots: int,
    partitions: int = 0,
    compression: str = "zlib",
    options: JobOptions | None = None,
    code: JobCode | None = None,
) -> Submission:
    """Plan a map/reduce job over files of this machine.

    Args:
        job_file: a Python file with `map` and perhaps `combine`, `reduce` and others (docs/job-files.md).
        inputs: paths of files and directories, glob patterns, and URLs.
        slots: worker processes of the whole cluster now.
        partitions: output parts that pairs are brought together in, of each set; 0: chosen from the slots and the size.
        compression: of what goes from map to reduce: "zlib", "zstd" where every node has it, "none" where all nodes
            are on one machine.
        code: the job file, where it has been loaded.

    Raises:
        JobRejected: one sentence: a wrong job file, path, or input.
    """
    code = code or load_job(job_file)
    most = PARTITIONS_MAX // max(len(code.sets), 1)
    if not 0 <= partitions <= most:
        raise JobRejected(f"{partitions} partitions: choose between 1 and {most}.")
    slots = max(slots, 1)
    listed = code.datasource or code.open != ""
    splits = _no_files(inputs) if listed else cut_files(find_files(inputs), inputs, slots, code)
    used, tasks, total = splits.files, splits.tasks, splits.size
    if not code.shuffles:
        partitions = 0
    elif not partitions:
        partitions = min(slots, slots if listed else -(-total // PARTITION_BYTES), most)
    options = options or JobOptions()
    plan = pack_plan(
        files=used,
        tasks=tasks,
        partitions=partitions * max(len(code.sets), 1),
        compression=compression,
        finish=code.finishes,
        sets=code.sets,
        suffix=code.suffix,
        memory_bytes=options.limits.memory_bytes,
        keys=min(KEYS_TASKS * slots, PARTITIONS_MAX) if listed else 0,
        open=code.open,
        lasts_s=code.lasts_s,
    )
    return submission_of(
        KIND,
        needing(options, (file.name for file in used if not file.path)),
        name=code.name,
        code=code.bundle,
        plan=plan,
        files=[file.path for file in used if file.path],
        bytes_in=total,
        tasks=len(tasks),
    )


def _no_files(inputs: Sequence[str]) -> Splits:
    if inputs:
        raise JobRejected(
            f"The job file has a datasource or each_node, and reads no files: leave {listing(inputs)} out."
        )
    return Splits((), [], [])
