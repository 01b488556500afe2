"""Known answers at full size: what is planted in the sample shop is found, and in a shuffled one nothing is.

By the commands themselves, with the profile that `make serve` trains by. Slow: minutes, so run by .ci/run alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

ROOT = Path(__file__).resolve().parents[2]


def modiste(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "modiste.py", *map(str, arguments)], cwd=ROOT, check=True, timeout=900)


def evaluated(folder: Path, *options: str, config: str | Path = "default") -> dict[str, Any]:
    """Tables of the report on a shop of fixed dates, trained from nothing."""
    data, run, report = folder / "shop", folder / "run", folder / "report"
    modiste("shop", data, "--end", "2026-11-01", *options)
    modiste("train", "--data", data, "--run", run, "--config", config)
    modiste("evaluate", "--data", data, "--run", run, "--report", report)
    return orjson.loads((report / "report.json").read_bytes())["tables"]


def auc(table: dict[str, Any], model: str) -> dict[str, float]:
    return table["models"][model]["auc"]


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


def with_a_small_language_model(folder: Path) -> Path:
    """The default profile with little to learn from: where there is nothing to find, seconds must do."""
    text = (ROOT / "offline" / "configs" / "default.toml").read_text(encoding="utf-8")
    for setting, value in (("documents", 150), ("examples", 200), ("probes", 20)):
        text, found = re.subn(rf"^{setting} = \d+$", f"{setting} = {value}", text, flags=re.MULTILINE)
        assert found == 1, setting
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_where_purchases_are_shuffled_nothing_is_found(tmp_path: Path) -> None:
    """Chance is 0.5. A score above it by more than noise would be a leak of the future into the past."""
    config = with_a_small_language_model(tmp_path)
    found = evaluated(tmp_path, "--shuffled", "--no-images", config=config)["known"]
    for model in ("static", "dynamic", "generated", "blended"):
        assert abs(auc(found, model)["value"] - auc(found, "popularity")["value"]) < 0.03
        assert 0.47 < auc(found, model)["value"] < 0.53
