"""One line of the real core changed, for as long as a test runs."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from p2premap.sim.observers import InvariantBroken


@dataclass(frozen=True)
class Planted:
    """A bug.

    Args:
        what: one sentence, as one would write it into the notes of the release that mends it.
        where: "module:function" or "module:Class.method" below p2premap.
        line, becomes: text that occurs once in that function, and what stands there instead.
        caught_by: the checker that must fail.
        scenario: the name of the scenario that it fails in.
    """

    what: str
    where: str
    line: str
    becomes: str
    caught_by: str
    scenario: str


def plant(monkeypatch: pytest.MonkeyPatch, bug: Planted) -> None:
    """Compile the function anew with that line changed, and put it wherever the old one is known."""
    module_name, _, path = bug.where.partition(":")
    module = importlib.import_module(f"p2premap.{module_name}")
    *owners, name = path.split(".")
    owner: object = module
    for part in owners:
        owner = getattr(owner, part)
    original = inspect.getattr_static(owner, name)
    assert isinstance(original, types.FunctionType), f"{bug.where} is not a plain function"
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(bug.line) == 1, f"{bug.where} has changed: plant this bug anew"
    scope: dict[str, object] = {}
    code = compile(source.replace(bug.line, bug.becomes), inspect.getfile(original), "exec", dont_inherit=True)
    exec(code, module.__dict__, scope)  # the functions' globals stay the module's own
    changed = scope[name]
    if owners:
        monkeypatch.setattr(owner, name, changed)
        return
    for user in list(sys.modules.values()):
        if user.__name__.startswith("p2premap.") and getattr(user, name, None) is original:
            monkeypatch.setattr(user, name, changed)


def all_seeds(scenario: Callable[[int], None], seeds: Iterable[int]) -> None:
    """The scenario with each seed."""
    for seed in seeds:
        scenario(seed)


def assert_caught(
    bug: Planted, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[int], None], seeds: Iterable[int]
) -> None:
    """With the bug planted, one of these seeds fails, by the checker that the bug names."""
    plant(monkeypatch, bug)
    with pytest.raises(InvariantBroken) as caught:
        all_seeds(scenario, seeds)
    assert caught.value.checker == bug.caught_by, caught.value.text
