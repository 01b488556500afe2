"""A small, valid data set on disk that tests then break: rows as dicts, written as they are given."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model_store import tables

Row = dict[str, Any]

ARTICLES: list[Row] = [
    {"article_id": "a1", "title": "Linen dress", "category": "Dress", "price": 49.5, "tags": ["linen", "summer"],
     "materials": [("linen", 55.0), ("cotton", 45.0)], "image": "images/a1.jpg", "created_at": 1_600_000_000},
    {"article_id": "a2", "title": "Wool coat", "category": "Coat", "price": None, "tags": [], "materials": [],
     "image": None, "created_at": None},
    {"article_id": "a3", "title": "Silk scarf", "category": "Scarf", "price": 20.0, "tags": None, "materials": None,
     "image": None, "created_at": None},
]  # fmt: skip
EVENTS: list[Row] = [
    {"event_id": "e1", "customer_id": "c1", "type": "search", "article_id": None, "query": "dress",
     "timestamp": 1_600_000_100, "order_id": None, "position": None},
    {"event_id": "e2", "customer_id": "c1", "type": "click", "article_id": "a1", "query": None,
     "timestamp": 1_600_000_200, "order_id": None, "position": 1},
    {"event_id": "e3", "customer_id": "c1", "type": "purchase", "article_id": "a1", "query": None,
     "timestamp": 1_600_000_300, "order_id": "o1", "position": None},
    {"event_id": "e4", "customer_id": "c2", "type": "purchase", "article_id": "a2", "query": None,
     "timestamp": 1_600_000_400, "order_id": None, "position": None},
    {"event_id": "e5", "customer_id": "c1", "type": "return", "article_id": "a1", "query": None,
     "timestamp": 1_600_000_500, "order_id": None, "position": None},
]  # fmt: skip
AVAILABILITY: list[Row] = [
    {"article_id": "a1", "from": 1_500_000_000, "to": 1_600_000_350},
    {"article_id": "a1", "from": 1_600_000_450, "to": None},
    {"article_id": "a2", "from": 1_500_000_000, "to": None},
]
SEARCH_RESULTS: list[Row] = [
    {"query": "dress", "article_id": "a1", "position": 1, "timestamp": 1_600_000_000},
    {"query": "dress", "article_id": "a3", "position": 2, "timestamp": None},
]
_ROWS = {"articles": ARTICLES, "events": EVENTS, "availability": AVAILABILITY, "search_results": SEARCH_RESULTS}


def rows(table: str) -> list[Row]:
    """A fresh copy of a table's valid rows."""
    return copy.deepcopy(_ROWS[table])


def write_table(folder: Path, name: str, table_rows: Sequence[Row]) -> None:
    """Write one table; rows may break any rule but that of the columns' types. Nulls are allowed everywhere."""
    spec = next(spec for spec in tables.TABLES if spec.name == name)
    fields = [field.with_nullable(True) for field in spec.schema]
    columns = [_column([row.get(field.name) for row in table_rows], field.type) for field in fields]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), folder / spec.file)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    # Seconds far outside the calendar cannot be made from dates, so they are cast from numbers.
    return pa.array(values, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array(values, kind)


def write_folder(folder: Path, **tables_rows: Sequence[Row]) -> Path:
    """Write the valid data set, with the given rows in place of a table's own; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ROWS:
        write_table(folder, name, tables_rows.get(name, rows(name)))
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a1.jpg").write_bytes(b"a picture")
    return folder


def changed(table: str, row: int, **values: Any) -> list[Row]:
    """A table's valid rows with some values of one row changed."""
    result = rows(table)
    result[row].update(values)
    return result
