"""Bundles in a worker process: modules by value, and tracebacks that show the user's own lines."""

from __future__ import annotations

import inspect
import pickle
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap.client.bundle import load_job
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import JOB_MODULE
from p2premap.worker.loading import BundleImporter, load_bundle
from tests.worker.jobs import forgotten


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    with forgotten():
        yield


def bundle(directory: Path, **sources: str) -> bytes:
    for name, source in sources.items():
        path = directory / (name.replace("_of_", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    data = load_job(str(directory / "job.py")).bundle
    for path in directory.rglob("*.py"):
        path.unlink()  # a worker elsewhere has none of these files
    return data


def test_local_modules_are_imported_from_the_bundle(tmp_path: Path) -> None:
    module = load_bundle(
        bundle(
            tmp_path,
            job="import kit.tools\nfrom kit import name\nmap = lambda key, value: kit.tools.f(name)\n",
            kit_of___init__="from . import tools\nname = 'kit'\n",
            kit_of_tools="def f(x):\n    from late import LATE\n    return x + LATE\n",
            late="LATE = '!'\n",
        )
    )
    assert module.map(None, None) == "kit!"
    assert (module.__name__, module.__file__) == (JOB_MODULE, str(tmp_path / "job.py"))


def test_the_script_part_stays_asleep(tmp_path: Path) -> None:
    source = "def map(key, value): pass\nif __name__ == '__main__':\n    raise SystemExit('awake')\n"
    load_bundle(bundle(tmp_path, job=source))


def test_a_traceback_shows_the_users_file_and_line(tmp_path: Path) -> None:
    module = load_bundle(
        bundle(
            tmp_path,
            job="import helper\ndef map(key, value):\n    return helper.divide(value)  # in the job\n",
            helper="def divide(value):\n    return 1 / value  # in the helper\n",
        )
    )
    with pytest.raises(ZeroDivisionError) as caught:
        module.map(None, 0)
    text = "".join(traceback.format_exception(caught.value))
    assert f'File "{tmp_path}/job.py", line 3, in map' in text
    assert "return helper.divide(value)  # in the job" in text
    assert "return 1 / value  # in the helper" in text
    assert "in the job" in inspect.getsource(module.map)


def test_a_file_of_the_same_path_on_this_machine_is_not_shown_instead(tmp_path: Path) -> None:
    data = bundle(tmp_path, job="def map(key, value):\n    return 1 / 0  # submitted\n")
    (tmp_path / "job.py").write_text("\n# edited since\n" * 9)
    module = load_bundle(data)
    with pytest.raises(ZeroDivisionError) as caught:
        module.map(None, 0)
    assert "# submitted" in "".join(traceback.format_exception(caught.value))


def test_what_an_import_raises_is_raised(tmp_path: Path) -> None:
    data = bundle(tmp_path, job="import helper\ndef map(key, value): pass\n", helper="raise LookupError('here')\n")
    with pytest.raises(LookupError, match="here"):
        load_bundle(data)
    missing = bundle(tmp_path, job="import no_such_package\ndef map(key, value): pass\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_bundle(missing)


def test_classes_of_a_job_file_can_be_pickled(tmp_path: Path) -> None:
    module = load_bundle(bundle(tmp_path, job="class Point:\n    x = 1\ndef map(key, value): pass\n"))
    assert type(pickle.loads(pickle.dumps(module.Point()))) is module.Point


def test_the_next_bundle_replaces_the_last(tmp_path: Path) -> None:
    for number in (1, 2):
        data = bundle(tmp_path, job="import helper\nmap = helper.f\n", helper=f"def f(key, value): return {number}\n")
        assert load_bundle(data).map(None, None) == number
    assert sum(isinstance(finder, BundleImporter) for finder in sys.meta_path) == 1


@pytest.mark.parametrize("data", [b"", b"\0", b"\x92\x01\x90", b"not a bundle"])
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(JobRejected):
        load_bundle(data)
