"""Actions in a worker process: what their methods may do, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import blake3
import msgspec
import pytest

from p2premap.ids import Digest, JobId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.action import MergeParams, Saved, UnitParams, UnitResult, unpack_result
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle
from p2premap.tasks.job import AttemptKey, StageId
from p2premap.worker.action import ActionError, CommandFailed
from p2premap.worker.actions import ActionRuntime
from p2premap.worker.context import AttemptContext
from p2premap.worker.runtime import InputLost, Result, Segment

HEAD = "import os, p2premap\nfrom pathlib import Path\nclass Try(p2premap.Action):\n"


class Attempts:
    """Runs attempts of an action whose body this is."""

    def __init__(self, place: Path, body: str) -> None:
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        module = Module(name=JOB_MODULE, path="job.py", source=HEAD + indented)
        self.store = BlobStore(place / "blobs")
        self._place = place
        self._runtime = ActionRuntime(pack_bundle([module]), str(place))
        self._number = 0

    def _context(self) -> AttemptContext:
        self._number += 1
        scratch = self._place / f"scratch{self._number}"
        scratch.mkdir()
        return AttemptContext(AttemptKey(JobId(b"j" * 16), StageId(0, b""), 3, 0), str(scratch), self.store)

    def unit(
        self,
        value: object,
        *,
        segments: Sequence[Segment] = (),
        file: bool = False,
        splits: bool = True,
        **options: object,
    ) -> tuple[UnitResult, Result]:
        params = UnitParams(
            action="Try",
            value=json.dumps(value).encode(),
            options=json.dumps(options).encode(),
            splits=splits,
            last=True,
            file=file,
        )
        result = self._runtime.run("Try/unit", msgspec.msgpack.encode(params), segments, self._context())
        return unpack_result(result.value), result

    def merge(self, results: Sequence[bytes], segments: Sequence[Segment] = (), *, lists: bool = False) -> object:
        params = MergeParams(action="Try", options=b"{}", results=tuple(results), lists=lists, last=True)
        result = self._runtime.run("Try/merge", msgspec.msgpack.encode(params), segments, self._context())
        return json.loads(self.store.get(result.blobs[0].digest))

    def value(self, result: Result) -> object:
        return json.loads(self.store.get(result.blobs[0].digest))

    def segment(self, digest: Digest) -> Segment:
        path = self.store.path(digest)
        return Segment(path, 0, Path(path).stat().st_size, digest, False, "")


Make = Callable[[str], Attempts]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)
    return lambda body: Attempts(tmp_path, body)


def _file(path: Path, text: str) -> Segment:
    path.write_text(text)
    return Segment(str(path), 0, len(text), blake3.blake3(text.encode()).digest(), False, path.name)


def test_a_file_is_a_copy_that_may_be_changed(make: Make, tmp_path: Path) -> None:
    attempts = make(
        "def process(self):\n"
        "    text = self.input_path.read_text()\n"
        "    self.input_path.write_text('changed')\n"
        "    here = self.input_path == self.input_path and os.getcwd() == str(self.work_dir)\n"
        "    return [text, self.input, self.input_path.name, here]"
    )
    segment = _file(tmp_path / "a.txt", "abc")
    _, result = attempts.unit("texts/a.txt", segments=[segment], file=True)
    assert attempts.value(result) == ["abc", "texts/a.txt", "a.txt", True]
    assert (tmp_path / "a.txt").read_text() == "abc"
    (tmp_path / "a.txt").write_text("abd")
    with pytest.raises(InputLost, match="has changed since"):
        attempts.unit("texts/a.txt", segments=[segment], file=True)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputLost, match="cannot be read"):
        attempts.unit("texts/a.txt", segments=[segment], file=True)


def test_a_saved_file_is_a_file_again_where_its_name_is_given(make: Make) -> None:
    attempts = make(
        "def split(self):\n"
        "    Path('page.txt').write_text('one page')\n"
        "    yield {'page': self.save('page.txt'), 'number': 1}\n"
        "def process(self):\n"
        "    page = self.local(self.input['page'])\n"
        "    return [page.name, page.read_text(), self.options, self.attempt.split('-')[1]]"
    )
    told, split = attempts.unit("any")
    assert (told.saved, told.blob, told.inline) == (("page.txt",), False, b"")
    (added,) = told.added
    digest = split.blobs[0].digest
    assert added.files == (Saved(digest=digest, size=8),)
    _, result = attempts.unit(json.loads(added.value), segments=[attempts.segment(digest)], splits=False, width=3)
    assert attempts.value(result) == ["page.txt", "one page", {"width": 3}, "0.3.0"]


def test_results_are_merged_with_the_files_that_they_name(make: Make) -> None:
    attempts = make(
        "def process(self): pass\n"
        "def merge(self):\n"
        "    return [one if isinstance(one, int) else self.local(one).read_text() for one in self.input]"
    )
    attempts.store.put(b"saved")
    digest = Digest(blake3.blake3(b"saved").digest())
    large = Digest(blake3.blake3(b"7").digest())
    attempts.store.put(b"7")
    name = f"p2premap:{digest.hex()}/5/s.txt"
    results = [b"1", b"", json.dumps(name).encode()]
    with pytest.raises(ActionError, match="merge must be defined"):
        attempts.unit(1, splits=False)
    assert attempts.merge(results, [attempts.segment(large), attempts.segment(digest)]) == [1, 7, "saved"]
    assert attempts.merge([b"[1,2]", b"[3]"], lists=True) == [1, 2, 3]
    assert attempts.merge([]) == []


def test_a_command_tells_its_exit_code(make: Make) -> None:
    attempts = make(
        "def process(self):\n"
        "    done = self.run_command('cat; echo err >&2; exit 3', input='in', check=False)\n"
        "    try:\n"
        "        self.run_command(['sh', '-c', 'kill -9 $$'])\n"
        "    except BaseException as error:\n"
        "        return [*done, error.code, str(error)]"
    )
    _, result = attempts.unit(1, splits=False)
    assert attempts.value(result) == [3, "in", "err\n", -9, "The command 'sh -c kill -9 $$' ended with signal 9."]


WRONG = [
    ("self.run_command('echo oops >&2; exit 2')", CommandFailed, "ended with exit code 2: oops"),
    ("self.run_command(['no-such-program'])", ActionError, "cannot be run: No such file"),
    ("return {1, 2}", ActionError, "process of the action Try returned what JSON cannot say"),
    ("return float('nan')", ActionError, "what JSON cannot say"),
    ("self.input_path", ActionError, "is no file and no URL"),
    ("self.local('other.txt')", ActionError, "is no file that this action was given"),
    ("self.local('p2premap:' + 'a' * 64 + '/3/x')", ActionError, "neither this input nor a result in it names it"),
    ("self.download('nonesuch://x')", ActionError, "nonesuch://x cannot be read"),
    ("self.download('file:///no/such/file')", ActionError, "cannot be read: No such file"),
    ("self.save('missing')", ActionError, "There is no file missing to save"),
    ("Path('a').touch(); self.save('a', name='../a')", ActionError, "is no name for a file"),
    ("Path('a').touch(); self.save('a'); self.save('a')", ActionError, "has been saved already"),
    ("self.add({1})", ActionError, "what JSON cannot say"),
]


@pytest.mark.parametrize(("line", "error", "sentence"), WRONG, ids=[line for line, *_ in WRONG])
def test_what_an_action_must_not_do_is_said_in_a_sentence(
    make: Make, line: str, error: type[Exception], sentence: str
) -> None:
    attempts = make(f"def process(self):\n    {line}")
    with pytest.raises(error, match=sentence):
        attempts.unit(5, splits=False)


@pytest.mark.parametrize("given", ["None", "5", "'text'", "{}"])
def test_a_split_that_gives_no_list_is_said(make: Make, given: str) -> None:
    attempts = make(f"def split(self):\n    return {given}\ndef process(self):\n    return 1")
    with pytest.raises(ActionError, match="it must return a list of inputs, or yield them"):
        attempts.unit(5, splits=True)


def test_files_come_from_urls_and_go_to_them(make: Make, tmp_path: Path) -> None:
    (tmp_path / "in put.txt").write_text("from there")
    source, target = (tmp_path / "in put.txt").as_uri(), (tmp_path / "deep" / "out.txt").as_uri()
    attempts = make(
        "def process(self):\n"
        "    return [self.input_path.name, self.save(self.input_path, to=self.options['to']), os.listdir('.')]"
    )
    told, result = attempts.unit(source, splits=False, to=target)
    assert attempts.value(result) == ["in_put.txt", target, ["in_put.txt"]]
    assert told.saved == ()
    assert (tmp_path / "deep" / "out.txt").read_text() == "from there"


def test_an_attempt_leaves_nothing_behind_and_returns_to_where_it_was(make: Make, tmp_path: Path) -> None:
    attempts = make("def process(self):\n    Path('x').touch()\n    raise ValueError('no')")
    with pytest.raises(ValueError, match="no"):
        attempts.unit(1, splits=False)
    assert not (tmp_path / "scratch1" / "work").exists()
    assert Path.cwd() == tmp_path
