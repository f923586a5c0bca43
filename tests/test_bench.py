"""The benchmarks: each is what `python -m bench` takes it for. What they measure is no matter of tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_run_quickly(name: str) -> None:
    body = ast.parse((BENCH / f"{name}.py").read_text()).body
    run = next(node.args for node in body if isinstance(node, ast.FunctionDef) and node.name == "run")
    quick = next(node.value for node in body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "QUICK")
    assert quick is not None
    assert [argument.arg for argument in run.args] == ["emit"]
    assert ast.literal_eval(quick).keys() <= {option.arg for option in run.kwonlyargs}


def test_no_benchmark_is_forgotten() -> None:
    with_run = {path.stem for path in BENCH.glob("*.py") if "\ndef run(" in path.read_text()}
    assert with_run == set(BENCHMARKS)
