from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtests.evaluation import CUTOFF, DAY, WINDOW_DAYS, main, make_shop

pytestmark = pytest.mark.timeout(120)


def test_every_customer_is_asked_for_among_as_many_articles_as_are_named(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", 900, 50, np.random.default_rng(0))
    until = CUTOFF + WINDOW_DAYS * DAY
    in_stock = shop.availability.in_stock_between(CUTOFF, until)
    assert in_stock.sum() == 900
    assert len(shop.article_ids) == 1_000
    assert not shop.availability.in_stock_at(CUTOFF)[in_stock].all()
    for start, end in ((0, CUTOFF), (CUTOFF, until)):
        assert len(np.unique(shop.purchases().between(start, end).customer)) == 50


def test_a_small_measurement_goes_through_the_whole_command(tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    main(["--articles", "300", "--customers", "40", "--bootstrap", "10", "--out", str(out)])
    report = json.loads(out.read_text())
    [result] = report["results"]
    assert (result["customers"], result["candidates"], result["scores"]) == (40, 300, 12_000)
    assert result["customers_per_second"] > 0
    assert result["peak_memory_mib"] != 0
    assert {"popularity", "co-purchase", "static", "dynamic", "blended"} <= set(result["ranking"])
