"""`Cluster.map_reduce`: map/reduce jobs from a program, of a job file or of functions of the program itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from p2premap.client.amounts import size
from p2premap.client.bundle import FUNCTIONS, GIVEN_THE_SET, JobCode, kind_of, load_job, must_take, written_job
from p2premap.client.connection import Connection
from p2premap.client.directories import PartsDirectory, UrlDirectory
from p2premap.client.handle import Job, directory
from p2premap.client.jobs import Connect
from p2premap.client.locals import modules_of_program
from p2premap.client.pickles import dumps_by_value, look_for_modules
from p2premap.client.plan import plan_asked
from p2premap.client.planning import Asked
from p2premap.client.session import hand_in, renamed, strength
from p2premap.client.submission import Submission, with_blob
from p2premap.client.urlfiles import needing
from p2premap.errors import JobRejected
from p2premap.tasks.job import JobOptions
from p2premap.tasks.mapreduce import KIND

SETTINGS: Final = (
    "encoding",
    "errors",
    "delimiter",
    "header",
    "element",
    "sets",
    "suffix",
    "datasource",
    "endless",
    "each_node",
    "lasts",
)
"""What else a job file may say (docs/job-files.md)."""
PAIRS: Final = "pairs"
CODE_BYTES_MAX: Final = 64 << 20
_LITERALS: Final = (str, int, float, type(None))


def begin(
    connect: Connect,
    file: str | os.PathLike[str] | None,
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    given: dict[str, Any],
    partitions: int,
    name: str,
    output: str | None,
    overwrite: bool,
    options: JobOptions,
    lock: bytes,
) -> Job:
    """See `p2premap.client.cluster.Cluster.map_reduce`; `lock` is that of the environment in `options`, if any."""
    if callable(file):
        raise TypeError("map_reduce() takes functions by name: map=, combine=, reduce=, ...")
    target = None if output is None else directory(output, overwrite=overwrite)
    if isinstance(target, UrlDirectory):
        assert output is not None
        # two forks would write to one place
        options = msgspec.structs.replace(options, output=output, overwrite=overwrite, strict=True)
        options = needing(options, (output,))
    with connect() as connection:
        submission = plan(
            connection,
            file,
            inputs,
            given=given,
            partitions=partitions,
            name=name,
            options=options,
            to_program=output is None,
        )
    if isinstance(target, PartsDirectory):
        target.refuse_old_as_input(submission.files)
    job = hand_in(connect, with_blob(submission, lock) if lock else submission)
    return Job(connect, job, target=target if isinstance(target, PartsDirectory) else None)


def plan(
    connection: Connection,
    file: str | os.PathLike[str] | None,
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    given: dict[str, Any],
    partitions: int,
    name: str,
    options: JobOptions,
    to_program: bool,
) -> Submission:
    """Plan such a job.

    Args:
        given: functions and settings of a job file, by name, where there is no file.
        to_program: its results are for the program, and so keep their types.

    Raises:
        JobRejected: one sentence: a wrong job file or function, path, or input.
        TypeError: something is given that no job file has, or nothing at all.
    """
    writer = PAIRS if to_program else ""
    code = _of_functions(given, name, writer) if file is None else _of_file(os.fspath(file), given, writer)
    if not (paths := _paths(inputs)) and file is None:
        _refuse_no_inputs(given)
    power = strength(connection)
    asked = Asked(
        file=code.name,
        inputs=paths,
        slots=power.slots,
        one_machine=power.one_machine,
        partitions=partitions,
        options=options,
    )
    submission = plan_asked(asked, code=code)
    if submission.files and not connection.files:
        raise JobRejected(
            "The inputs are files of this machine, which has no node that could hand them out: start one with "
            "`p2premap node`."
        )
    return renamed(submission, name) if name else submission


def _refuse_no_inputs(given: dict[str, Any]) -> None:
    if "datasource" not in given and not given.get("each_node"):
        raise JobRejected("No input: give paths, patterns and URLs as inputs=, or what is in memory as datasource=.")


def _paths(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Sequence[str]:
    if isinstance(inputs, (str, os.PathLike)):
        return [os.fspath(inputs)]
    paths = list(inputs)
    if wrong := [path for path in paths if not isinstance(path, (str, os.PathLike))]:
        raise JobRejected(
            f"{wrong[0]!r:.100} is no input: inputs are paths, patterns and URLs. What the program has in memory goes "
            "as datasource=."
        )
    return [os.fspath(path) for path in paths]


def _of_file(file: str, given: dict[str, Any], writer: str) -> JobCode:
    if given:
        raise TypeError(
            f"map_reduce() has the job file {file!r}, which says itself what {next(iter(given))} is: leave one of them "
            "out, and name inputs by inputs="
        )
    if (kind := kind_of(file)) != KIND:
        raise JobRejected(f"{file} is a job of kind {kind}, and no map/reduce job.")
    return load_job(file, writer=writer)


def _of_functions(given: dict[str, Any], name: str, writer: str) -> JobCode:
    """A job file that says what was given, with the functions pickled by value."""
    for wrong in given.keys() - {*FUNCTIONS, *SETTINGS}:
        raise TypeError(f"map_reduce() got an unexpected keyword argument {wrong!r}")
    if not given:
        raise TypeError("map_reduce() needs the path of a job file, or functions: map=, reduce=, ...")
    given = {name: value for name, value in given.items() if value is not None or name in ("encoding", "element")}
    for function, value in given.items():
        if function in FUNCTIONS:
            _check(function, value, bool(given.get("sets")))
    literals = {key: value for key, value in given.items() if _is_literal(key, value)}
    rest = {key: value for key, value in given.items() if key not in literals}
    lines = ["import pickle", "", f"_given = pickle.loads(bytes.fromhex({_pickled(rest).hex()!r}))"]
    lines += [f"{key} = _given[{key!r}]" for key in rest]
    lines += [f"{key} = {value!r}" for key, value in literals.items()]
    if writer and "writer" not in given:
        lines.append(f"writer = {writer!r}")
    name = name or _name(given.get("map", given.get("reduce")))
    return written_job(name, "\n".join((*lines, "")), modules_of_program())


def _pickled(given: dict[str, Any]) -> bytes:
    look_for_modules()
    try:
        data = dumps_by_value(given)
    except Exception as error:
        raise JobRejected(f"What was given as {', '.join(given)} cannot be sent: {str(error).rstrip('.')}.") from error
    if len(data) > CODE_BYTES_MAX:
        raise JobRejected(
            f"What was given as {', '.join(given)} takes {size(len(data))} with all that it refers to, more than "
            f"{size(CODE_BYTES_MAX)}: put the data into files."
        )
    return data


def _is_literal(key: str, value: object) -> bool:
    """Whether it may stand in the file, where the plan is made from it, too."""
    return isinstance(value, _LITERALS) or key == "sets"


def _name(function: object) -> str:
    return getattr(function, "__name__", "").strip("<>") or KIND


def _check(name: str, function: Callable[..., Any] | str, sets: bool) -> None:
    """Raises: JobRejected: what is given as this function cannot be called as it will be."""
    if isinstance(function, str) and name in ("reader", "writer"):
        return
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise JobRejected(f"{name} is {function!r:.100}, which is no plain function.")
    forms = [(*(("set",) if sets and name in GIVEN_THE_SET else ()), *form) for form in FUNCTIONS[name]]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a builtin that does not tell
    for form in forms:
        try:
            signature.bind(*form)
        except TypeError:
            continue
        return
    raise JobRejected(must_take(name, forms))
