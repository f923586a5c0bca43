"""Graphs of Python's own: what arrays of numpy come to."""

from __future__ import annotations

import numpy as np
import pytest

from p2premap.errors import JobRejected
from p2premap.worker.vertex.foreign import of_edges


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_array_of_edges_with_weights_has_ids_that_are_whole_numbers(dtype: type[np.floating]) -> None:
    found = of_edges(np.array([[0, 1, 2.5], [1, -2, 0.5]], dtype), weighted=True)
    assert found.weights is not None
    assert (found.sources.tolist(), found.targets.tolist(), found.weights.tolist()) == ([0, 1], [1, -2], [2.5, 0.5])
    assert (sorted(found.vertices.tolist()), found.names) == ([-2, 0, 1], ())
    assert len(of_edges(np.empty((0, 3)), weighted=True).sources) == 0


@pytest.mark.parametrize("source", [0.5, np.nan, np.inf, 2.0**63, 2.0**53 + 2])
def test_ids_in_such_an_array_that_are_none(source: float) -> None:
    with pytest.raises(JobRejected, match=r"no whole number below 2\^53"):
        of_edges(np.array([[0, 1, 2.5], [source, 2, 0.5]]), weighted=True)


def test_arrays_of_another_form() -> None:
    with pytest.raises(JobRejected, match=r"\[0.0, 1.0\] is no edge: give \(source, target, weight\)"):
        of_edges(np.array([[0.0, 1.0]]), weighted=True)
    with pytest.raises(JobRejected, match="types float: make them integers or text"):
        of_edges(np.array([[0.0, 1.0]]), weighted=False)
