from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import rows, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.dataset import Availability, DataSet, DataSetFile, new_data_set, write_data_set_file
from model_store.errors import InvalidData
from model_store.history import effective_history
from model_store.purchases import Purchases
from model_store.records import LATEST_TIMESTAMP, Event


def event(number: int, customer: str, article: str, time: int, **values: Any) -> dict[str, Any]:
    return {"event_id": f"x{number}", "customer_id": customer, "type": "purchase", "article_id": article,
            "timestamp": time, **values}  # fmt: skip


def of(purchases: Purchases, customer: str, data: DataSet) -> list[tuple[int, str]]:
    """(time, article id) of one customer's purchases."""
    index = purchases.customer_ids.index(customer)
    span = slice(purchases.offsets[index], purchases.offsets[index + 1])
    assert (purchases.customer[span] == index).all()
    articles = [data.article_ids[article] for article in purchases.article[span]]
    return list(zip(purchases.timestamp[span].tolist(), articles, strict=True))


def test_opens_a_valid_folder(tmp_path: Path) -> None:
    data = DataSet.open(write_folder(tmp_path / "shop"))
    assert data.file == DataSetFile(name="shop")
    assert data.article_ids == ["a1", "a2", "a3"]
    assert data.last_event == 1_600_000_500
    assert [article.title for article in data.articles()] == ["Linen dress", "Wool coat", "Silk scarf"]
    assert [article.article_id for article in data.articles(1, 2)] == ["a2"]
    assert list(data.articles(3)) == []
    assert sum(batch.num_rows for batch in data.events(2)) == 5
    assert sum(batch.num_rows for batch in data.search_results()) == 2


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="is not a folder"):
        DataSet.open(tmp_path / "nowhere")


def test_the_data_set_file_is_read(tmp_path: Path) -> None:
    write_data_set_file(write_folder(tmp_path), DataSetFile(name="n", stock="s", synthetic=True, window_days=28))
    assert DataSet.open(tmp_path).file == DataSetFile(name="n", stock="s", synthetic=True, window_days=28)


def test_a_broken_data_set_file_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "data_set.json").write_text(json.dumps({"name": "x", "window_days": 0}))
    with pytest.raises(InvalidData) as raised:
        DataSet.open(tmp_path)
    assert str(raised.value) == "data_set.json, column 'window_days': Input should be greater than or equal to 1"


def test_images(tmp_path: Path) -> None:
    data = DataSet.open(write_folder(tmp_path))
    with_image, without, _ = data.articles()
    assert data.image(with_image) == b"a picture"
    assert data.image(without) is None
    (tmp_path / "images" / "a1.jpg").unlink()
    with pytest.raises(InvalidData, match=r"there is no file 'images/a1.jpg'"):
        data.image(with_image)


def test_the_fingerprint_depends_on_the_tables(tmp_path: Path) -> None:
    first = DataSet.open(write_folder(tmp_path / "one")).fingerprint
    assert DataSet.open(write_folder(tmp_path / "two")).fingerprint == first
    assert DataSet.open(write_folder(tmp_path / "three", availability=rows("availability")[:1])).fingerprint != first


def test_purchases_are_sorted_and_returned_ones_left_out(tmp_path: Path) -> None:
    events = [
        event(5, "c2", "a3", 300),
        event(4, "c1", "a2", 200),
        event(3, "c1", "a1", 200),
        event(2, "c1", "a1", 100),
        event(1, "c1", "a1", 250, type="return"),
        event(6, "c3", "a2", 100, type="click"),
        event(7, "c4", "a2", 100),
        event(8, "c4", "a2", 110, type="return"),
    ]
    data = DataSet.open(write_folder(tmp_path, events=events))
    purchases = data.purchases()
    assert purchases.customer_ids == ["c1", "c2"]
    assert of(purchases, "c1", data) == [(100, "a1"), (200, "a2")]
    assert of(purchases, "c2", data) == [(300, "a3")]


def test_a_return_not_known_yet_takes_nothing_out(tmp_path: Path) -> None:
    events = [event(1, "c1", "a1", 100), event(2, "c1", "a1", 250, type="return"), event(3, "c2", "a1", 250)]
    data = DataSet.open(write_folder(tmp_path, events=events))
    assert of(data.purchases(known_at=250), "c1", data) == [(100, "a1")]
    assert data.purchases(known_at=250).customer_ids == ["c1"]
    assert data.purchases(known_at=251).customer_ids == ["c2"]


def test_orders_are_told_by_their_id_or_else_by_their_time(tmp_path: Path) -> None:
    events = [
        event(1, "c1", "a1", 100, order_id="o"),
        event(2, "c1", "a2", 200, order_id="o"),
        event(3, "c1", "a3", 300),
        event(4, "c1", "a1", 300),
        event(5, "c1", "a2", 300, order_id="p"),
        event(6, "c2", "a1", 100, order_id="o"),
        event(7, "c2", "a1", 300),
    ]
    purchases = DataSet.open(write_folder(tmp_path, events=events)).purchases()
    assert purchases.order.tolist() == [0, 0, 1, 1, 2, 3, 4]


def test_before_and_between_keep_customers_and_numbers(tmp_path: Path) -> None:
    events = [event(1, "c1", "a1", 100), event(2, "c1", "a2", 200), event(3, "c2", "a3", 300)]
    purchases = DataSet.open(write_folder(tmp_path, events=events)).purchases()
    before = purchases.before(200)
    assert (before.timestamp.tolist(), before.offsets.tolist(), before.order.tolist()) == ([100], [0, 1, 1], [0])
    between = purchases.between(200, 300)
    assert (between.timestamp.tolist(), between.offsets.tolist(), between.order.tolist()) == ([200], [0, 1, 1], [1])
    assert before.customer_ids == between.customer_ids == ["c1", "c2"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["c1", "c2"]),
            st.sampled_from(["a1", "a2"]),
            st.integers(1, 6),
            st.sampled_from(["purchase", "purchase", "return"]),
            st.sampled_from([None, "o1", "o2"]),
        ),
        min_size=1,
        max_size=25,
    ),
    st.randoms(use_true_random=False),
)
def test_purchases_follow_the_rule_of_the_history(tmp_path: Path, drawn: list[Any], random: Any) -> None:
    numbers = list(range(len(drawn)))
    random.shuffle(numbers)
    events = [
        event(number, customer, article, time, type=kind, order_id=order)
        for number, (customer, article, time, kind, order) in zip(numbers, drawn, strict=True)
    ]
    data = DataSet.open(write_folder(tmp_path, events=events))
    purchases = data.purchases()
    for customer in ("c1", "c2"):
        kept, _ = effective_history(Event.model_validate(row) for row in events if row["customer_id"] == customer)
        expected = [(purchase.timestamp, purchase.article_id) for purchase in kept]
        assert (of(purchases, customer, data) if expected else []) == expected
        assert (customer in purchases.customer_ids) == bool(expected)


def brute_force(availability: Availability, article: int, moment: int) -> bool:
    intervals = zip(availability.article, availability.start, availability.end, strict=True)
    return any(owner == article and start <= moment < end for owner, start, end in intervals)


def test_availability_agrees_with_its_intervals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    intervals: list[dict[str, Any]] = []
    for article in ("a1", "a2", "a3"):
        cuts = sorted(rng.choice(100, 6, replace=False).tolist())
        intervals += [
            {"article_id": article, "from": low, "to": high} for low, high in zip(cuts[::2], cuts[1::2], strict=True)
        ]
    rng.shuffle(intervals)
    availability = DataSet.open(write_folder(tmp_path, availability=intervals)).availability
    moments = np.arange(0, 110)
    table = availability.in_stock(np.arange(3)[:, None], moments)
    expected = [[brute_force(availability, article, moment) for moment in moments] for article in range(3)]
    assert table.tolist() == expected
    for moment in moments:
        assert availability.in_stock_at(moment).tolist() == table[:, moment].tolist()
    assert availability.in_stock_between(10, 30).tolist() == table[:, 10:30].any(axis=1).tolist()


def test_without_the_table_everything_is_always_in_stock(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "availability.parquet").unlink()
    availability = DataSet.open(tmp_path).availability
    assert availability.in_stock(np.arange(3), np.asarray([0, 5, LATEST_TIMESTAMP])).all()
    assert availability.in_stock_at(0).all()


def test_an_article_without_an_interval_never_was_in_stock(tmp_path: Path) -> None:
    availability = DataSet.open(write_folder(tmp_path)).availability
    assert availability.in_stock(np.arange(3), 1_600_000_500).tolist() == [True, True, False]
    empty = DataSet.open(write_folder(tmp_path, availability=[])).availability
    assert not empty.in_stock(np.arange(3), 1_600_000_500).any()


def test_an_interval_without_an_end_is_open(tmp_path: Path) -> None:
    availability = DataSet.open(write_folder(tmp_path)).availability
    assert availability.in_stock(np.asarray([1]), LATEST_TIMESTAMP).all()


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_new_data_set_appears_once_it_is_whole(tmp_path: Path) -> None:
    with new_data_set(tmp_path / "deep" / "out") as stage:
        (stage / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InvalidData])
def test_what_goes_wrong_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with new_data_set(tmp_path / "out") as stage:
            (stage / "file").write_text("x")
            raise error("stop")

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    full = "out cannot be written .*No space left on device"
    with pytest.raises(InvalidData, match=full), new_data_set(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidData, match=r"out cannot be written"), new_data_set(tmp_path / "file" / "out"):
        pass


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_data_set(tmp_path / "out") as stage:
        (stage / "file").write_text("x")
    assert (tmp_path / "out" / "file").exists()


def test_what_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InvalidData, match=r"file is a file; name a new or empty folder"),
        new_data_set(tmp_path / "file"),
    ):
        pass
    with pytest.raises(InvalidData, match="is not empty; name a new folder"), new_data_set(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "x"


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with new_data_set(tmp_path / "out") as stage:
        (stage / "file").write_text("x")
        with pytest.raises(InvalidData, match="is being written by another process"), new_data_set(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / "file").exists()


def _write_forever(out: Path) -> None:
    with new_data_set(out) as stage:
        (stage / "half").write_text("x")
        time.sleep(60)


def test_a_killed_writer_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_forever, args=(tmp_path / "out",))
    process.start()
    while not (tmp_path / ".out.partial" / "half").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "out").exists()
    with new_data_set(tmp_path / "out") as stage:
        (stage / "whole").write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
