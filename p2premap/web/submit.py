"""Endpoints that hand jobs in: installed job files, uploads, and the submission itself.

What a job may be told is vetted here once, whatever its kind; its own options are vetted by the planner of its kind
(`p2premap.client.planning`), which is the same that `p2premap run` calls. Planning reads files and takes its time: it
is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import time
import zipfile
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from p2premap.client.bundle import kind_of, requires_of
from p2premap.client.connection import Connection, connect_to
from p2premap.client.planning import Asked, plan_job
from p2premap.client.session import hand_in, renamed, strength
from p2premap.client.shapes import Shape
from p2premap.client.submission import Submission
from p2premap.client.syntax import parse
from p2premap.client.urlfiles import needing
from p2premap.errors import JobRejected
from p2premap.ids import JobId
from p2premap.tasks import requirements
from p2premap.tasks.job import JobOptions, Limits
from p2premap.web.endpoints import Call, Endpoint, Media
from p2premap.web.jobs import answer_new
from p2premap.web.jobshapes import OneJobShape
from p2premap.web.problems import Problem
from p2premap.web.service import Page, body_pieces, page, reply
from p2premap.worker.urls import is_url, is_web

UPLOAD_BYTES_MAX: Final = 64 << 20
UPLOADS_MAX: Final = 64
UPLOADS_BYTES_MAX: Final = 1 << 30
UPLOAD_S: Final = 86_400.0
"""Its jobs read an upload as a file of this machine: it stays for a day."""
UNPACKED_BYTES_MAX: Final = 256 << 20
UNPACKED_FILES_MAX: Final = 2_000
JOB_FILES_MAX: Final = 500
MEMORY_LIMIT_MIN: Final = 32_000_000

FILE_NAME: Final = "a file's name of letters, digits, dots, dashes and underscores, such as count.py"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Uploaded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that has been uploaded."""

    upload: Id


class NewJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to hand in; see docs/api.md."""

    file: Word | Uploaded
    inputs: Annotated[tuple[Any, ...], msgspec.Meta(max_length=10_000)] = ()
    kind: Annotated[str, msgspec.Meta(max_length=100)] = ""
    options: dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=100)],
        Annotated[str, msgspec.Meta(max_length=10_000)] | float | int | bool,
    ] = {}
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    copies: Annotated[int, msgspec.Meta(ge=1, le=15)] = 3
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    partitions: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0
    parallel: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    skip_failed: bool = False
    strict: bool = False
    stage: bool = False
    requires: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()
    output: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    overwrite: bool = False
    time_limit_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**50)] = 0
    callback: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    callback_secret: Annotated[str, msgspec.Meta(max_length=255)] = ""
    key: Id | None = None


class UploadShape(Shape, frozen=True, kw_only=True):
    """Something that was uploaded, for jobs to name within a day."""

    id: str
    name: str
    bytes: int


class JobFileShape(Shape, frozen=True, kw_only=True):
    """An installed job file. `error`: why it cannot be handed in, or ""; `text`: what its docstring says first."""

    name: str
    kind: str
    actions: list[str]
    text: str
    error: str


class JobFilesPage(Shape, frozen=True, kw_only=True):
    """Installed job files, by name. `directory`: where they are."""

    items: list[JobFileShape]
    next: str | None
    directory: str


class UploadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What it is called."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z", description=FILE_NAME)]


# --- installed job files ------------------------------------------------------------------------------------------


async def list_files(call: Call) -> Response:
    """Installed job files."""
    directory = Path(call.web.settings.jobs)
    items, following = page(await asyncio.to_thread(_job_files, directory), call.query)
    return reply(call, JobFilesPage(items=items, next=following, directory=str(directory)))


def _job_files(directory: Path) -> list[JobFileShape]:
    try:
        files = sorted(directory.glob("*.py"))[:JOB_FILES_MAX]
    except OSError:
        return []
    return [_job_file(file) for file in files if _NAME.fullmatch(file.name)]


def _job_file(file: Path) -> JobFileShape:
    import ast

    kind, text, error, actions = "", "", "", list[str]()
    try:
        _, tree = parse(file, shown=file.name)
        kind = kind_of(str(file))
        text = (ast.get_docstring(tree) or "").strip().partition("\n")[0]
        if kind == "action":
            actions = [found.name for found in tree.body if isinstance(found, ast.ClassDef)]
    except JobRejected as rejected:
        error = str(rejected)
    return JobFileShape(name=file.stem, kind=kind, actions=actions, text=text[:255], error=error)


# --- uploads ------------------------------------------------------------------------------------------------------


async def upload(call: Call) -> Response:
    """Keep the body, for jobs to name."""
    root = Path(call.web.settings.uploads)
    await asyncio.to_thread(_make_room, root)
    id = secrets.token_hex(16)
    hidden, size = root / f".{id}", 0
    await asyncio.to_thread(hidden.mkdir, 0o700)
    try:
        with await asyncio.to_thread(open, hidden / call.query.name, "wb") as file:
            async for piece in body_pieces(call.request, UPLOAD_BYTES_MAX):
                size += len(piece)
                await asyncio.to_thread(file.write, piece)
        if call.query.name.endswith(".zip"):
            await asyncio.to_thread(_unpack, hidden / call.query.name)
        hidden.rename(root / id)
    except OSError as error:
        raise Problem(HTTPStatus.CONFLICT, f"It cannot be kept: {error.strerror}.") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, hidden, ignore_errors=True)
    return reply(call, UploadShape(id=id, name=call.query.name, bytes=size), HTTPStatus.CREATED)


def _make_room(root: Path) -> None:
    """Old uploads go; there are not too many of them.

    Raises:
        Problem: there are.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    count = size = 0
    for entry in sorted(root.iterdir()):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < time.time() - UPLOAD_S:
                shutil.rmtree(entry, ignore_errors=True)
                continue
            count += 1
            size += sum(file.stat().st_size for file in entry.rglob("*"))
    if count >= UPLOADS_MAX or size >= UPLOADS_BYTES_MAX:
        raise Problem(HTTPStatus.CONFLICT, "Too much has been uploaded in the last day; it goes by itself.")


def _unpack(packed: Path) -> None:
    """Beside it; nothing of it gets anywhere else.

    Raises:
        Problem: it is no such archive, too large, or would.
    """
    target = packed.parent / "unpacked"
    try:
        with zipfile.ZipFile(packed) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if len(members) > UNPACKED_FILES_MAX or size > UNPACKED_BYTES_MAX:
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The archive is too large when it is unpacked.")
            for member in members:
                parts = Path(member.filename).parts
                if Path(member.filename).is_absolute() or ".." in parts or "\\" in member.filename:
                    raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The archive has a path that leads out of it.")
            archive.extractall(target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"This is no archive: {error}.") from None
    if not (target / "job.py").is_file():
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The archive has no job.py at its top.")


def _uploaded(root: Path, id: str) -> Path:
    """The file, or of an archive the job file in it.

    Raises:
        Problem: there is none.
    """
    try:
        files = [entry for entry in (root / id).iterdir() if entry.is_file()]
    except OSError:
        files = []
    if not files:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"There is no upload {id} (any more): upload it again.")
    unpacked = root / id / "unpacked" / "job.py"
    return unpacked if unpacked.is_file() else files[0]


# --- handing in ---------------------------------------------------------------------------------------------------


async def submit_job(call: Call) -> Response:
    """Hand a job in."""
    try:
        job = await asyncio.to_thread(_submit, call)
    except JobRejected as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    return await answer_new(call, job)


def _submit(call: Call) -> JobId:
    """In a thread.

    Raises:
        JobRejected, P2PRemapError, Problem: it was not handed in.
    """
    new: NewJob = call.body
    settings = call.web.settings
    file = _file_of(call, new.file)
    connect = partial(connect_to, settings.socket)
    kind = new.kind or kind_of(file)
    options = _options_of(new, file)
    inputs = tuple(_input_of(call, given) for given in new.inputs)
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in new.options.items()}
    submission = _plan(
        connect(), kind, Asked(file=file, inputs=inputs, partitions=new.partitions, given=given, options=options)
    )
    submission = renamed(submission, new.name) if new.name else submission
    if new.key is not None:
        spec = msgspec.structs.replace(submission.spec, submission_key=bytes.fromhex(new.key))
        submission = Submission(
            spec=spec,
            blobs=submission.blobs,
            files=submission.files,
            bytes_in=submission.bytes_in,
            tasks=submission.tasks,
        )
    return hand_in(connect, submission, again=new.key is not None)


def _plan(connection: Connection, kind: str, asked: Asked) -> Submission:
    from dataclasses import replace

    with connection:
        power = strength(connection)
    return plan_job(kind, replace(asked, slots=power.slots, one_machine=power.one_machine))


def _file_of(call: Call, file: str | Uploaded) -> str:
    settings = call.web.settings
    if isinstance(file, Uploaded):
        return str(_uploaded(Path(settings.uploads), file.upload))
    if os.path.isabs(file):
        return file
    stem = file.removesuffix(".py")
    installed = Path(settings.jobs) / f"{stem}.py"
    if not _NAME.fullmatch(f"{stem}.py") or not installed.is_file():
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"No job file {file[:100]!r} is installed in {settings.jobs}; name one, an absolute path, or an upload.",
        )
    return str(installed)


def _input_of(call: Call, given: object) -> str:
    """As `p2premap run` would be given it."""
    match given:
        case str():
            if not is_url(given) and not os.path.isabs(given) and not _is_json(given):
                raise Problem(
                    HTTPStatus.UNPROCESSABLE_ENTITY, f"The input {given[:100]!r} is no absolute path and no URL."
                )
            return given
        case {"upload": str(id), **rest} if not rest and re.fullmatch("[0-9a-f]{32}", id):
            return str(_uploaded(Path(call.web.settings.uploads), id))
        case _:
            return json.dumps(given)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _options_of(new: NewJob, file: str) -> JobOptions:
    if 0 < new.memory_limit_bytes < MEMORY_LIMIT_MIN:
        raise JobRejected(f"memory_limit_bytes: a worker process needs {MEMORY_LIMIT_MIN} before it does anything.")
    if new.output and not is_url(new.output):
        raise JobRejected("output: only a URL can be written to by nodes; leave it out, and fetch the results.")
    if new.callback and not is_web(new.callback):
        raise JobRejected("callback: give an http or https URL.")
    if new.callback_secret and not new.callback:
        raise JobRejected("callback_secret: there is no callback to sign.")
    options = JobOptions(
        priority=new.priority,
        retries=new.retries,
        skip_failed=new.skip_failed,
        limits=Limits(time_s=new.time_limit_s, memory_bytes=new.memory_limit_bytes),
        copies=new.copies,
        strict=new.strict or bool(new.output),  # two forks would write to one place
        stage_inputs=new.stage,
        parallel_max=new.parallel,
        requires=(*requires_of(file), *requirements.lines_of(new.requires)),
        output=new.output,
        overwrite=new.overwrite and bool(new.output),
        callback=new.callback,
        callback_secret=new.callback_secret,
    )
    return needing(options, (options.output,) if options.output else ())


_NOT_MODIFIED: Final = Media("the client has it", empty=True)

ENDPOINTS: Final = [
    Endpoint(
        "POST",
        "/api/v1/jobs",
        submit_job,
        "Hand a job in.",
        {201: OneJobShape},
        body=NewJob,
        fails={409: "not now: a full disk, too many jobs"},
    ),
    Endpoint("GET", "/api/v1/files", list_files, "Job files.", {200: JobFilesPage, 304: _NOT_MODIFIED}, Page),
    Endpoint(
        "POST",
        "/api/v1/uploads",
        upload,
        "Keep a file for jobs.",
        {201: UploadShape},
        UploadQuery,
        Media("application/octet-stream"),
        optional_body=True,
        fails={409: "too much was uploaded, or a full disk"},
    ),
]
