"""Drawings as SVG: lines, bars, dots and words, scales and ticks. They need no style sheet and no font file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

INK, SOFT, GRID, CHANCE = "#1b1b1b", "#5b5b5b", "#e3e3e3", "#9a9a9a"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Point = tuple[float, float]
Scale = Callable[[float], float]
"""A value's place in the drawing."""


class Look(NamedTuple):
    """How one line is told from others: by colour, and in print by its dashes."""

    colour: str
    dashes: str = ""
    width: float = 2.0


class Drawing:
    """A drawing of ``width`` × ``height`` units, of which 11 are a letter's height: about pixels on a phone."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, start: Point, end: Point, look: Look) -> None:
        """One straight line."""
        self.path([start, end], look)

    def path(self, points: Sequence[Point], look: Look) -> None:
        """A line through all ``points``."""
        if len(points) > 1:
            steps = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
            dashes = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
            self._parts.append(
                f'<path d="M{steps}" fill="none" stroke="{look.colour}" stroke-width="{_short(look.width)}"{dashes}/>'
            )

    def bar(self, corner: Point, size: Point, colour: str) -> None:
        """A filled rectangle from its upper left ``corner``."""
        x, y, width, height = map(_short, (*corner, *size))
        self._parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"/>')

    def dot(self, at: Point, colour: str, *, hollow: bool = False, radius: float = 3) -> None:
        """A dot; ``hollow``: a ring."""
        fill = "#fff" if hollow else colour
        x, y = map(_short, at)
        self._parts.append(
            f'<circle cx="{x}" cy="{y}" r="{_short(radius)}" fill="{fill}" stroke="{colour}" stroke-width="1.4"/>'
        )

    def words(
        self, at: Point, text: str, *, colour: str = SOFT, size: float = 11, anchor: str = "start", bold: bool = False
    ) -> None:
        """A line of text; ``anchor``: which part of it (start, middle, end) is ``at`` x, whose y is its base line."""
        x, y = map(_short, at)
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{_short(size)}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def svg(self, title: str) -> str:
        """All of it; ``title`` says what it shows to who does not see it."""
        return (
            f'<svg width="{_short(self.width)}" height="{_short(self.height)}" '
            f'viewBox="0 0 {_short(self.width)} {_short(self.height)}" role="img" aria-label="{escape(title)}" '
            f'font-family="{_FONT}">{"".join(self._parts)}</svg>'
        )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Where low … high stand between start … end."""
    return lambda value: start + (value - low) / (high - low or 1.0) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Where low … high, both above 0, stand between start … end: equal steps for equal ratios."""
    scale = linear(math.log(low), math.log(high), start, end)
    return lambda value: scale(math.log(value))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` + 1 round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` letters, as far as its words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def cut(text: str, width: int) -> str:
    """``text``, or as much of it as ``width`` letters hold."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
