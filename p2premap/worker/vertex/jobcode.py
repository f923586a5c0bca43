"""The program of a vertex job: found in the job file, or among those that are installed, and given its options."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import NamedTuple

import msgspec

from p2premap.vertex.barrier import VertexError
from p2premap.vertex.loading import INTEGERS, LINES, unpack_reading
from p2premap.vertex.plan import ARRAYS, OBJECTS, Settings
from p2premap.vertex.program import REQUIRED, ArrayProgram, VertexProgram, set_options
from p2premap.worker.loading import load_bundle
from p2premap.worker.vertex.functions import program_of
from p2premap.worker.vertex.partition import Form


class JobCode(NamedTuple):
    """What a job runs.

    Args:
        program: with its options.
        settings: of the job.
    """

    program: VertexProgram | ArrayProgram
    settings: Settings

    def form(self) -> Form:
        """What makes partitions."""
        if isinstance(self.program, VertexProgram):
            from p2premap.worker.vertex.objects import ObjectForm

            return ObjectForm(self.program, self.settings)
        from p2premap.worker.vertex.arrays import ArrayForm

        return ArrayForm(self.program, self.settings)


def job_code(bundle: bytes, settings: Settings) -> JobCode:
    """Load the program.

    Raises:
        VertexError: there is none, or the job was planned for another form, or other inputs.
        Exception: what user code raises when it is imported.
    """
    name, _, attribute = settings.program.partition(":")
    module = importlib.import_module(name) if name else _job_file(bundle)
    program = made(getattr(module, attribute, None)) if attribute else program_of(module)
    if form_of(program) != settings.form:
        raise VertexError(f"The job was planned for a program of the form {settings.form!r}, and this is another.")
    _complete(program)
    prepares = isinstance(program, VertexProgram) and type(program).prepare is not VertexProgram.prepare
    if prepares and unpack_reading(settings.reading).form != LINES:
        raise VertexError(
            f"{type(program).__name__} has its prepare from another module, and so nobody saw it when the inputs were "
            "to be read: write `def prepare(self, line)` into a class of the job file."
        )
    options = msgspec.msgpack.decode(settings.options, type=dict[str, object])
    set_options(program, options, integers=settings.ids == INTEGERS)
    return JobCode(program, settings)


def _complete(program: VertexProgram | ArrayProgram) -> None:
    """Raises VertexError: the program lacks a method, as would show at the end of the job."""
    form = VertexProgram if isinstance(program, VertexProgram) else ArrayProgram
    for name, call in REQUIRED[form.__name__].items():
        if getattr(type(program), name) is getattr(form, name) and name not in vars(program):
            raise VertexError(f"{type(program).__name__} has no method {name}: define {call}.")


_last: tuple[bytes, ModuleType] | None = None
"""What was loaded last: in the simulator, many worker processes are one, and must mean the same by a class."""


def _job_file(bundle: bytes) -> ModuleType:
    global _last
    if _last is None or _last[0] != bundle or sys.modules.get(_last[1].__name__) is not _last[1]:
        _last = bundle, load_bundle(bundle)
    return _last[1]


def form_of(program: VertexProgram | ArrayProgram) -> str:
    """`OBJECTS` or `ARRAYS`."""
    return OBJECTS if isinstance(program, VertexProgram) else ARRAYS


def made(found: object) -> VertexProgram | ArrayProgram:
    """An instance of what was found.

    Raises:
        VertexError: it is no program, or cannot be made without arguments.
    """
    if inspect.isclass(found) and issubclass(found, (VertexProgram, ArrayProgram)):
        try:
            return found()
        except TypeError as error:
            raise VertexError(f"{found.__name__} must be made without arguments: {error}.") from error
    if isinstance(found, (VertexProgram, ArrayProgram)):
        return found
    raise VertexError(f"{found!r:.100} is no vertex program: derive a class from p2premap.VertexProgram.")
