"""Functions, arguments and answers as pickles; what a remote exception is at the caller.

Python's own pickle is ten times as fast as cloudpickle, but names what a script or a notebook defines as
``__main__.name``, which no worker can import: where a pickle names ``__main__``, or a module that was imported after
the program had connected, or where there is none, cloudpickle takes what it needs by value.
"""

from __future__ import annotations

import pickle
import sys
from types import ModuleType
from typing import Final

import cloudpickle

from p2premap.client.locals import travelled
from p2premap.errors import CallFailed

_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
_MAIN: Final = b"__main__"

_by_value: Final[dict[str, ModuleType]] = {}

loads: Final = pickle.loads
"""What a worker pickled. Raises whatever the value raises when it is made."""


class RemoteTraceback(Exception):
    """The cause of an exception that a call raised elsewhere: its traceback there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


def dumps(value: object) -> bytes:
    """A pickle that workers can open.

    Raises:
        Exception: whatever the value raises: it cannot be pickled.
    """
    try:
        data = pickle.dumps(value, _PROTOCOL)
    except Exception:
        return dumps_by_value(value)
    return dumps_by_value(value) if names_local(data) else data


def names_local(data: bytes) -> bool:
    """Whether a pickle names what no worker can import."""
    return _MAIN in data or any(name in data for name in travelled.late.values())


def look_for_modules() -> None:
    """What the program has imported since it connected is taken by value from now on."""
    travelled.look()
    for name in travelled.late.keys() - _by_value.keys():
        _by_value[name] = sys.modules[name]
        cloudpickle.register_pickle_by_value(_by_value[name])
    for name in _by_value.keys() - travelled.late.keys():
        cloudpickle.unregister_pickle_by_value(_by_value.pop(name))


def dumps_by_value(value: object) -> bytes:
    """The same by cloudpickle."""
    return cloudpickle.dumps(value, _PROTOCOL)  # type: ignore[no-any-return]


def exception(record: bytes | memoryview) -> BaseException:
    """The exception that a worker described (`p2premap.worker.calls.describe`): itself, or a `CallFailed` in words."""
    pickled, text, traceback = loads(record)
    error: BaseException | None = None
    if pickled:
        try:
            error = loads(pickled)
        except Exception:
            error = None  # its class has changed, or is not here
    if not isinstance(error, BaseException):
        error = CallFailed(text, detail=traceback)
    error.__cause__ = RemoteTraceback(traceback)
    return error
