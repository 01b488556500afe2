"""An article's picture as a browser takes it, or a drawn one where none is kept.

What is kept is what somebody sent (``service.catalogue.pictures``): its first bytes say what it is, and what is no
picture that browsers show is not handed to one.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

from model_store.records import Article

_BEGINNINGS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n", "image/png"), (b"GIF8", "image/gif"))
_WEBP_AT = slice(8, 12)
_GROUNDS = ("#e9e3da", "#e3e6df", "#dfe4e8", "#e8dfe0", "#e6e2ea")

DRAWN = "image/svg+xml"


class Picture(NamedTuple):
    """Bytes, and their media type."""

    content: bytes
    media_type: str


def picture_of(article: Article, kept: bytes | None) -> Picture:
    """The ``kept`` picture, or one with the category's first letter."""
    media_type = None if kept is None else _media_type(kept)
    return _drawn(article) if kept is None or media_type is None else Picture(kept, media_type)


def _media_type(content: bytes) -> str | None:
    if content.startswith(b"RIFF") and content[_WEBP_AT] == b"WEBP":
        return "image/webp"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)


def _drawn(article: Article) -> Picture:
    ground = _GROUNDS[sum(article.category.encode()) % len(_GROUNDS)]
    letter = escape(article.category[:1].upper())
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 108 156" width="108" height="156">'
        f'<rect width="108" height="156" fill="{ground}"/>'
        '<text x="54" y="94" font-family="Georgia, serif" font-size="48" text-anchor="middle" fill="#6b6459">'
        f"{letter}</text></svg>"
    )
    return Picture(svg.encode(), DRAWN)
