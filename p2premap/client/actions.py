"""The planner of actions: which class of a job file it is, and what each input is; see `p2premap.client.planning`.

Nothing of the job file is run. An input is, in this order: a URL; a file, a directory or a pattern of files of this
machine; a JSON value.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping, Sequence

from blake3 import blake3

from p2premap.client.bundle import pack_file
from p2premap.client.planning import Asked
from p2premap.client.splits import find_files
from p2premap.client.submission import Submission, submission_of
from p2premap.errors import JobRejected
from p2premap.ids import Digest
from p2premap.tasks.action import INPUTS_MAX, KIND, PLAN_VERSION, ActionPlan, Given, InputFile, pack_plan
from p2premap.worker.urls import is_url


def plan(asked: Asked) -> Submission:
    """Plan an action.

    Raises:
        JobRejected: one sentence: a wrong job file, or an input that is nothing.
    """
    if asked.partitions:
        raise JobRejected("Actions have no partitions: leave --partitions out.")
    source = pack_file(asked.file)
    action = _the_action(asked.file, source.actions)
    given = [given for text in asked.inputs for given in _given(text)]
    if not given:
        raise JobRejected("No input: name URLs, files or JSON values after the job file.")
    if len(given) > INPUTS_MAX:
        raise JobRejected(f"{len(given)} inputs are more than {INPUTS_MAX}; give the action ranges that it splits.")
    files = [one.file for one in given if one.file is not None]
    packed = pack_plan(
        ActionPlan(
            version=PLAN_VERSION,
            action=action.name,
            inputs=tuple(given),
            options=json.dumps(_options(asked.given)).encode(),
            merges="merge" in _methods(action),
            unordered=_is_unordered(action),
        )
    )
    return submission_of(
        KIND,
        asked.options,
        name=source.name,
        code=source.bundle,
        plan=packed,
        files=[file.path for file in files],
        bytes_in=sum(file.size for file in files),
        tasks=len(given),
    )


def _the_action(path: str, actions: Mapping[str, ast.ClassDef]) -> ast.ClassDef:
    if not actions:
        raise JobRejected(f"{path} has no class that derives from p2premap.Action: it is no action.")
    if len(actions) > 1:
        raise JobRejected(f"{path} has several actions ({', '.join(actions)}): put each into a file of its own.")
    (action,) = actions.values()
    methods = _methods(action)
    if "process" not in methods and len(action.bases) == 1:
        raise JobRejected(f"{path}: the action {action.name} has no method process: define process(self).")
    for name in ("process", "split", "merge"):
        match methods.get(name):
            case ast.AsyncFunctionDef(lineno=line):
                raise JobRejected(f"{path}, line {line}: {name} is an async function; define it with a plain def.")
            case ast.FunctionDef(args=args, decorator_list=[], lineno=line) if len(args.posonlyargs + args.args) != 1:
                raise JobRejected(f"{path}, line {line}: {name} takes nothing but self; the input is self.input.")
            case _:
                pass
    return action


def _methods(action: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {found.name: found for found in action.body if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef)}


def _is_unordered(action: ast.ClassDef) -> bool:
    for statement in action.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="unordered")], value=ast.Constant(value=value))
                | ast.AnnAssign(target=ast.Name(id="unordered"), value=ast.Constant(value=value))
            ):
                return bool(value)
            case _:
                pass
    return False


def _options(given: Mapping[str, str]) -> dict[str, object]:
    """A value that is no JSON is text."""
    options: dict[str, object] = {}
    for name, text in given.items():
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


def _given(text: str) -> Iterator[Given]:
    if is_url(text):
        yield Given(value=json.dumps(text).encode())
        return
    try:
        found = find_files([text])
    except JobRejected as error:
        if os.path.lexists(text):
            raise
        try:
            value = json.loads(text)
        except ValueError:
            raise JobRejected(
                f"The input {text[:200]!r} is no file, no URL and no JSON value ({str(error).rstrip('.')}); "
                "text that is meant as it stands needs double quotes around it, inside those of the shell."
            ) from None
        yield Given(value=json.dumps(value, ensure_ascii=False).encode())
        return
    yield from _files([(file.input.path, file.input.name, file.size, file.input.mtime_ns) for file in found])


def _files(found: Sequence[tuple[str, str, int, int]]) -> Iterator[Given]:
    for path, name, size, mtime_ns in found:
        try:
            digest = blake3().update_mmap(path).digest()
        except OSError as error:
            raise JobRejected(f"Cannot read {name}: {error.strerror}.") from None
        file = InputFile(path=path, mtime_ns=mtime_ns, size=size, digest=Digest(digest))
        yield Given(value=json.dumps(name, ensure_ascii=False).encode(), file=file)
