"""Known answers at full size: what is planted in the sample shop is found.

With the profile that `make serve` trains by. Slow: minutes, so run by .ci/run alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from whole_trainings import auc, evaluated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


@pytest.mark.parametrize("table", ["all", "new"])
def test_planted_structure_is_found(planted: dict[str, Any], table: str) -> None:
    """Dynamic ahead of static ahead of popularity, 95% intervals apart, new articles included."""
    found = planted[table]
    assert auc(found, "dynamic")["low"] > auc(found, "static")["high"]
    assert auc(found, "static")["low"] > auc(found, "popularity")["high"]
    assert auc(found, "blended")["value"] > auc(found, "static")["high"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluated(tmp_path_factory.mktemp("planted"))


def test_popularity_says_something_and_what_is_served_most(planted: dict[str, Any]) -> None:
    found = planted["all"]
    assert auc(found, "popularity")["low"] > 0.55
    assert auc(found, "blended")["value"] > auc(found, "dynamic")["value"]


def test_what_is_served_is_ahead_of_each_half_in_the_first_ten_ranks(planted: dict[str, Any]) -> None:
    """What is searched and clicked foretells the next order; style alone, and generations alone, know half of it."""
    models = planted["next_order"]["models"]
    for figure in ("recall_10", "ndcg_10", "mrr"):
        for half in ("dynamic", "generated"):
            assert models["blended"][figure]["low"] > models[half][figure]["high"], (figure, half)
    assert models["generated"]["ndcg_10"]["low"] > models["popularity"]["ndcg_10"]["high"]
