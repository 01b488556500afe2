"""The tables of a data set on disk (design §3): their columns, and how they are read and written.

    articles.parquet        required, at least one row
    events.parquet          required, at least one row
    search_results.parquet  optional: what the shop showed for a query
    availability.parquet    optional: when an article was in stock; absent = every article always

What rows have to keep to beyond that stands in ``model_store.table_rules``. Every fault is an ``InvalidData`` naming
file, row and column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_store.errors import InvalidData
from model_store.records import LATEST_TIMESTAMP, Article

ROW_GROUP = 131_072  # rows
BATCH = 65_536  # rows
MAX_POSITION = 1_000_000
OPEN_END = LATEST_TIMESTAMP + 1
"""The end of an interval that has none (``to`` is null): still in stock."""

_TIMESTAMP = pa.timestamp("s", tz="UTC")


@dataclass(frozen=True)
class TableSpec:
    """One table: its name and its canonical schema. Required columns are the non-nullable fields."""

    name: str
    schema: pa.Schema

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


ARTICLES = TableSpec(
    "articles",
    pa.schema(
        [
            _required("article_id", pa.string()),
            _required("title", pa.string()),
            _required("category", pa.string()),
            *(
                pa.field(name, pa.string())
                for name in ("brand", "colour", "size", "gender", "season", "occasion", "holiday", "description")
            ),
            pa.field("price", pa.float64()),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("materials", pa.map_(pa.string(), pa.float64())),
            pa.field("image", pa.string()),
            pa.field("created_at", _TIMESTAMP),
        ]
    ),
)
EVENTS = TableSpec(
    "events",
    pa.schema(
        [
            _required("event_id", pa.string()),
            _required("customer_id", pa.string()),
            _required("type", pa.string()),
            pa.field("article_id", pa.string()),
            pa.field("query", pa.string()),
            _required("timestamp", _TIMESTAMP),
            pa.field("order_id", pa.string()),
            pa.field("position", pa.int32()),
        ]
    ),
)
SEARCH_RESULTS = TableSpec(
    "search_results",
    pa.schema(
        [
            _required("query", pa.string()),
            _required("article_id", pa.string()),
            _required("position", pa.int32()),
            pa.field("timestamp", _TIMESTAMP),
        ]
    ),
)
AVAILABILITY = TableSpec(
    "availability",
    pa.schema([_required("article_id", pa.string()), _required("from", _TIMESTAMP), pa.field("to", _TIMESTAMP)]),
)
TABLES = (ARTICLES, EVENTS, SEARCH_RESULTS, AVAILABILITY)


# --- writing -----------------------------------------------------------------------------------------------------


class TableWriter:
    """Writes one table in row groups, so that memory holds no more than one. Same rows, same bytes.

    Columns that are left out are null. A context manager; the file is complete once it exits.
    """

    def __init__(self, folder: Path, table: TableSpec):
        self.table = table
        self.rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._writer = pq.ParquetWriter(folder / table.file, table.schema, compression="zstd")

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows given by column: Arrow arrays, numpy arrays or sequences, all of one length."""
        arrays = {name: _as_array(values, self.table.schema.field(name).type) for name, values in columns.items()}
        rows = len(next(iter(arrays.values())))
        filled = [
            arrays[field.name] if field.name in arrays else pa.nulls(rows, field.type) for field in self.table.schema
        ]
        self._pending.append(pa.RecordBatch.from_arrays(filled, schema=self.table.schema))
        self._pending_rows += rows
        self.rows += rows
        if self._pending_rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending_rows:
            table = pa.Table.from_batches(self._pending, schema=self.table.schema)
            self._writer.write_table(table, row_group_size=max(ROW_GROUP, table.num_rows))
        self._pending, self._pending_rows = [], 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()


def _as_array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == kind else values.cast(kind)
    if isinstance(values, np.ndarray) and pa.types.is_timestamp(kind):
        return pa.array(values.astype(np.int64)).cast(kind)
    return pa.array(values, type=kind)


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def _parquet_errors(table: TableSpec) -> Iterator[None]:
    """Arrow's errors as ours: whatever cannot be read is a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidData(f"is not a readable Parquet file ({reason})", file=table.file) from None


def open_table(folder: Path, table: TableSpec) -> pq.ParquetFile:
    """Open one table and check its columns. Raises InvalidData where it is missing, damaged or of another shape."""
    path = folder / table.file
    if not path.is_file():
        raise InvalidData(f"is missing in {folder}; a data set needs this table", file=table.file)
    with _parquet_errors(table):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    _check_columns(table, schema)
    return file


def _check_columns(table: TableSpec, schema: pa.Schema) -> None:
    known = table.schema.names
    for name in schema.names:
        if name not in known:
            raise InvalidData(f"is unknown; expected one of {', '.join(known)}", file=table.file, column=name)
        if schema.names.count(name) > 1:
            raise InvalidData("occurs more than once", file=table.file, column=name)
    for field in table.schema:
        if field.name not in schema.names:
            if not field.nullable:
                raise InvalidData(f"is missing; expected {_in_words(field.type)}", file=table.file, column=field.name)
        elif not _fits(field.type, schema.field(field.name).type):
            actual = schema.field(field.name).type
            raise InvalidData(f"is {actual}; expected {_in_words(field.type)}", file=table.file, column=field.name)


def _in_words(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "a timestamp (UTC)"
    if pa.types.is_map(kind):
        return "a map from string to number"
    if pa.types.is_list(kind):
        return "a list of strings"
    if pa.types.is_integer(kind):
        return "whole numbers"
    return "numbers" if pa.types.is_floating(kind) else "strings"


def _fits(expected: pa.DataType, actual: pa.DataType) -> bool:
    """Whether a column of type ``actual`` can be read as ``expected`` without guessing."""
    if pa.types.is_null(actual):
        return True
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if pa.types.is_string(expected):
        return bool(pa.types.is_string(actual) or pa.types.is_large_string(actual) or pa.types.is_string_view(actual))
    if pa.types.is_timestamp(expected):
        return bool(pa.types.is_timestamp(actual))
    if pa.types.is_integer(expected):
        return bool(pa.types.is_integer(actual))
    if pa.types.is_floating(expected):
        return bool(pa.types.is_floating(actual) or pa.types.is_integer(actual))
    if pa.types.is_map(expected):
        return bool(
            pa.types.is_map(actual)
            and _fits(expected.key_type, actual.key_type)
            and _fits(expected.item_type, actual.item_type)
        )
    is_list = pa.types.is_list(actual) or pa.types.is_large_list(actual)
    return bool(is_list and _fits(expected.value_type, actual.value_type))


def read_batches(
    folder: Path, table: TableSpec, *, columns: list[str] | None = None, batch: int = BATCH
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of the first row, rows in the canonical schema) in file order, one row group in memory at a time.

    ``columns`` picks some (default all). Columns that the file lacks are null.
    """
    file = open_table(folder, table)
    fields = [field for field in table.schema if columns is None or field.name in columns]
    present = [field.name for field in fields if field.name in file.schema_arrow.names]
    schema = pa.schema(fields)
    row = 0
    batches = file.iter_batches(batch_size=batch, columns=present)
    while True:
        with _parquet_errors(table):
            rows = next(batches, None)
            if rows is None:
                return
            rows.validate(full=True)
        arrays = [_canonical(table, field, rows, row) for field in fields]
        yield row, pa.RecordBatch.from_arrays(arrays, schema=schema)
        row += rows.num_rows


def _canonical(table: TableSpec, field: pa.Field, rows: pa.RecordBatch, first_row: int) -> pa.Array:
    """One column in its canonical type; nulls in a required column and positions out of range are faults."""
    if field.name not in rows.schema.names:
        return pa.nulls(rows.num_rows, field.type)
    column = rows.column(field.name)
    if not field.nullable and column.null_count:
        row = first_row + _first(pc.is_null(column))
        raise InvalidData(f"is null; expected {_in_words(field.type)}", file=table.file, row=row, column=field.name)
    if field.name == "position" and not pa.types.is_null(column.type):
        wrong = as_mask(pc.or_(pc.less(column, 1), pc.greater(column, MAX_POSITION)))
        if wrong.any():
            row = int(np.argmax(wrong))
            message = f"is {column[row].as_py()}; expected 1 to {MAX_POSITION:,}"
            raise InvalidData(message, file=table.file, row=first_row + row, column=field.name)
    return column if column.type == field.type else column.cast(field.type, safe=False)


def seconds(column: pa.Array, null: int = 0) -> NDArray[np.int64]:
    """A timestamp column as Unix seconds, int64 (rows); nulls become ``null``."""
    return pc.fill_null(column.cast(pa.int64()), null).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def article_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of the articles table as fields of ``Article``; what is null is left out."""
    created = batch.schema.get_field_index("created_at")
    if created >= 0:
        batch = batch.set_column(created, "created_at", batch.column(created).cast(pa.int64()))
    return [{name: value for name, value in row.items() if value is not None} for row in batch.to_pylist()]


def to_article(row: Mapping[str, Any]) -> Article:
    """An ``Article`` of a row that ``article_rows`` gave. Raises ValidationError or InvalidData."""
    fields = dict(row)
    materials = fields.pop("materials", None)
    if materials is not None:
        fields["materials"] = dict(materials)
        if len(fields["materials"]) < len(materials):
            raise InvalidData("names a fibre more than once")
    return Article.model_validate(fields)


def as_mask(mask: pa.Array) -> NDArray[np.bool_]:
    """An Arrow mask as bool (rows), null counting as False."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _first(mask: pa.Array) -> int:
    return int(np.argmax(as_mask(mask)))
