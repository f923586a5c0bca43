"""The job that trials run: slow tasks over a small text, which write down when each attempt starts and ends.

The marks are lines of one file in a directory that all nodes see, by the monotonic clock of the one machine that all
of them run on; so what ran, where, when and how often is known whatever any ledger says.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

WORDS = 60
BUCKETS = 12
LINE_WORDS = 24
BYTES_A_TASK = 1_600
ATTEMPTS_A_TERM = 1_000
"""Attempt numbers of a job's nth leader start at n times this."""

JOB = """
import hashlib, json, os, sys, time
from collections import Counter

reader = "blocks"
MARKS = {marks!r}
BUCKETS = {buckets}
LEAST_S, MOST_S = {least_s}, {most_s}


def mark(what):
    frame = sys._getframe()
    while "context" not in frame.f_locals:
        frame = frame.f_back
    key, where = frame.f_locals["context"].attempt, os.getcwd()
    line = [what, key.stage.number, key.stage.lineage.hex(), key.task, key.attempt, where, time.monotonic()]
    file = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (json.dumps(line) + "\\n").encode())
    os.close(file)


def dawdle(text):
    share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
    time.sleep(LEAST_S + share * (MOST_S - LEAST_S))


def map(key, block):
    mark("start")
    dawdle(block)
    found = [Counter() for _ in range(BUCKETS)]
    for word in block.split():
        found[int(word[1:]) % BUCKETS][word] += 1
    mark("end")
    return list(enumerate(found))


def partition(bucket, n):
    return bucket % n


def reduce(bucket, counters):
    mark("start")
    total = Counter()
    for counter in counters:
        total.update(counter)
    dawdle(str(sorted(total.items())))
    mark("end")
    return json.dumps(sorted(total.items()))
"""


class Mark(NamedTuple):
    """What one attempt wrote: `what` is "start" or "end"; `where` its node's directory; `at` seconds, monotonic."""

    what: str
    stage: int
    lineage: str
    task: int
    attempt: int
    where: str
    at: float

    @property
    def of(self) -> tuple[int, int]:
        """Its task, whatever the lineage: a stage that is planned anew redoes all of it."""
        return self.stage, self.task

    @property
    def term(self) -> int:
        """How many leaders the job had had before the one that gave this attempt out."""
        return self.attempt // ATTEMPTS_A_TERM


class Work:
    """One job's text, its job file, its marks and its right answer.

    Args:
        directory: seen by all nodes; made here.
        inputs: where the text goes; a directory that only the submitting machine may see.
        maps: about how many map tasks.
        least_s, most_s: how long each task takes.
    """

    def __init__(
        self, directory: Path, inputs: Path, rng: Random, *, maps: int = 80, least_s: float = 0.02, most_s: float = 0.1
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        inputs.mkdir(parents=True, exist_ok=True)
        self.maps = maps
        self.reduces = BUCKETS
        self.text = inputs / "text"
        self.file = directory / "job.py"
        self.marks = directory / "marks"
        lines, size = [], 0
        while size < maps * BYTES_A_TASK:
            lines.append(" ".join(f"w{int(rng.triangular(0, WORDS, 0)):03}" for _ in range(LINE_WORDS)))
            size += len(lines[-1]) + 1
        self.text.write_text("\n".join(lines) + "\n")
        self.answer = Counter(word for line in lines for word in line.split())
        values = {"marks": str(self.marks), "buckets": BUCKETS, "least_s": least_s, "most_s": most_s}
        self.file.write_text(JOB.format(**values))
        self.marks.touch()

    @property
    def slots_to_plan_for(self) -> int:
        """Planning for so many slots cuts the text into about `maps` tasks."""
        return max(self.maps // 4, 1)

    def told(self) -> list[Mark]:
        """All marks so far, in order of time; the last line may be half written."""
        whole, _, _ = self.marks.read_bytes().rpartition(b"\n")
        return sorted((Mark(*json.loads(line)) for line in whole.splitlines()), key=lambda mark: mark.at)

    def ended(self) -> int:
        """How many attempts have ended so far: cheap, for waiting."""
        return self.marks.read_bytes().count(b'["end"') if os.path.getsize(self.marks) else 0

    def wrong(self, parts: dict[int, bytes]) -> str:
        """What is wrong with an output, or ""."""
        found: Counter[str] = Counter()
        for number, part in parts.items():
            for line in part.decode().splitlines():
                bucket, _, counted = line.partition("\t")
                if int(bucket) % self.reduces != number:
                    return f"part {number} holds the key {bucket}"
                for word, times in json.loads(counted):
                    found[word] += times
        if found == self.answer:
            return ""
        missing, surplus = self.answer - found, found - self.answer
        return (
            f"{sum(self.answer.values())} words by a plain count; of these {sum(missing.values())} are missing, "
            f"{sum(surplus.values())} are too many"
        )
