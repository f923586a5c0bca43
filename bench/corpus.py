"""A corpus of real text of any size: `python -m bench.corpus DIRECTORY [--mb 200] [--files 40] [TEXTS...]`.

The paragraphs of the given texts, drawn again and again in a seeded order, so that every file has the vocabulary of
all of them. Without texts, the sources of Python's own standard library are used: text that every machine has.
"""

from __future__ import annotations

import argparse
import random
import sysconfig
from collections.abc import Sequence
from pathlib import Path

SEED = 1


def standard_texts() -> list[Path]:
    """Python's standard library's own modules, without its tests and what is installed beside it."""
    top = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "__pycache__"}
    return [p for p in sorted(top.rglob("*.py")) if skipped.isdisjoint(p.relative_to(top).parts)]


def paragraphs_of(texts: Sequence[Path]) -> list[bytes]:
    """The paragraphs of these texts: what blank lines separate."""
    found: list[bytes] = []
    for text in texts:
        data = text.read_bytes().replace(b"\r\n", b"\n")
        found += [p.strip(b"\n") + b"\n\n" for p in data.split(b"\n\n") if p.strip()]
    return found


def write_corpus(directory: Path, texts: Sequence[Path], *, size_bytes: int, files: int, seed: int = SEED) -> list[str]:
    """Write the corpus unless it is there already; its files' paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{number:05}.txt" for number in range(files)]
    stamp = directory / ".corpus"
    wanted = f"{seed} {size_bytes} {files} {sorted((t.name, t.stat().st_size) for t in texts)}"
    if not stamp.exists() or stamp.read_text() != wanted:
        drawing, paragraphs = random.Random(seed), paragraphs_of(texts)
        for path in paths:
            with path.open("wb") as file:
                while file.tell() < size_bytes // files:
                    file.writelines(drawing.choices(paragraphs, k=64))
        stamp.write_text(wanted)
    return [str(path) for path in paths]


def texts_in(paths: Sequence[str]) -> list[Path]:
    """The .txt files that these paths are or hold; the standard library's sources where there are no paths."""
    if not paths:
        return standard_texts()
    return [f for p in map(Path, paths) for f in (sorted(p.glob("*.txt")) if p.is_dir() else [p])]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write a corpus of real text.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("texts", nargs="*", help="text files, or directories with .txt files")
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--files", type=int, default=40)
    options = parser.parse_args()
    paths = write_corpus(options.directory, texts_in(options.texts), size_bytes=options.mb * 10**6, files=options.files)
    print(f"{len(paths)} files in {options.directory}")


if __name__ == "__main__":
    main()
