"""Who answers which request: the table and the modules say the same, and a node that starts loads few of them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from p2premap.control import CLIENT_MESSAGES
from p2premap.control.jobs import Submit, Submitted, Why
from p2premap.node import handlers
from p2premap.node.desk import RequestError
from p2premap.node.handlers import MODULES, Handlers


def test_each_request_of_a_client_is_answered_by_the_module_that_the_table_names() -> None:
    for module, requests in MODULES.items():
        assert set(import_module(f"p2premap.node.{module}").HANDLERS) == set(requests), module
    named = [request for requests in MODULES.values() for request in requests]
    assert len(named) == len(set(named))
    assert set(named) == set(CLIENT_MESSAGES)


def test_what_no_client_says_has_no_handler() -> None:
    assert Handlers().get(Submitted) is None
    assert dict(Handlers())[Submit].__module__ == "p2premap.node.desk_jobs"


def test_what_cannot_be_loaded_now_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_free(name: str) -> None:
        raise ImportError("too many open files")

    found = Handlers()
    monkeypatch.setattr(handlers, "import_module", none_free)
    with pytest.raises(RequestError, match=r"^The node could not do it: too many open files\.$"):
        found[Why]
    monkeypatch.undo()
    assert found[Why].__module__ == "p2premap.node.desk_why"


def test_a_node_starts_without_what_few_requests_need() -> None:
    code = "import sys, p2premap.node.daemon; print(*(name for name in sys.modules if name.startswith('p2premap.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unneeded = {
        *(f"p2premap.node.{module}" for module in MODULES if module not in ("desk_calls",)),  # which has a part in it
        *(f"p2premap.node.{name}" for name in ("slots", "turn", "process", "mdns", "examiner", "doctor")),
        *(f"p2premap.tasks.{name}" for name in ("coordinator", "state", "stage", "progress", "journal", "listing")),
        "p2premap.tasks.mapreduce",
        "p2premap.vertex",
    }
    assert not unneeded & set(loaded)
