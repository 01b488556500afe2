from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_sources import HM_SALES, hm_article, hm_folder, hm_sale

from model_store.dataset import DataSet
from model_store.records import Article
from offline.importers import derived
from offline.importers.base import import_data
from offline.importers.hm import HmImporter

DAY = 86_400
TYPES = ("Dress", "Other shoe", "Leggings/Tights", "Unknown")
COLOURS = ("Black", "Other Pink", "Unknown")
APPEARANCES = ("Stripe", "Solid")
SAID = {"Dress": "dress", "Other shoe": "shoe", "Leggings/Tights": "leggings", "Unknown": None}


def catalogue() -> list[dict[str, str]]:
    """Two colours of each of 96 products, in all their combinations."""
    return [
        hm_article(
            f"{product:07d}{colour:03d}",
            product_type_name=TYPES[product % 4],
            colour_group_name=COLOURS[(product // 4 + colour) % 3],
            graphical_appearance_name=APPEARANCES[product % 2],
            section_name=f"Womens {product % 5}",
        )
        for product in range(1, 97)
        for colour in (1, 2)
    ]


def sales(days: int = 60, customers: int = 25, seed: int = 0) -> list[dict[str, str]]:
    """Every customer buys one to three articles on every second day, or so."""
    rng = np.random.default_rng(seed)
    ids = [row["article_id"] for row in catalogue()]
    return [
        hm_sale(f"2020-{1 + day // 28:02d}-{1 + day % 28:02d}", f"c{customer:02d}", str(article))
        for day in range(days)
        for customer in range(customers)
        if rng.random() < 0.5
        for article in rng.choice(ids, rng.integers(1, 4))
    ]


def imported(folder: Path, *, seed: int | None = 0, rows: list[dict[str, str]] | None = None) -> DataSet:
    source = hm_folder(folder / "in", articles=catalogue(), sales=sales() if rows is None else rows)
    import_data(HmImporter(derived_seed=seed), source, folder / "out")
    return DataSet.open(folder / "out")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return imported(tmp_path_factory.mktemp("derived"))


def rows_of(data: DataSet) -> list[dict[str, Any]]:
    return [row for batch in data.events() for row in batch.to_pylist()]


@dataclass
class Order:
    """What one customer bought on one day, and what was derived for it."""

    bought: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    clicks: list[tuple[str, int | None]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


def orders_of(data: DataSet) -> dict[tuple[str, int], Order]:
    orders: dict[tuple[str, int], Order] = defaultdict(Order)
    for row in rows_of(data):
        time = int(row["timestamp"].timestamp())
        order = orders[row["customer_id"], time // DAY]
        if row["type"] == "purchase":
            order.bought.append(row["article_id"])
            continue
        order.times.append(time)
        if row["type"] == "search":
            order.queries.append(row["query"])
        else:
            order.clicks.append((row["article_id"], row["position"]))
    return orders


@pytest.fixture(scope="module")
def orders(data: DataSet) -> dict[tuple[str, int], Order]:
    return orders_of(data)


@pytest.fixture(scope="module")
def lists(data: DataSet) -> dict[str, list[str]]:
    """Articles of each query's list, by position."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for batch in data.search_results():
        for row in batch.to_pylist():
            found[row["query"]][row["position"]] = row["article_id"]
    assert all(sorted(places) == list(range(1, len(places) + 1)) for places in found.values())
    return {query: [places[position] for position in sorted(places)] for query, places in found.items()}


def words(article: Article) -> set[str]:
    """All that can be typed for an article, told from its record anew."""
    kind = SAID[article.category]
    if kind is None:
        return set()
    colour = {"Black": "black ", "Other Pink": "pink "}.get(article.colour or "")
    striped = "appearance: Stripe" in article.tags
    return {kind, *([f"{colour}{kind}"] if colour else []), *([f"striped {kind}"] if striped else [])}


# --- what is real and what is derived ----------------------------------------------------------------------------


def test_purchases_stay_as_they_are_but_for_the_time_of_day(data: DataSet, tmp_path: Path) -> None:
    plain = imported(tmp_path, seed=None)
    expected = [{**row, "timestamp": row["timestamp"].timestamp() + 20 * 3_600} for row in rows_of(plain)]
    found = [{**row, "timestamp": row["timestamp"].timestamp()} for row in rows_of(data) if row["type"] == "purchase"]
    assert found == expected
    assert (plain.folder / "articles.parquet").read_bytes() == (data.folder / "articles.parquet").read_bytes()
    assert not (plain.folder / "search_results.parquet").exists()
    assert "derived" not in plain.file.description


def test_whatever_is_derived_says_so(data: DataSet) -> None:
    kinds = {row["event_id"].partition("-")[0]: row["type"] == "purchase" for row in rows_of(data)}
    assert kinds == {"hm": True, "derived": False}
    assert data.file.name == "H&M with derived searches"
    assert "All searches, clicks and result lists are derived" in data.file.description


def test_sessions_lie_before_their_order_on_its_day(orders: dict[tuple[str, int], Order]) -> None:
    for (_, day), order in orders.items():
        assert order.bought
        moment = day * DAY + 20 * 3_600
        assert all(moment - 1_800 <= time < moment for time in order.times)
        assert len(order.queries) <= 1
        assert len(order.clicks) <= 6


def test_a_search_comes_before_its_clicks(data: DataSet) -> None:
    searched: dict[tuple[str, int], int] = {}
    for row in rows_of(data):
        time = int(row["timestamp"].timestamp())
        if row["type"] == "search":
            searched[row["customer_id"], time // DAY] = time
        elif row["type"] == "click":
            assert searched.get((row["customer_id"], time // DAY), -1) < time


# --- how much it foretells ---------------------------------------------------------------------------------------


def test_sessions_foretell_and_do_not_give_away(
    data: DataSet, orders: dict[tuple[str, int], Order], lists: dict[str, list[str]]
) -> None:
    typed = {article.article_id: words(article) for article in data.articles()}
    searching = [order for order in orders.values() if order.queries]
    about = np.mean([any(order.queries[0] in typed[one] for one in order.bought) for order in searching])
    shuffled = np.roll(np.asarray([order.queries[0] for order in searching], object), 1)
    by_chance = np.mean(
        [any(query in typed[one] for one in order.bought) for order, query in zip(searching, shuffled, strict=True)]
    )
    assert 0.8 < about < 0.92  # four in five, and some by chance
    assert by_chance < 0.5
    clicks = [(order, article) for order in orders.values() for article, _ in order.clicks]
    own = np.mean([article in order.bought for order, article in clicks])
    assert 0.2 < own < 0.5
    assert 0.1 < np.mean([not order.times for order in orders.values()]) < 0.25
    assert 0.4 < len(searching) / len(orders) < 0.6  # a quarter of the articles has no word
    assert {len(order.clicks) for order in orders.values()} == {0, 1, 2, 3, 4, 5, 6}


def test_queries_are_of_every_form(orders: dict[tuple[str, int], Order], lists: dict[str, list[str]]) -> None:
    typed = {query for order in orders.values() for query in order.queries}
    assert typed == {
        "dress", "black dress", "pink dress", "striped dress", "leggings", "black leggings", "pink leggings",
        "striped leggings", "shoe", "black shoe", "pink shoe",
    } == set(lists)  # fmt: skip


# --- result lists ------------------------------------------------------------------------------------------------


def test_lists_hold_what_fits_the_query(data: DataSet, lists: dict[str, list[str]]) -> None:
    typed = {article.article_id: words(article) for article in data.articles()}
    for query, shown in lists.items():
        fitting = {article_id for article_id, texts in typed.items() if query in texts}
        assert set(shown) <= fitting
        assert len(shown) == len(set(shown)) == min(len(fitting), 24)


def test_clicks_say_where_the_article_stood(orders: dict[tuple[str, int], Order], lists: dict[str, list[str]]) -> None:
    placed = 0
    for order in orders.values():
        shown = lists[order.queries[0]] if order.queries else []
        for article, position in order.clicks:
            assert position == (shown.index(article) + 1 if article in shown else None)
            placed += position is not None
    assert placed > 100


def test_lists_know_nothing_of_sales(data: DataSet, tmp_path: Path) -> None:
    first_day = [sale for sale in sales() if sale["t_dat"] == "2020-01-01"]
    other = imported(tmp_path, rows=first_day[:1])
    name = "search_results.parquet"
    assert (other.folder / name).read_bytes() == (data.folder / name).read_bytes()
    times = {time.timestamp() for batch in data.search_results() for time in batch.column("timestamp").to_pylist()}
    assert times == {1_577_836_800}  # from the first day on


# --- the same again ----------------------------------------------------------------------------------------------


def content(data: DataSet) -> list[bytes]:
    return [(data.folder / name).read_bytes() for name in ("events.parquet", "search_results.parquet")]


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(data: DataSet, tmp_path: Path) -> None:
    assert content(imported(tmp_path / "again")) == content(data)
    first, second = content(imported(tmp_path / "other", seed=1))
    assert first != content(data)[0]
    assert second != content(data)[1]


def test_orders_may_be_taken_in_any_number_at_once(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "_BATCH", 7)
    assert rows_of(imported(tmp_path)) == rows_of(data)


def test_what_sells_later_changes_nothing_before_it(data: DataSet, tmp_path: Path) -> None:
    early = imported(tmp_path, rows=[sale for sale in sales() if sale["t_dat"] < "2020-02"])
    end = early.last_event // DAY + 1
    before = {key: order for key, order in orders_of(data).items() if key[1] < end}
    assert before == orders_of(early)


def test_a_catalogue_without_words_has_clicks_but_no_searches(tmp_path: Path) -> None:
    articles = [{**row, "product_type_name": "Unknown"} for row in catalogue()]
    source = hm_folder(tmp_path / "in", articles=articles, sales=sales(days=5))
    import_data(HmImporter(derived_seed=0), source, tmp_path / "out")
    data = DataSet.open(tmp_path / "out")
    assert {row["type"] for row in rows_of(data)} == {"purchase", "click"}
    assert list(data.search_results()) == []


def test_a_small_catalogue_will_do(tmp_path: Path) -> None:
    import_data(HmImporter(derived_seed=3), hm_folder(tmp_path / "in", sales=HM_SALES), tmp_path / "out")
    assert {row["query"] for batch in DataSet.open(tmp_path / "out").search_results() for row in batch.to_pylist()} == {
        "black vest top",
        "white vest top",
        "vest top",
    }
