"""The keys that earlier attempts of the same job met in one process, partitioned and sorted.

The map tasks of a job tend to meet the same keys again and again. What is known of them need not be found out anew:
hashing keys to partitions and sorting them is half of what an attempt costs after its last record. What an attempt
holds is taken out in the order of the known keys, and what is left then is new.

(An attempt's dict does not start out with them: words met first are the commonest, and lie side by side in memory if
the dict is filled in that order; in any other order it was a tenth slower.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import MutableMapping, Sequence
from itertools import compress, repeat
from typing import Any, Final, NamedTuple

from p2premap.worker.jobfile import JobFile
from p2premap.worker.merge import incomparable
from p2premap.worker.pairs import Key
from p2premap.worker.partition import partitions_of

KEYS_MAX: Final = 100_000
"""That are remembered."""
_FEW: Final = 64
"""One new key among so many is put in its place; more of them are sorted in."""


class Held(NamedTuple):
    """Keys, sorted, and what is held of each."""

    keys: Sequence[Key]
    values: list[Any]


class Vocabulary:
    """See the module. Strings only: of other keys two may be equal and yet differ (1 and 1.0), and an attempt's result
    must not depend on what ran before it."""

    def __init__(self) -> None:
        self._buckets: list[list[Key]] = []

    def take(self, groups: MutableMapping[Key, Any], partitions: int, job: JobFile) -> list[Held]:
        """Take everything out of these groups, and of each partition its share.

        Args:
            groups: what is held of each key; never None.

        Raises:
            JobCodeError: the keys do not compare with each other, or see `partitions_of`.
        """
        known = self._buckets or [[] for _ in range(partitions)]
        taken = [_taken(bucket, groups) for bucket in known]
        if not groups:
            return taken
        new: list[list[Key]] = [[] for _ in range(partitions)]
        for key, partition in zip(groups, partitions_of(list(groups), partitions, job.partition), strict=True):
            new[partition].append(key)
        try:
            for keys in new:
                keys.sort()
            added = [Held(keys, list(map(groups.__getitem__, keys))) for keys in new]
            whole = [_together(*each) for each in zip(taken, added, strict=True)]
            self._learn(known, new)
        except TypeError:
            raise incomparable(key for keys in (*new, *(held.keys for held in taken)) for key in keys) from None
        groups.clear()
        return whole

    def _learn(self, known: Sequence[Sequence[Key]], new: Sequence[Sequence[Key]]) -> None:
        few = sum(map(len, known)) + sum(map(len, new)) <= KEYS_MAX
        if few and all(type(key) is str for keys in new for key in keys):
            self._buckets = [sorted((*keys, *added)) for keys, added in zip(known, new, strict=True)]
        else:
            self._buckets = []


def _taken(keys: Sequence[Key], groups: MutableMapping[Key, Any]) -> Held:
    """What is held of these, taken out."""
    before = len(groups)
    values = list(map(groups.pop, keys, repeat(None)))
    if before - len(groups) == len(keys):
        return Held(keys, values)
    here = [value is not None for value in values]  # never by ==: values may be arrays
    return Held(list(compress(keys, here)), list(compress(values, here)))


def _together(held: Held, added: Held) -> Held:
    """Both, whose keys differ, in one order.

    Raises:
        TypeError: they do not compare.
    """
    if not held.keys:
        return added
    if len(added.keys) * _FEW > len(held.keys):
        groups = dict(zip((*held.keys, *added.keys), (*held.values, *added.values), strict=True))
        ordered = sorted(groups)  # two ascending pieces: about one comparison a key
        return Held(ordered, list(map(groups.__getitem__, ordered)))
    keys, values = list(held.keys), held.values
    for key, value in zip(added.keys, added.values, strict=True):
        place = bisect_left(keys, key)
        keys.insert(place, key)
        values.insert(place, value)
    return Held(keys, values)
