"""A few trials of each case; all of them, as often as promised, are `python -m tests.soak`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.cases import CASES, Case
from tests.soak.nodes import Standing
from tests.soak.results import made
from tests.soak.run import run

SEED = 7


def _each() -> list[object]:
    marks = {
        name: [pytest.mark.slow, *[pytest.mark.netns] * case.machines, *[pytest.mark.deep] * case.deep]
        for name, case in CASES.items()
    }
    return [pytest.param(case, id=name, marks=marks[name]) for name, case in CASES.items()]


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    with Standing() as made:
        yield made


@pytest.mark.timeout(600)  # longer than a trial lets anything hang: it has evidence to save
@pytest.mark.parametrize("case", _each())
def test_a_job_outlives(case: Case, tmp_path: Path, standing: Standing) -> None:
    if reason := case.why_not():
        pytest.skip(reason)
    result = run(case, 0, seed=SEED, kept=tmp_path, standing=standing)
    assert made(result), result
    assert not result["violations"], result
