"""joblib and Dask on real nodes, by what people use them for: a grid search, arrays, bags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import p2premap
from p2premap.client.cluster import Cluster
from tests.cluster import private


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with private(("n1",), slots=2) as nodes, pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PREMAP_HOME", nodes.home)
        with p2premap.connect() as cluster:
            yield cluster


@pytest.fixture
def joblib(cluster: Cluster) -> Any:
    joblib = pytest.importorskip("joblib", reason="joblib is not installed: pip install '.[dev]'")
    import p2premap.joblib  # noqa: F401  (which registers the backend)

    return joblib


def half(x: int) -> float:
    if x < 0:
        raise ValueError(x)
    return x / 2


def inner(x: int) -> list[float]:
    import joblib

    return joblib.Parallel(n_jobs=2)(joblib.delayed(half)(n) for n in range(x))  # type: ignore[no-any-return]


def test_joblib_runs_on_the_cluster(joblib: Any, cluster: Cluster) -> None:
    delayed, parallel = joblib.delayed, joblib.Parallel
    with joblib.parallel_config(backend="p2premap"):
        assert joblib.effective_n_jobs(-1) == cluster.slots == 2
        assert parallel(n_jobs=-1)(delayed(half)(n) for n in range(500)) == [n / 2 for n in range(500)]
        assert parallel(n_jobs=2)(delayed(inner)(n) for n in range(3)) == [[], [0.0], [0.0, 0.5]]
        generated = parallel(n_jobs=2, return_as="generator_unordered")(delayed(half)(n) for n in range(20))
        assert sorted(generated) == [n / 2 for n in range(20)]
        with pytest.raises(ValueError, match="-1"):
            parallel(n_jobs=2)(delayed(half)(n) for n in [1, -1, 2])
        assert parallel(n_jobs=2)(delayed(half)(n) for n in [4]) == [2.0], "it goes on after an error"
    with joblib.parallel_config(backend="p2premap", cluster=cluster, n_jobs=2):
        assert parallel()(delayed(half)(n) for n in range(3)) == [0.0, 0.5, 1.0]


def test_a_grid_search_of_scikit_learn(joblib: Any) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[dev]'")
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    features, kinds = load_iris(return_X_y=True)
    grid = {"C": [0.001, 1.0]}
    with joblib.parallel_config(backend="p2premap"):
        found = GridSearchCV(LogisticRegression(max_iter=1_000), grid, cv=3, n_jobs=-1).fit(features, kinds)
    alone = GridSearchCV(LogisticRegression(max_iter=1_000), grid, cv=3).fit(features, kinds)
    assert found.best_params_ == alone.best_params_ == {"C": 1.0}
    assert list(found.cv_results_["mean_test_score"]) == list(alone.cv_results_["mean_test_score"])


def test_dask_arrays_and_bags(cluster: Cluster) -> None:
    pytest.importorskip("dask", reason="Dask is not installed: pip install '.[dev]'")
    import dask
    import dask.array
    import dask.bag

    assert isinstance(cluster._max_workers, int)
    assert cluster._max_workers == 2
    assert not callable(cluster)
    with dask.config.set(scheduler=cluster):
        square = dask.array.ones((400, 400), chunks=(100, 100))
        assert (square @ square.T).sum().compute() == 400.0**3
        words = dask.bag.from_sequence(["a b", "b c", "c b"], npartitions=3).map(str.split).flatten()
        assert dict(words.frequencies().compute()) == {"a": 1, "b": 3, "c": 2}
    assert dask.array.arange(10, chunks=5).sum().compute(scheduler=cluster) == 45
