"""Known answers at full size: in a shop whose purchases are shuffled, nothing is found.

Slow: minutes, so run by .ci/run alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from whole_trainings import ROOT, auc, evaluated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


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
