from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_folders import EVENTS, changed, rows, write_folder, write_table

from model_store import table_rules, tables
from model_store.errors import InvalidData


def fault(folder: Path) -> str:
    with pytest.raises(InvalidData) as raised:
        table_rules.validate(folder)
    return str(raised.value)


def test_the_valid_folder_is_valid(tmp_path: Path) -> None:
    checked = table_rules.validate(write_folder(tmp_path))
    assert checked.article_ids == ["a1", "a2", "a3"]
    assert checked.last_event == 1_600_000_500


LONG = "x" * 129
BROKEN_ROWS: list[tuple[str, int, dict[str, Any], str]] = [
    # articles
    ("articles", 1, {"article_id": None}, "articles.parquet, row 1, column 'article_id': is null; expected strings"),
    ("articles", 1, {"title": None}, "articles.parquet, row 1, column 'title': is null; expected strings"),
    ("articles", 1, {"article_id": ""},
     "articles.parquet, row 1, column 'article_id': String should have at least 1 character"),
    ("articles", 1, {"article_id": LONG},
     "articles.parquet, row 1, column 'article_id': String should have at most 128 characters"),
    ("articles", 1, {"article_id": "a\x00"},
     "articles.parquet, row 1, column 'article_id': must not contain control characters"),
    ("articles", 1, {"title": "a\x9fb"},
     "articles.parquet, row 1, column 'title': must not contain control characters"),
    ("articles", 2, {"article_id": "a1"},
     "articles.parquet, row 2, column 'article_id': 'a1' is already in row 0; ids are unique"),
    ("articles", 0, {"price": 0.0}, "articles.parquet, row 0, column 'price': Input should be greater than 0"),
    ("articles", 0, {"price": -3.0}, "articles.parquet, row 0, column 'price': Input should be greater than 0"),
    ("articles", 0, {"price": float("nan")},
     "articles.parquet, row 0, column 'price': Input should be a finite number"),
    ("articles", 0, {"price": float("inf")},
     "articles.parquet, row 0, column 'price': Input should be a finite number"),
    ("articles", 0, {"tags": ["linen", None]},
     "articles.parquet, row 0, column 'tags': entry '1': Input should be a valid string"),
    ("articles", 0, {"materials": [("linen", -1.0)]},
     "articles.parquet, row 0, column 'materials': entry 'linen': Input should be greater than or equal to 0"),
    ("articles", 0, {"materials": [("linen", 101.0)]},
     "articles.parquet, row 0, column 'materials': entry 'linen': Input should be less than or equal to 100"),
    ("articles", 0, {"materials": [("linen", 60.0), ("wool", 41.0)]},
     "articles.parquet, row 0, column 'materials': percentages add up to more than 100"),
    ("articles", 0, {"materials": [("linen", 60.0), ("linen", 20.0)]},
     "articles.parquet, row 0, column 'materials': names a fibre more than once"),
    ("articles", 0, {"image": "/etc/passwd"}, "articles.parquet, row 0, column 'image': '/etc/passwd' leaves the data"
     " set's folder; expected a path relative to it"),
    ("articles", 0, {"image": "images/../../a1.jpg"}, "articles.parquet, row 0, column 'image': 'images/../../a1.jpg'"
     " leaves the data set's folder; expected a path relative to it"),
    ("articles", 0, {"image": "images/gone.jpg"}, "articles.parquet, row 0, column 'image': there is no file"
     " 'images/gone.jpg' in the data set's folder"),
    ("articles", 0, {"image": "images"}, "articles.parquet, row 0, column 'image': there is no file 'images' in the"
     " data set's folder"),
    ("articles", 0, {"created_at": -1},
     "articles.parquet, row 0, column 'created_at': must lie between the years 1970 and 9999"),
    # events
    ("events", 2, {"event_id": None}, "events.parquet, row 2, column 'event_id': is null; expected strings"),
    ("events", 2, {"customer_id": None}, "events.parquet, row 2, column 'customer_id': is null; expected strings"),
    ("events", 2, {"timestamp": None},
     "events.parquet, row 2, column 'timestamp': is null; expected a timestamp (UTC)"),
    ("events", 2, {"event_id": ""},
     "events.parquet, row 2, column 'event_id': String should have at least 1 character"),
    ("events", 2, {"customer_id": LONG},
     "events.parquet, row 2, column 'customer_id': String should have at most 128 characters"),
    ("events", 2, {"order_id": "o\n1"},
     "events.parquet, row 2, column 'order_id': must not contain control characters"),
    ("events", 2, {"event_id": "e\x85"},
     "events.parquet, row 2, column 'event_id': must not contain control characters"),
    ("events", 3, {"event_id": "e2"},
     "events.parquet, row 3, column 'event_id': 'e2' is already in row 1; ids are unique"),
    ("events", 2, {"type": "wish"},
     "events.parquet, row 2, column 'type': Input should be 'purchase', 'click', 'search' or 'return'"),
    ("events", 0, {"query": None}, "events.parquet, row 0, column 'query': a search needs one"),
    ("events", 0, {"query": "q" * 1_001},
     "events.parquet, row 0, column 'query': String should have at most 1000 characters"),
    ("events", 0, {"article_id": "a1"}, "events.parquet, row 0, column 'article_id': a search has none"),
    ("events", 2, {"article_id": None}, "events.parquet, row 2, column 'article_id': a purchase needs one"),
    ("events", 1, {"article_id": None}, "events.parquet, row 1, column 'article_id': a click needs one"),
    ("events", 2, {"query": "dress"}, "events.parquet, row 2, column 'query': a purchase has none"),
    ("events", 2, {"article_id": "a9"},
     "events.parquet, row 2, column 'article_id': 'a9' is not in articles.parquet"),
    ("events", 2, {"timestamp": -1},
     "events.parquet, row 2, column 'timestamp': must lie between the years 1970 and 9999"),
    ("events", 2, {"timestamp": 253_402_300_800},
     "events.parquet, row 2, column 'timestamp': must lie between the years 1970 and 9999"),
    ("events", 1, {"position": 0}, "events.parquet, row 1, column 'position': is 0; expected 1 to 1,000,000"),
    # search_results
    ("search_results", 1, {"query": None},
     "search_results.parquet, row 1, column 'query': is null; expected strings"),
    ("search_results", 1, {"query": ""},
     "search_results.parquet, row 1, column 'query': String should have at least 1 character"),
    ("search_results", 1, {"article_id": "a9"},
     "search_results.parquet, row 1, column 'article_id': 'a9' is not in articles.parquet"),
    ("search_results", 1, {"position": -2},
     "search_results.parquet, row 1, column 'position': is -2; expected 1 to 1,000,000"),
    ("search_results", 1, {"timestamp": 253_402_300_800},
     "search_results.parquet, row 1, column 'timestamp': must lie between the years 1970 and 9999"),
    # availability
    ("availability", 1, {"from": None},
     "availability.parquet, row 1, column 'from': is null; expected a timestamp (UTC)"),
    ("availability", 0, {"to": 1_500_000_000}, "availability.parquet, row 0, column 'to': must be later than 'from'"),
    ("availability", 0, {"to": 1_400_000_000}, "availability.parquet, row 0, column 'to': must be later than 'from'"),
    ("availability", 1, {"from": 1_600_000_349},
     "availability.parquet, row 1, column 'from': the interval overlaps that"
     " of row 0; article 'a1' cannot be in stock twice"),
    ("availability", 0, {"to": None}, "availability.parquet, row 1, column 'from': the interval overlaps that of row 0;"
     " article 'a1' cannot be in stock twice"),
    ("availability", 2, {"article_id": "a9"},
     "availability.parquet, row 2, column 'article_id': 'a9' is not in articles.parquet"),
    ("availability", 2, {"from": -5},
     "availability.parquet, row 2, column 'from': must lie between the years 1970 and 9999"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "row", "values", "message"), BROKEN_ROWS)
def test_a_broken_row_is_named(tmp_path: Path, table: str, row: int, values: dict[str, Any], message: str) -> None:
    assert fault(write_folder(tmp_path, **{table: changed(table, row, **values)})) == message


def test_rows_are_counted_across_row_groups(tmp_path: Path) -> None:
    write_folder(tmp_path)
    many = [{**EVENTS[2], "event_id": f"many{number}", "order_id": None} for number in range(25)]
    many[17]["article_id"] = "a9"
    write_table(tmp_path, "events", many)
    pq.write_table(pq.read_table(tmp_path / "events.parquet"), tmp_path / "events.parquet", row_group_size=4)
    assert fault(tmp_path) == "events.parquet, row 17, column 'article_id': 'a9' is not in articles.parquet"


@pytest.mark.parametrize("name", ["articles", "events"])
def test_a_required_table_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path) / f"{name}.parquet").unlink()
    assert fault(tmp_path) == f"{name}.parquet: is missing in {tmp_path}; a data set needs this table"


@pytest.mark.parametrize("name", ["search_results", "availability"])
def test_an_optional_table_may_be_missing(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path) / f"{name}.parquet").unlink()
    assert table_rules.validate(tmp_path).article_ids == ["a1", "a2", "a3"]


@pytest.mark.parametrize("name", ["articles", "events", "search_results", "availability"])
def test_what_is_not_parquet_is_named(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path) / f"{name}.parquet").write_text("article_id,title\n")
    assert fault(tmp_path).startswith(f"{name}.parquet: is not a readable Parquet file (")


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    path = write_folder(tmp_path) / "events.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert fault(tmp_path).startswith("events.parquet: is not a readable Parquet file (")


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "events.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    assert fault(tmp_path).startswith("events.parquet: is not a readable Parquet file (")


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    table = pq.read_table(tmp_path / "articles.parquet")
    title = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(
        table.set_column(table.schema.get_field_index("title"), "title", title), tmp_path / "articles.parquet"
    )
    assert fault(tmp_path).startswith("articles.parquet: is not a readable Parquet file (")


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("articles", "title", "strings"),
        ("events", "customer_id", "strings"),
        ("search_results", "position", "whole numbers"),
        ("availability", "from", "a timestamp (UTC)"),
    ],
)
def test_a_required_column_that_is_missing_is_named(tmp_path: Path, name: str, column: str, expected: str) -> None:
    path = write_folder(tmp_path) / f"{name}.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert fault(tmp_path) == f"{name}.parquet, column '{column}': is missing; expected {expected}"


@pytest.mark.parametrize("column", ["brand", "price", "tags", "materials", "image", "created_at"])
def test_an_optional_column_may_be_missing(tmp_path: Path, column: str) -> None:
    path = write_folder(tmp_path) / "articles.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert table_rules.validate(tmp_path).article_ids == ["a1", "a2", "a3"]


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "availability.parquet"
    pq.write_table(pq.read_table(path).append_column("until", pa.array([1, 2, 3])), path)
    message = "availability.parquet, column 'until': is unknown; expected one of article_id, from, to"
    assert fault(tmp_path) == message


@pytest.mark.parametrize(
    ("name", "column", "values", "message"),
    [
        ("articles", "price", pa.array(["1", "2", "3"]), "is string; expected numbers"),
        ("articles", "article_id", pa.array([1, 2, 3]), "is int64; expected strings"),
        ("articles", "tags", pa.array(["a", "b", "c"]), "is string; expected a list of strings"),
        ("articles", "materials", pa.array(["a", "b", "c"]), "is string; expected a map from string to number"),
        ("availability", "from", pa.array([1, 2, 3]), "is int64; expected a timestamp (UTC)"),
        ("search_results", "position", pa.array([1.0, 2.0]), "is double; expected whole numbers"),
    ],
)
def test_a_column_of_another_type_is_named(
    tmp_path: Path, name: str, column: str, values: pa.Array, message: str
) -> None:
    path = write_folder(tmp_path) / f"{name}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), path)
    assert fault(tmp_path) == f"{name}.parquet, column '{column}': {message}"


def test_related_types_are_read_as_the_canonical_ones(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "articles.parquet"
    table = pq.read_table(path)
    replaced = {
        "price": pa.array([49, None, 20], pa.int32()),
        "category": pa.array(["Dress", "Coat", "Scarf"]).dictionary_encode(),
        "title": pa.array(["a", "b", "c"], pa.large_string()),
        "created_at": pa.array([1_600_000_000_123_456, None, None], pa.timestamp("us")),
    }
    for name, values in replaced.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path)
    ((_, batch),) = tables.read_batches(tmp_path, tables.ARTICLES)
    assert batch.schema == tables.ARTICLES.schema
    assert tables.to_article(tables.article_rows(batch)[0]).created_at == 1_600_000_000


@pytest.mark.parametrize("name", ["articles", "events"])
def test_a_table_without_rows_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, **{name: []})
    thing = "article" if name == "articles" else "event"
    assert fault(tmp_path) == f"{name}.parquet: is empty; expected at least one {thing}"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    folder = write_folder(tmp_path / "data")
    (folder / "images" / "a1.jpg").unlink()
    (folder / "images" / "a1.jpg").symlink_to(tmp_path / "secret.jpg")
    assert "leaves the data set's folder" in fault(folder)


def test_a_linked_sub_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a1.jpg").write_bytes(b"secret")
    folder = write_folder(tmp_path / "data", articles=changed("articles", 0, image="linked/a1.jpg"))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert "leaves the data set's folder" in fault(folder)


def test_ordinary_foreign_text_is_not_taken_for_control_characters(tmp_path: Path) -> None:
    """«, °, £ and é share lead bytes with control characters; tabs and line breaks in a query are only white space."""
    queries = changed("events", 0, query="«robe\td'été» à 20° ou 30 £", customer_id="client-é°")
    assert table_rules.validate(write_folder(tmp_path, events=queries)).last_event == 1_600_000_500


def test_written_rows_are_read_back(tmp_path: Path) -> None:
    with tables.TableWriter(tmp_path, tables.AVAILABILITY) as writer:
        writer.write({"article_id": ["a", "b"], "from": np.asarray([5, 6])})
        writer.write({"article_id": ["c"], "from": np.asarray([7]), "to": np.asarray([8])})
    assert writer.rows == 3
    ((first, batch),) = tables.read_batches(tmp_path, tables.AVAILABILITY)
    assert (first, batch.num_rows) == (0, 3)
    assert tables.seconds(batch.column("from")).tolist() == [5, 6, 7]
    assert tables.seconds(batch.column("to"), tables.OPEN_END).tolist() == [tables.OPEN_END, tables.OPEN_END, 8]


def test_rows_are_flushed_by_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 10)
    with tables.TableWriter(tmp_path, tables.SEARCH_RESULTS) as writer:
        for start in range(0, 32, 4):
            writer.write({"query": ["q"] * 4, "article_id": ["a"] * 4, "position": list(range(start + 1, start + 5))})
    metadata = pq.ParquetFile(tmp_path / "search_results.parquet").metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [12, 12, 8]


def test_rows_helper_gives_copies() -> None:
    rows("articles")[0]["title"] = "changed"
    assert rows("articles")[0]["title"] == "Linen dress"
