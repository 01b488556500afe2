"""Sentences made of a table's figures: nothing is said of a difference whose interval does not leave out zero."""

from __future__ import annotations

from collections.abc import Sequence

from offline.evaluation.reporting import grids
from offline.evaluation.reporting.grids import CHIEF
from offline.studies.comparing import Json


def value(table: Json, name: str, figure: str) -> str:
    """A row's figure with its interval."""
    cell = grids.figure(figure, table["models"][name][figure])
    return f"{cell.text}{'%' if cell.interval else ''} {cell.interval}".strip()


def told_apart(table: Json, first: str, second: str, figure: str) -> int:
    """1 where ``first`` is ahead of ``second``, −1 where it is behind, 0 where they are not told apart."""
    found = _difference(table, first, second, figure)
    cell = grids.difference(figure, found, table["customers"])
    return 0 if not cell.strong else 1 if found["value"] > 0 else -1


def against(table: Json, first: str, second: str, figure: str) -> str:
    """Whether ``first`` is ahead of ``second``, and by how much."""
    cell = grids.difference(figure, _difference(table, first, second, figure), table["customers"])
    amount = f"{cell.text} {cell.interval} points of {CHIEF[figure].removesuffix(' %')}".strip()
    way = {1: "ahead of", -1: "behind", 0: "not told apart from"}[told_apart(table, first, second, figure)]
    return f"“{first}” is {way} “{second}” ({amount})"


def sorted_out(table: Json, names: Sequence[str], reference: str, figure: str) -> str:
    """Which of ``names`` are behind, ahead of, or not told apart from ``reference``, by how many points each."""
    parts = []
    for way, words in ((-1, "behind it"), (1, "ahead of it"), (0, "not told apart from it")):
        chosen = [name for name in names if told_apart(table, name, reference, figure) == way]
        told = ", ".join(f"“{name}” {short(table, name, reference, figure)}" for name in chosen)
        parts += [f"{words} {told}"] if chosen else []
    start = f"{title(figure)} of “{reference}” {value(table, reference, figure)}"
    return f"{start}; in points {'; '.join(parts)}"


def short(table: Json, first: str, second: str, figure: str) -> str:
    """The difference alone."""
    cell = grids.difference(figure, _difference(table, first, second, figure), table["customers"])
    return f"{cell.text} {cell.interval}".strip()


def _difference(table: Json, first: str, second: str, figure: str) -> Json:
    found: Json = table["differences"][f"{first} - {second}"][figure]
    return found


def title(figure: str) -> str:
    """A figure's name."""
    return CHIEF[figure].removesuffix(" %")
