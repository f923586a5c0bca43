"""A word count of files of this machine: what `demo` and `repl` have the cluster do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from p2premap.client.jobs import Connect, raise_unless_done
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.tasks.job import Part

JOB = str(Path(__file__).with_name("demo_job.py"))


class WordCounts:
    """The job's output, counted as it comes."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """One part: lines of word, tab, number."""
        data = b"".join(pieces)
        for line in data.decode().splitlines():
            word, _, number = line.partition("\t")
            self.words[word] += int(number)
        return len(data)


def count_words(connect: Connect, files: Sequence[str]) -> Counter[str]:
    """Have the cluster count.

    Raises:
        JobRejected: the files cannot be read.
        JobFailed: with the remote traceback.
    """
    from p2premap.client.plan import plan_mapreduce  # the demo starts its nodes before it needs it

    with connect() as connection:
        power = strength(connection)
    submission = plan_mapreduce(JOB, files, slots=power.slots, compression="none" if power.one_machine else "zlib")
    counts = WordCounts()
    job = hand_in(connect, submission)
    view = see_through(connect, job, Collector(connect, counts), lambda view: None, lambda: None, known=True)
    raise_unless_done(view)
    return counts.words
