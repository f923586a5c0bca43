"""An exception as the end of an attempt: one sentence, and the traceback of user code only."""

from __future__ import annotations

import errno
import importlib
import os
from types import TracebackType
from typing import Final

from p2premap.errors import P2PRemapError
from p2premap.ids import Digest
from p2premap.node.blobs import BlobError
from p2premap.tasks.bundle import WRITTEN
from p2premap.tasks.job import AttemptEnd, Outcome
from p2premap.worker.runtime import InputLost

ERROR_CHARACTERS_MAX: Final = 2_000
TRACEBACK_CHARACTERS_MAX: Final = 24_000
_DISK_OF_THIS_NODE: Final = (errno.ENOSPC, errno.EDQUOT)
OURS: Final = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, WRITTEN)
"""What the paths of p2premap's own code begin with."""

_LOADERS: Final = (*OURS, os.path.dirname(importlib.__file__) + os.sep, "<frozen importlib")


class Stopped(BaseException):
    """Raised in user code by the soft signal, so that its clean-up runs."""


def end_of(task: int, attempt: int, error: BaseException) -> AttemptEnd:
    """How an attempt ended that raised `error`; figures and log tail are added by the caller."""
    missing: tuple[Digest, ...] = ()
    detail = ""
    match error:
        case InputLost():
            outcome, text, missing = Outcome.INPUT_LOST, str(error), (Digest(error.digest),)
        case BlobError():
            outcome, text = Outcome.REFUSED, str(error)
        case Stopped():
            # where it was is in its output: faulthandler wrote it there when the signal came
            outcome, text = Outcome.STOPPED, "It was stopped."
        case P2PRemapError():
            # its sentence was written for people; where no user code was running there is nothing to add to it
            outcome, text = Outcome.RAISED, str(error)
            shown = error if _last_user_frame(error.__traceback__) else error.__cause__
            if shown is not None and _last_user_frame(shown.__traceback__):
                detail = _way_to(shown) if shown is error else traceback_of(shown)
        case OSError(errno=number) if number in _DISK_OF_THIS_NODE:
            # in user code, or where it prints: another node's disk may do
            outcome, text, detail = Outcome.REFUSED, sentence_of(error), traceback_of(error)
        case _:
            outcome, text, detail = Outcome.RAISED, sentence_of(error), traceback_of(error)
    return AttemptEnd(
        task=task,
        attempt=attempt,
        outcome=outcome,
        error=_encodable(text[:ERROR_CHARACTERS_MAX]),
        detail=detail,
        missing=missing,
    )


def sentence_of(error: BaseException) -> str:
    """What was raised, and in which line of user code."""
    if isinstance(error, SystemExit):
        return f"The code called sys.exit({error.code!r})."
    try:
        text = str(error)
    except Exception:
        # user classes may have a broken __str__
        text = "(its text cannot be shown)"
    text = text[:ERROR_CHARACTERS_MAX]
    name = type(error).__qualname__
    first = f"{name}: {text}" if text else name
    place = _last_user_frame(error.__traceback__)
    if isinstance(error, ModuleNotFoundError) and error.name:
        place = f"{place}; install it on that node, or put the module beside the job file"
    return f"{first} ({place})" if place else first


def _last_user_frame(traceback: TracebackType | None) -> str:
    place = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(OURS):
            place = f"{os.path.basename(code.co_filename)}, line {traceback.tb_lineno}, in {code.co_name}"
        traceback = traceback.tb_next
    return place


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames of p2premap that called user code, and not too long."""
    return _encodable(_shorten(_user_traceback(error)))


def _way_to(error: P2PRemapError) -> str:
    """Where user code was when it got this sentence, which is told beside it: its frames alone."""
    from traceback import StackSummary, extract_tb, format_exception

    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(_LOADERS)]
    text = "Traceback (most recent call last):\n" + "".join(StackSummary.from_list(frames).format())
    if error.__cause__ is not None:
        text = "".join(format_exception(error.__cause__)) + "\nThat led to:\n\n" + text
    return _encodable(_shorten(text))


def _user_traceback(error: BaseException) -> str:
    from traceback import TracebackException

    try:
        shown = TracebackException.from_exception(error, compact=True)
        _trim(shown)
        return "".join(shown.format())
    except Exception as broken:
        # user exceptions can break their own formatting
        return f"(the traceback of {type(error).__qualname__} cannot be shown: {type(broken).__name__})"


def _trim(shown: object) -> None:
    """Drop leading frames of p2premap and of the import system, in the chain of causes too."""
    from traceback import StackSummary, TracebackException

    assert isinstance(shown, TracebackException)
    frames = list(shown.stack)
    while frames and frames[0].filename.startswith(_LOADERS):
        del frames[0]
    shown.stack = StackSummary.from_list(frames)
    if len(text := str(shown)) > TRACEBACK_CHARACTERS_MAX:
        # each step of formatting would copy it whole, and a text of 1 GB takes 15 s that way
        shown._str = f"{text[:TRACEBACK_CHARACTERS_MAX]}..."  # type: ignore[attr-defined]
    for linked in (shown.__cause__, shown.__context__):
        if linked is not None:
            _trim(linked)


def _shorten(text: str) -> str:
    if len(text) <= TRACEBACK_CHARACTERS_MAX:
        return text
    half = TRACEBACK_CHARACTERS_MAX // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters cut ...]\n{text[-half:]}"


def _encodable(text: str) -> str:
    """Without lone surrogates, which no message can carry."""
    return text.encode(errors="backslashreplace").decode()
