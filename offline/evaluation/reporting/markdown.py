"""A report's document as Markdown; its pictures are files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from offline.evaluation.reporting.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Facts,
    Folded,
    Grid,
    Paragraph,
    Picture,
    Section,
    Span,
    Text,
    Tiles,
    flat,
)

FIGURES = "figures"
"""Folder of the pictures, beside the report."""


def as_markdown(document: Document) -> str:
    """The report as text."""
    parts = [f"# {escaped(document.title)}", *map(_block, document.lead)]
    return "\n\n".join([*parts, *map(_section, document.sections)]) + "\n"


def picture_files(document: Document) -> dict[str, str]:
    """SVG by file name, as the Markdown refers to them."""
    blocks = flat([*document.lead, *(block for section in document.sections for block in section.blocks)])
    return {
        _file(picture, index): panel.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        for picture in blocks
        if isinstance(picture, Picture)
        for index, panel in enumerate(picture.panels, 1)
    }


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no link, no emphasis, no end of a cell."""
    return re.sub(r"\](?=\()", r"\]", re.sub(r"[\\`*<|]", r"\\\g<0>", " ".join(text.split())))


def _file(picture: Picture, index: int) -> str:
    return f"{FIGURES}/{picture.name}-{index}.svg"


def _section(section: Section) -> str:
    return "\n\n".join([f"{'#' * section.level} {escaped(section.title)}", *map(_block, section.blocks)])


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, caution):
            return ("> " if caution else "") + _text(text)
        case Bullets(items):
            return "\n".join(f"- {_text(item)}" for item in items)
        case Facts(rows):
            return _lines(["", ""], ["---", "---"], [[escaped(name), _text(value)] for name, value in rows])
        case Grid(head, rows):
            marks = ["---", *["---:"] * (len(head) - 1)]
            return _lines([escaped(name) for name in head], marks, [list(map(_cell, row)) for row in rows])
        case Tiles(tiles):
            return _lines([escaped(name) for name, _ in tiles], ["---:"] * len(tiles), [[_cell(c) for _, c in tiles]])
        case Folded(title, blocks):
            return "\n\n".join([f"**{escaped(title)}**", *map(_block, blocks)])
        case Picture(_, panels, caption):
            images = [f"![{escaped(panel.title)}]({_file(block, index)})" for index, panel in enumerate(panels, 1)]
            return "\n".join(images) + (f"\n\n{_text(caption)}" if caption else "")


def _lines(head: Sequence[str], marks: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, marks, *rows])


def _cell(cell: Cell) -> str:
    text = escaped(f"{cell.text} {cell.interval}".strip())
    return f"**{text}**" if cell.strong else text


def _text(text: Text) -> str:
    return "".join(map(_span, text))


def _span(span: Span) -> str:
    if span.code:
        inner = " ".join(span.text.split()).replace("|", "\\|")
        longest = max((len(run) for run in re.findall("`+", inner)), default=0)
        fence, pad = "`" * (longest + 1), " " if longest else ""
        return f"{fence}{pad}{inner}{pad}{fence}"
    # Spaces at the ends of a span part it from the next.
    inner = escaped(span.text)
    start, end = (" " if span.text[at].isspace() and not span.strong else "" for at in (0, -1))
    return f"**{inner}**" if span.strong else f"{start}{inner}{end}" if inner else start
