"""What README and the docs say is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import p2premap
from p2premap import errors
from p2premap.cli.app import COMMANDS, cli
from p2premap.cli.exits import Exit

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)\)")
NAMED = re.compile(r"`((?:tests|examples|p2premap|docs|bench|sim)/[\w/.]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    for target in LINK.findall(text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for target in NAMED.findall(text):
        assert (ROOT / target).exists() or (ROOT / "p2premap" / target).exists(), target


def test_rooms_and_modules_of_the_architecture_page_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for target in re.findall(r"`((?:gossip|tasks|node|worker|client|cli|sim)/\w+\.py)`", text):
        assert (ROOT / "p2premap" / target).exists(), target


def test_commands_in_the_docs_exist_with_their_options() -> None:
    commands = {name for names in COMMANDS.values() for name in names} | {"sim"}
    for page in PAGES:
        for line in re.findall(r"^(?:\.venv/bin/)?p2premap (.+)$", page.read_text(), re.MULTILINE):
            words = shlex.split(line.split("#")[0].replace("...", ""))
            assert words[0] in commands, line
            command = cli.get_command(cli.make_context("p2premap", ["--version"], resilient_parsing=True), words[0])
            assert command is not None
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert {word for word in words[1:] if word.startswith("-")} <= known, line


def test_exit_codes_are_all_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for code in Exit:
        assert re.search(rf"^\| {code.value} \|", text, re.MULTILINE), code


def test_ci_types_readmes_own_command() -> None:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.endswith("-m tests")]
    assert len(lines) == 1
    assert "-m tests$" in (ROOT / ".ci" / "run").read_text()


def test_the_public_api_is_what_all_names_sorted() -> None:
    assert p2premap.__all__ == sorted(p2premap.__all__)
    for name in p2premap.__all__:
        assert hasattr(p2premap, name)
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert tree <= set(p2premap.__all__)
