"""What is to be read on an HTML page: its title, its text, its links."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, Final

_UNSEEN: Final = frozenset(("script", "style", "template", "noscript"))
_BREAKING: Final = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt", "figure", "footer"),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "option", "p", "pre"),
        *("section", "table", "td", "th", "title", "tr", "ul"),
    )
)
_SPACES: Final = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES: Final = re.compile(r" ?\n[ \n]*")


def page_of(text: str) -> dict[str, Any]:
    """`title`, `text` (a line a paragraph) and `links` (as the page says them) of an HTML page, however broken."""
    page = _Page()
    page.feed(text)
    page.close()
    return {"title": _tidy(page.title), "text": _tidy(page.text), "links": page.links}


def _tidy(pieces: list[str]) -> str:
    return _LINES.sub("\n", _SPACES.sub(" ", "".join(pieces))).strip()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self._unseen = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        self._in_title = tag == "title"
        if tag in _BREAKING:
            self.text.append("\n")
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN and self._unseen:
            self._unseen -= 1
        self._in_title = False
        if tag in _BREAKING:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            (self.title if self._in_title else self.text).append(data.replace("\n", " "))
