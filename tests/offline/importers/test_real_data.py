"""The importers on the real data, where they lie beside the project."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL_DATA
from made_up_sources import write_csv

from model_store.dataset import DataSet
from offline.importers.base import import_data
from offline.importers.hm import HmImporter
from offline.importers.rtr import RtrImporter

pytestmark = pytest.mark.real_data
DAY = 86_400


PART = 2_000
"""The whole of H&M takes too long for a test: an eighth of the customers, what they bought, and some other articles."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    source = folder / "source"
    source.mkdir()
    (source / "images").symlink_to(REAL_DATA / "hm" / "images")
    with (REAL_DATA / "hm" / "transactions_train.csv").open(newline="") as file:
        sales = [row for row in csv.DictReader(file) if row["customer_id"][-1] in "01"]
    sold = {row["article_id"] for row in sales}
    with (REAL_DATA / "hm" / "articles.csv").open(newline="") as file:
        rows = [row for number, row in enumerate(csv.DictReader(file)) if number < PART or row["article_id"] in sold]
    write_csv(source / "transactions_train.csv", list(sales[0]), sales)
    write_csv(source / "articles.csv", list(rows[0]), rows)
    return source


@pytest.fixture(scope="module")
def hm(source: Path) -> DataSet:
    import_data(HmImporter(), source, source.parent / "hm")
    return DataSet.open(source.parent / "hm")


def test_hm_comes_in(hm: DataSet) -> None:
    assert len(hm.purchases()) > 2_000
    articles = list(hm.articles())
    assert len(articles) > PART
    assert sum(article.image is not None for article in articles) / len(articles) > 0.99
    assert sum(article.description is not None for article in articles) / len(articles) > 0.99
    assert {article.gender for article in articles} == {"women", "men", "girls", "boys", "children", None}


def test_hm_prices_know_nothing_of_the_window(hm: DataSet) -> None:
    sold_before = set(hm.purchases().before(hm.last_event + DAY - 28 * DAY).article.tolist())
    assert {index for index, article in enumerate(hm.articles()) if article.price is not None} == sold_before


def test_hm_pictures_can_be_read(hm: DataSet) -> None:
    article = next(article for article in hm.articles() if article.image is not None)
    picture = hm.image(article)
    assert picture is not None
    assert picture.startswith(b"\xff\xd8")


def test_searches_are_derived_for_real_purchases(hm: DataSet, source: Path) -> None:
    import_data(HmImporter(derived_seed=0), source, source.parent / "derived")
    data = DataSet.open(source.parent / "derived")
    real, stamped = hm.purchases(), data.purchases()
    assert real.customer_ids == stamped.customer_ids
    np.testing.assert_array_equal(real.article, stamped.article)
    np.testing.assert_array_equal(real.timestamp, stamped.timestamp - 20 * 3_600)
    kinds = Counter(kind for batch in data.events() for kind in batch.column("type").to_pylist())
    orders = int(real.order.max()) + 1
    assert 0.55 < kinds["search"] / orders < 0.72
    assert 1.2 < kinds["click"] / orders < 2.2
    queries = {query for batch in data.search_results() for query in batch.column("query").to_pylist()}
    assert {"black dress", "dress", "striped t-shirt", "leggings"} <= queries
    assert not any("unknown" in query or "other " in query for query in queries)


def test_rtr_comes_in_whole(tmp_path: Path) -> None:
    import_data(RtrImporter(), REAL_DATA / "rtr", tmp_path / "rtr")
    data = DataSet.open(tmp_path / "rtr")
    purchases = data.purchases()
    assert (len(data.article_ids), len(purchases), len(purchases.customer_ids)) == (4_083, 154_033, 89_502)
    before = purchases.before(data.last_event + DAY - 90 * DAY)
    assert data.availability.in_stock(before.article, before.timestamp).all()
