"""What a worker remembers of the keys of earlier attempts: it changes nothing but the time that an attempt takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker import vocabulary
from p2premap.worker.jobfile import JobFile
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.partition import partitions_of
from p2premap.worker.vocabulary import Held, Vocabulary
from tests.worker.jobs import settings

PARTITIONS = 3
WORDS = [f"word{number:03}" for number in range(400)]


class Value:
    """Its equality is no answer, as that of arrays."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def job() -> JobFile:
    return settings()


def expected(groups: dict[object, object], job: JobFile) -> list[Held]:
    keys = sorted(groups)  # type: ignore[type-var]
    places = partitions_of(keys, PARTITIONS, job.partition)
    shares = [[key for key, place in zip(keys, places, strict=True) if place == n] for n in range(PARTITIONS)]
    return [Held(share, [groups[key] for key in share]) for share in shares]


def same(one: list[Held], other: list[Held]) -> bool:
    return [(list(h.keys), list(map(id, h.values))) for h in one] == [
        (list(h.keys), list(map(id, h.values))) for h in other
    ]


attempts = st.lists(
    st.sets(st.sampled_from(WORDS)) | st.sets(st.integers(0, 9)) | st.just(set(WORDS)) | st.just(set(WORDS[3:])),
    max_size=6,
)


@given(attempts)
def test_each_attempt_gets_what_it_would_get_alone(job: JobFile, met: list[set[object]]) -> None:
    remembers = Vocabulary()
    for keys in met:
        groups: dict[object, object] = {key: Value() for key in keys}
        alone = expected(groups, job)
        assert same(remembers.take(groups, PARTITIONS, job), alone)
        assert not groups, "everything is taken out"


def test_keys_that_are_known_are_not_looked_at_again(job: JobFile, monkeypatch: pytest.MonkeyPatch) -> None:
    remembers = Vocabulary()
    remembers.take(dict.fromkeys(WORDS, 1), PARTITIONS, job)
    placed: list[object] = []

    def noted(keys: list[object], *rest: object) -> list[int]:
        placed.extend(keys)
        return partitions_of(keys, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(vocabulary, "partitions_of", noted)
    remembers.take(dict.fromkeys(["new", *WORDS], 1), PARTITIONS, job)
    remembers.take(dict.fromkeys([*WORDS, "new"], 1), PARTITIONS, job)
    assert placed == ["new"]


def test_no_more_than_so_many_keys_are_remembered(job: JobFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "KEYS_MAX", 3)
    remembers = Vocabulary()
    for keys in ("abc", "abcd", "abc"):
        groups: dict[object, object] = dict.fromkeys(keys, 1)
        alone = expected(groups, job)
        assert same(remembers.take(groups, PARTITIONS, job), alone)


def test_keys_that_do_not_compare_are_named(job: JobFile) -> None:
    remembers = Vocabulary()
    remembers.take({"a": 1}, 1, job)
    remembers.take({1: 1}, 1, job)  # by itself it is right, whatever came before
    remembers.take({"a": 1}, 1, job)
    with pytest.raises(JobCodeError, match=r"'a' \(str\)"):
        remembers.take({"a": 1, 1: 1}, 1, job)
