from __future__ import annotations

from typing import Any

import pytest

from offline.studies import findings


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def table() -> dict[str, Any]:
    """Four rows: the second is behind the first, the third ahead, of the last nothing is known."""
    values = {"a": 0.2, "b": 0.1, "c": 0.3, "d": 0.2}
    models = {name: {"recall_10": estimate(value, 0.1, 0.4)} for name, value in values.items()}
    differences = {
        "b - a": {"recall_10": estimate(-0.1, -0.15, -0.05)},
        "c - a": {"recall_10": estimate(0.1, 0.05, 0.15)},
        "d - a": {"recall_10": estimate(0.001, -0.1, 0.1)},
    }
    return {"customers": 50, "models": models, "differences": differences}


def test_what_is_said_of_a_difference_follows_from_its_interval(table: dict[str, Any]) -> None:
    assert [findings.told_apart(table, name, "a", "recall_10") for name in "bcd"] == [-1, 1, 0]
    assert findings.sorted_out(table, "bcd", "a", "recall_10") == (
        "Recall@10 of “a” 20.00% [10.00, 40.00]; in points behind it “b” −10.00 [−15.00, −5.00]; "
        "ahead of it “c” +10.00 [+5.00, +15.00]; not told apart from it “d” +0.10 [−10.00, +10.00]"
    )
    assert findings.against(table, "c", "a", "recall_10").startswith("“c” is ahead of “a” (+10.00")


def test_of_few_customers_nothing_is_told_apart(table: dict[str, Any]) -> None:
    table["customers"] = 9
    assert [findings.told_apart(table, name, "a", "recall_10") for name in "bcd"] == [0, 0, 0]
