"""What a report is made of, whether it is then written as Markdown or as HTML: both say the same, from one content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, TypeAlias

_MARKS = re.compile(r"\*\*(?P<strong>.+?)\*\*|(?P<tick>``?)(?P<code>[^`]+?)(?P=tick)", re.DOTALL)


class Span(NamedTuple):
    """Some text; whoever writes it escapes it."""

    text: str
    strong: bool = False
    code: bool = False


Text = tuple[Span, ...]


def plain(text: str) -> Text:
    """Text of which nothing is emphasised, whatever is in it."""
    return (Span(text),)


def code(text: str) -> Text:
    """A name of a thing, as it is."""
    return (Span(text, code=True),)


def marked(text: str) -> Text:
    """Text with ``**strong**`` parts and code between one or two back ticks; line breaks are spaces."""
    spans, end = list[Span](), 0
    text = " ".join(text.split())
    for match in _MARKS.finditer(text):
        spans.append(Span(text[end : match.start()]))
        strong = match.group("strong")
        spans.append(Span(strong, strong=True) if strong is not None else Span(match.group("code"), code=True))
        end = match.end()
    spans.append(Span(text[end:]))
    return tuple(span for span in spans if span.text)


@dataclass(frozen=True)
class Paragraph:
    """``caution``: a warning, set apart."""

    text: Text
    caution: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Facts:
    """Names and what they are; ``short``: many of them, of a few characters each."""

    rows: Sequence[tuple[str, Text]]
    short: bool = False


class Cell(NamedTuple):
    """One figure of a grid, with its interval in brackets where it has one."""

    text: str
    interval: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Tiles:
    """The figures that come first: (what, figure)."""

    tiles: Sequence[tuple[str, Cell]]


class Panel(NamedTuple):
    """``svg``: a drawing that needs nothing else; ``title`` says what it shows to who does not see it."""

    title: str
    svg: str


@dataclass(frozen=True)
class Picture:
    """Panels side by side, as many as there is room for. ``name``: of its files."""

    name: str
    panels: Sequence[Panel]
    caption: Text = ()


@dataclass(frozen=True)
class Folded:
    """What a page shows when its title is asked for; on paper and as text it is there at once."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Paragraph | Bullets | Facts | Grid | Tiles | Picture | Folded


@dataclass(frozen=True)
class Section:
    """``level`` 2 or 3."""

    title: str
    blocks: Sequence[Block]
    level: int = 2


@dataclass(frozen=True)
class Document:
    """``lead`` comes before all sections."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]


def flat(blocks: Sequence[Block]) -> Iterator[Block]:
    """All blocks, those that are folded included."""
    for block in blocks:
        if isinstance(block, Folded):
            yield from flat(block.blocks)
        else:
            yield block


def blocks_of(text: str) -> list[Block]:
    """Paragraphs and lists of a text in plain Markdown: lists have ``- `` before items, blank lines stand between."""
    return [block for part in re.split(r"\n\s*\n", text.strip()) if part.strip() for block in _blocks_of_part(part)]


def _blocks_of_part(part: str) -> list[Block]:
    lines = part.splitlines()
    before = list(takewhile(lambda line: not line.startswith("- "), lines))
    items = re.split(r"(?m)^- ", "\n".join(lines[len(before) :]))[1:]
    paragraph = [Paragraph(marked("\n".join(before)))] if before else []
    return [*paragraph, *([Bullets([marked(item) for item in items])] if items else [])]
