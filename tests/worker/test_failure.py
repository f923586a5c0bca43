"""Exceptions as ends of attempts."""

from __future__ import annotations

import errno

import pytest

from p2premap.node.blobs import StoreUnwritable
from p2premap.tasks.bundle import WRITTEN
from p2premap.tasks.job import Outcome
from p2premap.worker.failure import TRACEBACK_CHARACTERS_MAX, Stopped, end_of
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.runtime import InputLost


def raised(error: BaseException) -> BaseException:
    """With a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (InputLost("the input changed.", b"d" * 32), Outcome.INPUT_LOST, "the input changed."),
        (StoreUnwritable("Cannot write: the disk is full."), Outcome.REFUSED, "Cannot write: the disk is full."),
        (OSError(errno.ENOSPC, "full"), Outcome.REFUSED, "OSError: [Errno 28] full (test_failure.py, line "),
        (OSError(errno.EDQUOT, "full"), Outcome.REFUSED, "OSError: [Errno "),
        (OSError(errno.EROFS, "fixed", "a"), Outcome.RAISED, "OSError: [Errno 30] fixed: 'a' (test_failure.py, line "),
        (OSError(errno.ENOENT, "gone", "a"), Outcome.RAISED, "FileNotFoundError: "),
        (OSError("no number"), Outcome.RAISED, "OSError: no number"),
        (Stopped(), Outcome.STOPPED, "It was stopped."),
        (SystemExit("bye"), Outcome.RAISED, "The code called sys.exit('bye')."),
        (MemoryError(), Outcome.RAISED, "MemoryError (test_failure.py, line "),
        (KeyboardInterrupt(), Outcome.RAISED, "KeyboardInterrupt (test_failure.py, line "),
        (ValueError("\udcff"), Outcome.RAISED, "ValueError: \\udcff (test_failure.py, line "),
    ],
)
def test_each_error_is_told_as_what_it_is(error: BaseException, outcome: Outcome, text: str) -> None:
    end = end_of(3, 1, raised(error))
    assert (end.task, end.attempt, end.outcome) == (3, 1, outcome)
    assert end.error.startswith(text)
    assert end.missing == ((b"d" * 32,) if outcome is Outcome.INPUT_LOST else ())


def test_what_p2premap_has_written_is_left_out_of_tracebacks_wherever_it_was_written() -> None:
    def user() -> None:
        raise KeyError("k")

    namespace = {"user": user}
    exec(compile("def adapter():\n    user()\n", f"{WRITTEN}adapter.py", "exec"), namespace)
    with pytest.raises(KeyError) as caught:
        namespace["adapter"]()
    assert caught.value.__traceback__ is not None
    end = end_of(0, 0, caught.value.with_traceback(caught.value.__traceback__.tb_next))
    assert "in user" in end.error
    assert "in user" in end.detail
    assert "adapter.py" not in end.detail


def test_a_deep_recursion_is_short() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1)

    with pytest.raises(RecursionError) as caught:
        deeper(0)
    end = end_of(0, 0, caught.value)
    assert "more times" in end.detail
    assert len(end.detail) < 5_000


def test_a_huge_text_is_cut() -> None:
    end = end_of(0, 0, raised(ValueError("x" * 1_000_000)))
    assert len(end.error) <= 2_000
    assert len(end.detail) < TRACEBACK_CHARACTERS_MAX + 100
    assert "characters cut" in end.detail


def test_a_missing_package_is_named_with_what_to_do() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        import no_such_package  # noqa: F401
    said = end_of(0, 0, caught.value).error
    assert said.startswith("ModuleNotFoundError: No module named 'no_such_package' (test_failure.py, line ")
    assert said.endswith("; install it on that node, or put the module beside the job file)")


def test_our_sentence_about_user_code_comes_with_its_traceback() -> None:
    broken = JobCodeError("reader failed at record 3 of a.bin.")
    broken.__cause__ = raised(ValueError("bad header"))
    end = end_of(0, 0, broken)
    assert end.error == "reader failed at record 3 of a.bin."
    assert end.detail.endswith("ValueError: bad header\n")
    assert "JobCodeError" not in end.detail, "it is said once, and without the name of a class of ours"


def test_a_sentence_that_user_code_got_from_us_is_not_repeated_in_the_traceback() -> None:
    def user() -> None:
        raise JobCodeError("This cannot be.")

    with pytest.raises(JobCodeError) as caught:
        user()
    end = end_of(0, 0, caught.value)
    assert end.error == "This cannot be."
    assert "in user" in end.detail
    assert end.detail.count("This cannot be.") == 1, "in the line that was run, and not at the end"
    assert "JobCodeError: " not in end.detail
