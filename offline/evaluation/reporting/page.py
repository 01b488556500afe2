"""A report's document as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

Dark on light, for a wide window, a phone and paper alike. Wide tables scroll by themselves beside their first column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

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
)

_STYLE = """
:root { --ink: #1b1b1b; --soft: #5b5b5b; --line: #dcdcdc; --shade: #f5f6f7; --accent: #00694c; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 24px 64px; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 27px; line-height: 1.25; margin: 8px 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 20px; line-height: 1.3; margin: 48px 0 12px; padding-top: 12px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; line-height: 1.35; margin: 28px 0 8px; }
p, ul { max-width: 76ch; margin: 10px 0; overflow-wrap: anywhere; }
ul { padding-left: 20px; }
li { margin: 4px 0; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: var(--accent); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; max-width: none; }
nav li { margin: 0; }
.caution { border-left: 4px solid #d55e00; background: #fdf3ec; padding: 10px 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 16px 0; }
.tile { background: var(--shade); border-radius: 6px; padding: 12px 14px; }
.tile .what { display: block; color: var(--soft); font-size: 13px; }
.tile .value { display: block; font-size: 27px; font-weight: 650; line-height: 1.25; }
.ci { color: var(--soft); font-size: 12px; font-weight: 400; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 12px 0 18px;
  background: linear-gradient(to left, #fff 40%, transparent) right / 48px 100% no-repeat local,
    linear-gradient(to left, #0002, transparent) right / 14px 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 12px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; line-height: 1.3; }
thead th { vertical-align: bottom; border-bottom: 1.5px solid var(--ink); white-space: nowrap; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; padding-left: 0; }
tbody th { font-weight: 400; white-space: nowrap; }
td .ci { display: block; line-height: 1.2; }
td strong { font-weight: 700; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 4px 20px; margin: 12px 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
dl.short { display: block; columns: 3 300px; column-gap: 32px; font-size: 13px; }
dl.short div { display: flex; justify-content: space-between; gap: 12px; break-inside: avoid;
  border-bottom: 1px solid var(--line); padding: 2px 0; }
dl.short dd { text-align: right; flex: none; max-width: 55%; }
dl.short dt { overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 16px 32px;
  margin: 14px 0 4px; }
.panels svg { display: block; width: 100%; max-width: 500px; height: auto; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); padding: 4px 0; }
figure { margin: 0 0 18px; }
figcaption { color: var(--soft); font-size: 13px; max-width: 84ch; }
@media (max-width: 520px) {
  body { padding: 12px 14px 40px; }
  h1 { font-size: 22px; }
  dl { display: block; }
  dd { margin: 0 0 8px; }
  dl.short dd { margin: 0; }
  th, td { padding: 5px 8px; }
  tbody th { white-space: normal; min-width: 92px; max-width: 116px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 2px 5px; }
  thead th { white-space: normal; }
  .ci { font-size: 6.5pt; }
  tr, figure, figure svg, .tile { break-inside: avoid; }
  .panels { grid-template-columns: repeat(2, 1fr); }
  th:first-child { position: static; }
  a { color: inherit; text-decoration: none; }
}
"""


def as_page(document: Document) -> str:
    """The report as one file of HTML."""
    anchors = _anchors(document.sections)
    links = "".join(
        f'<li><a href="#{anchor}">{escape(_short(section.title))}</a></li>'
        for section, anchor in zip(document.sections, anchors, strict=True)
        if section.level == 2
    )
    sections = map(_section, document.sections, anchors)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(document.title)}</h1>\n{_blocks(document.lead)}\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n' + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def _anchors(sections: Sequence[Section]) -> list[str]:
    """A name for each section that no other has."""
    return [
        f"{number}-{re.sub('[^a-z0-9]+', '-', section.title.lower())[:40]}"
        for number, section in enumerate(sections, 1)
    ]


def _short(title: str) -> str:
    return re.split("[:,]", title)[0]


def _section(section: Section, anchor: str) -> str:
    heading = f'<h{section.level} id="{anchor}">{escape(section.title)}</h{section.level}>'
    return f"{heading}\n{_blocks(section.blocks)}"


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, caution):
            return f'<p class="caution">{_text(text)}</p>' if caution else f"<p>{_text(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"
        case Facts(rows, short):
            pairs = [f"<dt>{_breakable(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows]
            if short:
                return f'<dl class="short">{"".join(f"<div>{pair}</div>" for pair in pairs)}</dl>'
            return f"<dl>{''.join(pairs)}</dl>"
        case Grid(head, rows):
            return _grid(head, rows)
        case Tiles(tiles):
            return f'<div class="tiles">{"".join(_tile(name, cell) for name, cell in tiles)}</div>'
        case Folded(title, blocks):
            return f"<details><summary>{escape(title)}</summary>\n{_blocks(blocks)}\n</details>"
        case Picture(_, panels, caption):
            words = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
            return f'<figure><div class="panels">{"".join(panel.svg for panel in panels)}</div>{words}</figure>'


def _breakable(name: str) -> str:
    """A name that may end a line behind each of its dots and underscores."""
    return re.sub("([._])", r"\1<wbr>", escape(name))


def _tile(name: str, cell: Cell) -> str:
    interval = f'<span class="ci">{escape(cell.interval)}</span>' if cell.interval else ""
    return (
        f'<div class="tile"><span class="what">{escape(name)}</span>'
        f'<span class="value">{escape(cell.text)}</span>{interval}</div>'
    )


def _grid(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first.text)}</th>{"".join(map(_cell, others))}</tr>' for first, *others in rows
    )
    # What scrolls can be reached with the keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(head[0])}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
    interval = f' <span class="ci">{escape(cell.interval)}</span>' if cell.interval else ""
    return f"<td>{text}{interval}</td>"


def _text(text: Text) -> str:
    return "".join(map(_span, text))


def _span(span: Span) -> str:
    inner = escape(span.text)
    return f"<code>{inner}</code>" if span.code else f"<strong>{inner}</strong>" if span.strong else inner
