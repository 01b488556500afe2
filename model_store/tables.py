"""The tables of a data set on disk (design §3): their columns, how they are read and written, and every rule they keep.

    articles.parquet        required, at least one row
    events.parquet          required, at least one row
    search_results.parquet  optional: what the shop showed for a query
    availability.parquet    optional: when an article was in stock; absent = every article always

What one article and one event may be is written in ``model_store.records`` and nowhere else: articles go through it row
by row, events are screened in bulk and only what looks wrong goes through it, so that millions of events pass in
seconds and a fault is still told in the same words as the service's. Rules that span rows (unknown and duplicate ids,
overlapping intervals, missing pictures) are here. Every fault is an ``InvalidData`` naming file, row and column.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.errors import InvalidData
from model_store.records import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    MAX_ID_LENGTH,
    Article,
    Event,
    EventType,
    Identifier,
    ShortText,
    describe_validation_error,
)

ROW_GROUP = 131_072  # rows
BATCH = 65_536  # rows
MAX_POSITION = 1_000_000
OPEN_END = LATEST_TIMESTAMP + 1
"""The end of an interval that has none (``to`` is null): still in stock."""

_TIMESTAMP = pa.timestamp("s", tz="UTC")
_CONTROL_CHARACTERS = "[\\x00-\\x1f\\x7f-\\x{9f}]"


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
        wrong = _true(pc.or_(pc.less(column, 1), pc.greater(column, MAX_POSITION)))
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


# --- rules -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """What a valid data set turned out to hold: article ids in table order, and the time of the last event."""

    article_ids: list[str]
    last_event: int


def validate(folder: Path) -> Checked:
    """Hold every table of ``folder`` against every rule. Raises InvalidData at the first fault."""
    for table in (ARTICLES, EVENTS):
        open_table(folder, table)
    article_ids = check_articles(folder)
    known = pa.array(article_ids, pa.string())
    if (folder / AVAILABILITY.file).exists():
        check_availability(folder, known)
    if (folder / SEARCH_RESULTS.file).exists():
        check_search_results(folder, known)
    return Checked(article_ids, check_events(folder, known))


def check_articles(folder: Path) -> list[str]:
    """Check the articles, one by one through ``Article``; returns their ids in table order."""
    ids: list[str] = []
    first_seen: dict[str, int] = {}
    pictures = _Pictures(folder)
    for first_row, batch in read_batches(folder, ARTICLES):
        _check_timestamps(ARTICLES, batch, first_row)
        for row, record in enumerate(article_rows(batch), first_row):
            article = _checked_article(record, row)
            if article.article_id in first_seen:
                message = f"'{article.article_id}' is already in row {first_seen[article.article_id]}; ids are unique"
                raise InvalidData(message, file=ARTICLES.file, row=row, column="article_id")
            first_seen[article.article_id] = row
            ids.append(article.article_id)
            if article.image is not None and (fault := pictures.fault(article.image)):
                raise InvalidData(fault, file=ARTICLES.file, row=row, column="image")
    if not ids:
        raise InvalidData("is empty; expected at least one article", file=ARTICLES.file)
    return ids


def _checked_article(record: Mapping[str, Any], row: int) -> Article:
    try:
        return to_article(record)
    except InvalidData as error:
        raise InvalidData(str(error), file=ARTICLES.file, row=row, column="materials") from None
    except ValidationError as error:
        raise _record_fault(ARTICLES, row, error) from None


def _record_fault(table: TableSpec, row: int, error: ValidationError) -> InvalidData:
    field, message = describe_validation_error(error)
    column, _, entry = (field or "").partition(".")
    entry = entry.removesuffix(".[key]")
    value = f"entry '{entry}': {message}" if entry else message
    return InvalidData(value, file=table.file, row=row, column=column or None)


class _Pictures:
    """Checks image paths of a folder. Which real folder a path leads to is looked up once per sub-folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._root = folder.resolve()
        self._inside: dict[PurePosixPath, bool] = {}

    def fault(self, image: str) -> str | None:
        """What is wrong with an image path, or None."""
        path = PurePosixPath(image)
        if path.is_absolute() or ".." in path.parts or not self._leads_inside(path.parent):
            return f"'{image}' leaves the data set's folder; expected a path relative to it"
        full = self._folder / path
        if os.path.islink(full) and not full.resolve().is_relative_to(self._root):
            return f"'{image}' leaves the data set's folder; expected a path relative to it"
        return None if os.path.isfile(full) else f"there is no file '{image}' in the data set's folder"

    def _leads_inside(self, parent: PurePosixPath) -> bool:
        if parent not in self._inside:
            self._inside[parent] = (self._folder / parent).resolve().is_relative_to(self._root)
        return self._inside[parent]


def image_path(folder: Path, image: str) -> Path:
    """The file of an image path. Raises InvalidData where it leaves the folder or there is none."""
    if fault := _Pictures(folder).fault(image):
        raise InvalidData(fault, file=ARTICLES.file, column="image")
    return folder / image


def check_events(folder: Path, known: pa.Array) -> int:
    """Check the events against ``records.Event`` and the ids ``known``; returns the time of the last one."""
    event_ids: list[pa.Array] = []
    last = -1
    for first_row, batch in read_batches(folder, EVENTS):
        if not batch.num_rows:
            continue
        _check_timestamps(EVENTS, batch, first_row)
        for row in np.flatnonzero(_suspicious_events(batch)):
            _check_event(batch, int(row), first_row)
        _check_known(EVENTS, batch, first_row, known)
        event_ids.append(batch.column("event_id"))
        last = max(last, int(seconds(batch.column("timestamp")).max()))
    if not event_ids:
        raise InvalidData("is empty; expected at least one event", file=EVENTS.file)
    _check_unique(EVENTS, "event_id", pa.chunked_array(event_ids))
    return last


def _suspicious_events(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """Rows that may break a rule of ``records.Event``, bool (rows): every one that does, and few others."""
    suspicious = np.zeros(batch.num_rows, dtype=bool)
    for name in ("event_id", "customer_id", "article_id", "order_id"):
        suspicious |= _odd_text(batch.column(name), MAX_ID_LENGTH)
    suspicious |= _odd_text(batch.column("query"), 1_000)
    kind = batch.column("type")
    is_search = _true(pc.equal(kind, EventType.SEARCH.value))
    has_query = _true(pc.is_valid(batch.column("query")))
    has_article = _true(pc.is_valid(batch.column("article_id")))
    suspicious |= ~_true(pc.is_in(kind, pa.array([kind.value for kind in EventType])))
    suspicious |= (is_search != has_query) | (is_search == has_article)
    return suspicious


def _check_event(batch: pa.RecordBatch, row: int, first_row: int) -> None:
    values = {name: batch.column(name)[row].as_py() for name in batch.schema.names if name != "timestamp"}
    try:
        Event.model_validate({**values, "timestamp": int(seconds(batch.column("timestamp").slice(row, 1))[0])})
    except ValidationError as error:
        raise _record_fault(EVENTS, first_row + row, error) from None


class _SearchResult(BaseModel):
    """One row of search results, as strict about its texts as ``records.Event`` is."""

    model_config = ConfigDict(frozen=True)

    query: ShortText
    article_id: Identifier


def check_search_results(folder: Path, known: pa.Array) -> None:
    """Check the result lists against the ids ``known``."""
    for first_row, batch in read_batches(folder, SEARCH_RESULTS):
        _check_timestamps(SEARCH_RESULTS, batch, first_row)
        query, article_id = batch.column("query"), batch.column("article_id")
        for row in np.flatnonzero(_odd_text(query, 1_000) | _odd_text(article_id, MAX_ID_LENGTH)):
            try:
                _SearchResult(query=query[int(row)].as_py(), article_id=article_id[int(row)].as_py())
            except ValidationError as error:
                raise _record_fault(SEARCH_RESULTS, first_row + int(row), error) from None
        _check_known(SEARCH_RESULTS, batch, first_row, known)


def check_availability(folder: Path, known: pa.Array) -> None:
    """Check the intervals: known articles, from before to, none overlapping another of its article."""
    articles, starts, ends = [], [], []
    for first_row, batch in read_batches(folder, AVAILABILITY):
        _check_timestamps(AVAILABILITY, batch, first_row)
        articles.append(_check_known(AVAILABILITY, batch, first_row, known))
        starts.append(seconds(batch.column("from")))
        ends.append(seconds(batch.column("to"), OPEN_END))
        wrong = starts[-1] >= ends[-1]
        if wrong.any():
            row = first_row + int(np.argmax(wrong))
            raise InvalidData("must be later than 'from'", file=AVAILABILITY.file, row=row, column="to")
    if articles:
        _check_overlaps(np.concatenate(articles), np.concatenate(starts), np.concatenate(ends), known)


def _check_overlaps(
    article: NDArray[np.int32], start: NDArray[np.int64], end: NDArray[np.int64], known: pa.Array
) -> None:
    order = np.lexsort((start, article))
    overlaps = (article[order][1:] == article[order][:-1]) & (start[order][1:] < end[order][:-1])
    if overlaps.any():
        earlier, later = order[np.argmax(overlaps)], order[np.argmax(overlaps) + 1]
        article_id = known[int(article[later])].as_py()
        message = f"the interval overlaps that of row {earlier}; article '{article_id}' cannot be in stock twice"
        raise InvalidData(message, file=AVAILABILITY.file, row=int(later), column="from")


def _check_known(table: TableSpec, batch: pa.RecordBatch, first_row: int, known: pa.Array) -> NDArray[np.int32]:
    """Index of each row's article in ``known``, int32 (rows), -1 where it names none. An unknown id is a fault."""
    column = batch.column("article_id")
    index = pc.fill_null(pc.index_in(column, value_set=known), -1).to_numpy()
    unknown = (index < 0) & _true(pc.is_valid(column))
    if unknown.any():
        row = int(np.argmax(unknown))
        message = f"'{column[row].as_py()}' is not in {ARTICLES.file}"
        raise InvalidData(message, file=table.file, row=first_row + row, column="article_id")
    return index  # type: ignore[no-any-return]


def _check_timestamps(table: TableSpec, batch: pa.RecordBatch, first_row: int) -> None:
    for field in batch.schema:
        if pa.types.is_timestamp(field.type):
            value = seconds(batch.column(field.name))
            wrong = (value < EARLIEST_TIMESTAMP) | (value > LATEST_TIMESTAMP)
            if wrong.any():
                row = first_row + int(np.argmax(wrong))
                message = "must lie between the years 1970 and 9999"
                raise InvalidData(message, file=table.file, row=row, column=field.name)


def _check_unique(table: TableSpec, column: str, values: pa.ChunkedArray) -> None:
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in values.dictionary_encode().chunks])
    first_rows = np.unique(codes, return_index=True)[1]
    if len(first_rows) == len(codes):
        return
    repeated = np.ones(len(codes), dtype=bool)
    repeated[first_rows] = False
    row = int(np.argmax(repeated))
    message = f"'{values[row].as_py()}' is already in row {first_rows[codes[row]]}; ids are unique"
    raise InvalidData(message, file=table.file, row=row, column=column)


def _odd_text(column: pa.Array, longest: int) -> NDArray[np.bool_]:
    """Rows whose text is empty, longer than ``longest`` characters, or holds a control character, bool (rows)."""
    odd = _true(pc.or_(pc.equal(pc.binary_length(column), 0), pc.greater(pc.binary_length(column), longest)))
    if odd.any():
        length = pc.utf8_length(column)
        odd = _true(pc.or_(pc.equal(length, 0), pc.greater(length, longest)))
    if _has_control_bytes(column):
        odd |= _true(pc.match_substring_regex(column, _CONTROL_CHARACTERS))
    return odd


def _has_control_bytes(column: pa.Array) -> bool:
    """Whether the text's bytes may hold a control character at all: a look at the buffer, far cheaper than a regex."""
    data = column.buffers()[2]
    if data is None:
        return False
    content = np.frombuffer(data, dtype=np.uint8)
    return bool(((content < 0x20) | (content == 0x7F) | (content == 0xC2)).any())


def _true(mask: pa.Array) -> NDArray[np.bool_]:
    """An Arrow mask as bool (rows), null counting as False."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _first(mask: pa.Array) -> int:
    return int(np.argmax(_true(mask)))
