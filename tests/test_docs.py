"""What README and the docs say is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import p2premap
from p2premap import errors
from p2premap.cli.app import cli
from p2premap.cli.exits import Exit

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TYPED = re.compile(r"^(?: {4})?(?:\.venv/bin/)?p2premap (.+)$", re.MULTILINE)
QUOTED = re.compile(r"`p2premap ([^`\n]+)`")
NAMED = re.compile(r"`((?:tests|examples|p2premap|docs|bench|sim)/[\w/.]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    for target in LINK.findall(text):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target
    for target in NAMED.findall(text):
        assert (ROOT / target).exists() or (ROOT / "p2premap" / target).exists(), target


def anchors(page: Path) -> set[str]:
    """What may stand after a #: GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page.read_text())}


def test_rooms_and_modules_of_the_architecture_page_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for target in re.findall(r"`((?:gossip|tasks|node|worker|client|cli|sim)/\w+\.py)`", text):
        assert (ROOT / "p2premap" / target).exists(), target


def options_of(command: click.Command, words: list[str]) -> set[str]:
    """All that may be typed after it, and after the subcommand that follows it."""
    if isinstance(command, click.Group) and len(words) > 1 and words[1] in command.commands:
        command = command.commands[words[1]]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    text = page.read_text()
    lines = [*TYPED.findall(text), *QUOTED.findall(text)]
    if page.name == "cli.md":
        table = text[text.index("## Commands") : text.index("`--max-load 0.5`")]
        cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        lines += [quoted for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)]
    context = cli.make_context("p2premap", ["--version"], resilient_parsing=True)
    for line in lines:
        first = re.split(r"[;&|#\\]|\.\.\.", line)[0]
        words = shlex.split(first.replace("[", " ").replace("]", " ").replace("(", " "))
        command = cli.get_command(context, words[0])
        if words[0].isupper():
            continue
        assert command is not None, line
        given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert given <= options_of(command, words) | {"--help"}, line


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
