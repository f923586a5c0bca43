"""What is installed: read from names, small enough for gossip, and never believed beyond its form."""

from __future__ import annotations

import importlib.metadata
import os
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import RemoteProtocolError
from p2premap.node import installed
from p2premap.node.software import FACT_BYTES_MAX, PLAIN_BYTES_MAX, Software
from p2premap.tasks.placement import normal


def test_packages_are_those_that_the_import_system_finds() -> None:
    found = installed.look().packages
    known = {normal(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    assert {name: found.get(name) for name in known} == known


def test_programs_are_executable_files_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("tool", 0o755), ("notes", 0o644)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'missing'}")
    assert installed.look().programs == ("tool",)


def test_it_comes_back_as_it_was_and_fits_into_gossip() -> None:
    here = installed.look()
    assert Software.decode(here.encode()) == here or len(here.encode()) > FACT_BYTES_MAX - 4096
    names = tuple(os.urandom(8).hex() for _ in range(10_000))
    much = Software({"numpy": "2.0"}, names)
    value = much.encode()
    assert len(value) <= FACT_BYTES_MAX
    kept = Software.decode(value)
    assert kept.packages == {"numpy": "2.0"}
    assert names[: len(kept.programs)] == kept.programs
    assert len(kept.programs) > 100


@given(st.binary(max_size=200))
def test_what_is_no_fact_is_refused(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Software.decode(value)
    with pytest.raises(RemoteProtocolError):
        Software.decode(zlib.compress(value + b"\xc1"))


def test_a_bomb_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Software.decode(zlib.compress(msgspec.msgpack.encode(({}, ("a" * PLAIN_BYTES_MAX,)))))
