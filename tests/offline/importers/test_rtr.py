from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up_sources import rental, rtr_folder

from model_store.dataset import DataSet
from model_store.errors import InvalidData
from offline.importers.base import import_data
from offline.importers.rtr import RtrImporter

DAY = 86_400
JANUARY = 1_577_836_800  # 2020-01-01
WINDOW = JANUARY + (366 - 90) * DAY  # the last 90 days of 2020

RENTALS = [
    rental("u1", "11", "2020-03-01"),
    rental("u2", "11", "2020-05-01", "gown"),
    rental("u1", "11", "2020-12-20"),  # again, but long after its widened interval has ended
    rental("u2", "22", "2020-08-15"),
    rental("u3", "33", "2020-11-01"),  # first rented inside the window
    rental("u3", "33", "2020-11-01"),
    rental("u1", "22", "2020-12-31"),
]


def imported(tmp_path: Path, rentals: list[dict[str, str]] = RENTALS, **options: Any) -> DataSet:
    import_data(RtrImporter(**options), rtr_folder(tmp_path / "in", rentals), tmp_path / "out")
    return DataSet.open(tmp_path / "out")


def test_an_article_has_its_own_id_among_its_tags(tmp_path: Path) -> None:
    article = next(imported(tmp_path).articles())
    assert (article.article_id, article.title, article.category) == ("11", "Dress 11", "Dress")
    assert article.tags == ("article 11",)
    assert (article.gender, article.price, article.image) == (None, None, None)


def test_every_rental_is_a_purchase(tmp_path: Path) -> None:
    data = imported(tmp_path)
    assert len(data.purchases()) == len(RENTALS)
    (batch,) = data.events()
    assert batch.column("event_id").to_pylist() == [f"rtr-{row}" for row in range(7)]
    assert data.last_event == JANUARY + 365 * DAY


def test_stock_runs_from_the_first_to_the_last_rental_before_the_window_widened_by_60_days(tmp_path: Path) -> None:
    availability = imported(tmp_path).availability
    assert availability.start[0] == JANUARY  # 60 days before 2020-03-01
    assert availability.end[0] == JANUARY + (31 + 29 + 31 + 30 + 61) * DAY  # with 60 days after 2020-05-01


def test_an_article_whose_stock_ended_before_the_window_is_not_in_stock_in_it(tmp_path: Path) -> None:
    data = imported(tmp_path)
    assert data.availability.in_stock_between(WINDOW, data.last_event + 1).tolist() == [False, True, True]


def test_new_articles_are_in_stock_from_the_windows_first_moment_on(tmp_path: Path) -> None:
    availability = imported(tmp_path).availability
    new = availability.article == 2
    assert availability.start[new].tolist() == [WINDOW]
    assert availability.in_stock_at(WINDOW).tolist() == [False, True, True]
    assert not availability.in_stock_at(WINDOW - 1)[2]
    assert availability.in_stock_at(10**10).tolist() == [False, False, True]


def test_the_window_may_be_chosen(tmp_path: Path) -> None:
    data = imported(tmp_path, window_days=10)
    assert data.file.window_days == 10
    # 2020-11-01 now lies before the window, so the article is no longer new, and the first one was rented twice.
    assert data.availability.start[data.availability.article == 2].tolist() == [JANUARY + (305 - 60) * DAY]


def test_what_the_stock_may_be_used_for_is_said(tmp_path: Path) -> None:
    stock = imported(tmp_path).file.stock
    assert "before 2020-10-03" in stock
    assert "new articles only" in stock


def test_rentals_inside_the_window_change_no_older_articles_stock(tmp_path: Path) -> None:
    fewer = [row for row in RENTALS if row["review_date"] < "2020-10-03"] + RENTALS[-1:]
    first, second = imported(tmp_path / "1").availability, imported(tmp_path / "2", fewer).availability
    assert first.start[:2].tolist() == second.start.tolist()
    assert first.end[:2].tolist() == second.end.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"review_date": "2020-13-01"},
            "column 'review_date': '2020-13-01'; expected a date as YYYY-MM-DD, from 1970 on",
        ),
        ({"user_id": ""}, "column 'user_id': ''; expected an id"),
        ({"item_id": ""}, "column 'item_id': ''; expected an id"),
        ({"category": ""}, "column 'category': ''; expected a category"),
    ],
)
def test_a_bad_rental_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidData) as raised:
        imported(tmp_path, [*RENTALS[:2], RENTALS[2] | change])
    assert str(raised.value) == f"rentals.csv.gz, row 2, {message}"


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = rtr_folder(tmp_path / "in", RENTALS * 50) / "rentals.csv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidData, match=r"rentals.csv.gz: is not readable CSV"):
        import_data(RtrImporter(), tmp_path / "in", tmp_path / "out")


def test_no_rentals_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="expected at least one rental"):
        imported(tmp_path, [])
