"""Every rule that the tables of a data set keep (design §3).

What one article and one event may be is written in ``model_store.records`` and nowhere else: articles go through it row
by row, events are screened in bulk and only what looks wrong goes through it, so that millions of events pass in
seconds and a fault is still told in the same words as the service's. Rules that span rows (unknown and duplicate ids,
overlapping intervals, missing pictures) are here. Every fault is an ``InvalidData`` naming file, row and column.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
from model_store.tables import (
    ARTICLES,
    AVAILABILITY,
    EVENTS,
    OPEN_END,
    SEARCH_RESULTS,
    TableSpec,
    article_rows,
    as_mask,
    open_table,
    read_batches,
    seconds,
    to_article,
)

_CONTROL_CHARACTERS = "[\\x00-\\x1f\\x7f-\\x{9f}]"


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
    is_search = as_mask(pc.equal(kind, EventType.SEARCH.value))
    has_query = as_mask(pc.is_valid(batch.column("query")))
    has_article = as_mask(pc.is_valid(batch.column("article_id")))
    suspicious |= ~as_mask(pc.is_in(kind, pa.array([kind.value for kind in EventType])))
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
    unknown = (index < 0) & as_mask(pc.is_valid(column))
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
    odd = as_mask(pc.or_(pc.equal(pc.binary_length(column), 0), pc.greater(pc.binary_length(column), longest)))
    if odd.any():
        length = pc.utf8_length(column)
        odd = as_mask(pc.or_(pc.equal(length, 0), pc.greater(length, longest)))
    if _has_control_bytes(column):
        odd |= as_mask(pc.match_substring_regex(column, _CONTROL_CHARACTERS))
    return odd


def _has_control_bytes(column: pa.Array) -> bool:
    """Whether the text's bytes may hold a control character at all: a look at the buffer, far cheaper than a regex."""
    data = column.buffers()[2]
    if data is None:
        return False
    content = np.frombuffer(data, dtype=np.uint8)
    return bool(((content < 0x20) | (content == 0x7F) | (content == 0xC2)).any())
