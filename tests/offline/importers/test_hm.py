from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_sources import HM_ARTICLES, HM_SALES, HM_SALES_COLUMNS, hm_article, hm_folder, hm_sale, write_csv

from model_store.dataset import DataSet
from model_store.errors import InvalidData
from model_store.records import Article
from offline.importers.base import import_data
from offline.importers.hm import HmImporter, gender


def imported(tmp_path: Path, source: Path, **options: Any) -> DataSet:
    import_data(HmImporter(**options), source, tmp_path / "out")
    return DataSet.open(tmp_path / "out")


def articles(data: DataSet) -> dict[str, Article]:
    return {article.article_id: article for article in data.articles()}


def test_articles_come_in_whole(tmp_path: Path) -> None:
    article = articles(imported(tmp_path, hm_folder(tmp_path / "in")))["0100001001"]
    assert (article.title, article.category, article.colour) == ("Top 0100001001", "Vest top", "Black")
    assert (article.gender, article.season, article.description) == ("women", None, "A top, with a comma.")
    assert "appearance: Solid" in article.tags
    assert "group: Garment Upper body" in article.tags


def test_every_sale_is_a_purchase_of_that_day(tmp_path: Path) -> None:
    purchases = imported(tmp_path, hm_folder(tmp_path / "in")).purchases()
    assert len(purchases) == len(HM_SALES)
    assert (purchases.timestamp % 86_400 == 0).all()
    first_customer = slice(purchases.offsets[0], purchases.offsets[1])
    assert np.unique(purchases.order[first_customer], return_counts=True)[1].tolist() == [1, 1, 3]


def test_event_ids_are_row_numbers(tmp_path: Path) -> None:
    (batch,) = imported(tmp_path, hm_folder(tmp_path / "in")).events()
    assert batch.column("event_id").to_pylist() == [f"hm-{row}" for row in range(6)]


def test_a_price_is_the_median_before_the_window(tmp_path: Path) -> None:
    found = articles(imported(tmp_path, hm_folder(tmp_path / "in")))
    assert found["0100001001"].price == pytest.approx(0.02)
    assert found["0200002001"].price is None  # sold inside the window only
    assert found["0100001002"].price is None


def test_the_window_begins_where_it_says(tmp_path: Path) -> None:
    """A window of 60 days that ends with 2020-03-01 begins on 2020-01-02, so only the sale of 2020-01-01 counts."""
    found = articles(imported(tmp_path, hm_folder(tmp_path / "in"), window_days=60))
    assert found["0100001001"].price == pytest.approx(0.01)


def test_what_happens_inside_the_window_changes_no_article(tmp_path: Path) -> None:
    outside = [sale for sale in HM_SALES if sale["t_dat"] < "2020-02"]
    last_day = [hm_sale("2020-03-01", "c9", "0100001002", "7.0")]
    first = imported(tmp_path / "1", hm_folder(tmp_path / "1" / "in"))
    second = imported(tmp_path / "2", hm_folder(tmp_path / "2" / "in", sales=outside + last_day))
    assert articles(first) == articles(second)
    assert (first.folder / "articles.parquet").read_bytes() == (second.folder / "articles.parquet").read_bytes()


def test_everything_counts_as_in_stock_and_says_so(tmp_path: Path) -> None:
    data = imported(tmp_path, hm_folder(tmp_path / "in"))
    assert not (data.folder / "availability.parquet").exists()
    assert "every article counts as in stock" in data.file.stock
    assert (data.file.window_days, data.file.synthetic) == (28, False)


def test_pictures_by_article_go_before_those_by_product(tmp_path: Path) -> None:
    pictures = ["010/0100001001.jpg", "010/0100001.jpg"]
    data = imported(tmp_path, hm_folder(tmp_path / "in", pictures=pictures))
    found = articles(data)
    assert found["0100001001"].image == "images/010/0100001001.jpg"
    assert found["0100001002"].image == "images/010/0100001.jpg"
    assert found["0200002001"].image is None
    assert data.image(found["0100001002"]) == b"010/0100001.jpg"


def test_a_picture_that_colours_share_lies_there_once(tmp_path: Path) -> None:
    data = imported(tmp_path, hm_folder(tmp_path / "in", pictures=["010/0100001.jpg"]))
    assert {article.image for article in data.articles()} == {"images/010/0100001.jpg", None}
    assert [path.name for path in data.folder.rglob("*.jpg")] == ["0100001.jpg"]


def test_pictures_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    data = imported(tmp_path, hm_folder(tmp_path / "in", pictures=["010/0100001.jpg"]))
    assert (data.folder / "images/010/0100001.jpg").read_bytes() == b"010/0100001.jpg"


@pytest.mark.parametrize(
    ("index", "section", "expected"),
    [
        ("Ladieswear", "Womens Casual", "women"),
        ("Ladieswear", "Special Collections", "women"),
        ("Menswear", "Contemporary Street", "men"),
        ("Sport", "Men H&M Sport", "men"),
        ("Sport", "Ladies H&M Sport", "women"),
        ("Divided", "Divided Basics", None),
        ("Children Sizes 92-140", "Kids Boy", "boys"),
        ("Children Sizes 134-170", "Young Girl", "girls"),
        ("Baby Sizes 50-98", "Baby Essentials & Complements", "children"),
        ("Sport", "Kids Sports", "children"),
    ],
)
def test_gender(index: str, section: str, expected: str | None) -> None:
    assert gender(index, section) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_dat": "2020-02-30"}, "column 't_dat': '2020-02-30'; expected a date as YYYY-MM-DD, from 1970 on"),
        ({"t_dat": "01/02/2020"}, "column 't_dat': '01/02/2020'; expected a date as YYYY-MM-DD, from 1970 on"),
        ({"price": "free"}, "column 'price': 'free'; expected a price above 0"),
        ({"price": "0"}, "column 'price': '0'; expected a price above 0"),
        ({"price": "-1.5"}, "column 'price': '-1.5'; expected a price above 0"),
        ({"price": "1e999"}, "column 'price': '1e999'; expected a price above 0"),
        ({"price": ""}, "column 'price': ''; expected a price above 0"),
        ({"article_id": "0999999001"}, "column 'article_id': '0999999001'; expected an id of articles.csv"),
        ({"customer_id": ""}, "column 'customer_id': ''; expected an id"),
    ],
)
def test_a_bad_sale_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    sales = [*HM_SALES[:3], HM_SALES[3] | change]
    with pytest.raises(InvalidData) as raised:
        imported(tmp_path, hm_folder(tmp_path / "in", sales=sales))
    assert str(raised.value) == f"transactions_train.csv, row 3, {message}"
    assert not (tmp_path / "out").exists()


def test_a_bad_article_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as raised:
        imported(tmp_path, hm_folder(tmp_path / "in", articles=[*HM_ARTICLES, hm_article("0300003001", prod_name="")]))
    assert str(raised.value) == "articles.csv, row 3: title: Field required"


def test_an_article_that_occurs_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"row 3, column 'article_id': '0100001001' is already in row 0"):
        imported(tmp_path, hm_folder(tmp_path / "in", articles=[*HM_ARTICLES, HM_ARTICLES[0]]))


@pytest.mark.parametrize("name", ["articles.csv", "transactions_train.csv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (hm_folder(tmp_path / "in") / name).unlink()
    with pytest.raises(InvalidData) as raised:
        imported(tmp_path, tmp_path / "in")
    assert str(raised.value) == f"{name}: is missing in {tmp_path / 'in'}"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = hm_folder(tmp_path / "in")
    columns = [column for column in HM_SALES_COLUMNS if column != "price"]
    sales = [{name: sale[name] for name in columns} for sale in HM_SALES]
    write_csv(folder / "transactions_train.csv", columns, sales)
    with pytest.raises(InvalidData) as raised:
        imported(tmp_path, folder)
    expected = "is missing; expected the columns t_dat, customer_id, article_id, price"
    assert str(raised.value) == f"transactions_train.csv, column 'price': {expected}"


def test_a_row_with_too_few_values_is_named(tmp_path: Path) -> None:
    folder = hm_folder(tmp_path / "in")
    with (folder / "transactions_train.csv").open("a") as file:
        file.write("2020-03-01,c1\n")
    with pytest.raises(InvalidData, match=r"transactions_train.csv: is not readable CSV \(.*Expected 5 columns, got 2"):
        imported(tmp_path, folder)


@pytest.mark.parametrize("name", ["articles.csv", "transactions_train.csv"])
def test_a_file_without_rows_is_named(tmp_path: Path, name: str) -> None:
    folder = hm_folder(tmp_path / "in")
    header = (folder / name).read_text().splitlines()[0]
    (folder / name).write_text(header + "\n")
    with pytest.raises(InvalidData, match=rf"{name}: is empty; expected at least one"):
        imported(tmp_path, folder)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="nowhere is not a folder"):
        imported(tmp_path, tmp_path / "nowhere")
