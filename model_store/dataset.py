"""A data set on disk, opened: validated once, then read as records, arrays or a stream (design §3).

``DataSet.open`` raises at the first fault that ``model_store.tables`` finds, so an opened data set can be relied on.
``new_data_set`` is how importers and the sample shop write one: aside, then renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store import table_rules, tables
from model_store.errors import InvalidData
from model_store.purchases import HistoryEvents, Purchases, purchases_of, read_history_events
from model_store.records import LATEST_TIMESTAMP, Article, EventType, describe_validation_error

DATA_SET_FILE = "data_set.json"
_TIME_BITS = 38  # holds every timestamp up to the year 9999, so that (article, time) sorts as one int64


class DataSetFile(BaseModel):
    """``data_set.json`` beside the tables: what the data are, and how long a window to evaluate on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: str = ""
    stock: str = ""
    """How availability came about, and what it may be used for."""
    synthetic: bool = False
    window_days: Annotated[int, Field(ge=1, le=3_650)] = 7
    """Recommended length of the evaluation window at the end of the data."""


@dataclass(frozen=True)
class Availability:
    """When each of N articles was in stock: I intervals [start, end), sorted by (article, start), never overlapping."""

    article: NDArray[np.int32]
    """(I) index into the data set's ``article_ids``"""
    start: NDArray[np.int64]
    """(I) Unix seconds, inclusive"""
    end: NDArray[np.int64]
    """(I) Unix seconds, exclusive; ``LATEST_TIMESTAMP + 1`` where the article is still in stock"""
    articles: int
    """N"""

    @classmethod
    def always(cls, articles: int) -> Availability:
        """Every article always in stock."""
        return cls(
            np.arange(articles, dtype=np.int32),
            np.zeros(articles, dtype=np.int64),
            np.full(articles, LATEST_TIMESTAMP + 1, dtype=np.int64),
            articles,
        )

    def in_stock(self, article: NDArray[np.integer], time: NDArray[np.integer] | int) -> NDArray[np.bool_]:
        """Whether each article was in stock at each time; the arguments broadcast, the result is bool (…)."""
        wanted = np.asarray(article, dtype=np.int64), np.asarray(time, dtype=np.int64)
        index = np.searchsorted(self._keys, (wanted[0] << _TIME_BITS) | wanted[1], side="right") - 1
        found = index >= 0
        if not len(self.article):
            return np.zeros(found.shape, dtype=bool)
        inside: NDArray[np.bool_] = found & (self.article[index] == wanted[0]) & (wanted[1] < self.end[index])
        return inside

    def in_stock_at(self, time: int) -> NDArray[np.bool_]:
        """Which articles were in stock at ``time``: bool (N)."""
        return self._mark((self.start <= time) & (time < self.end))

    def in_stock_between(self, start: int, end: int) -> NDArray[np.bool_]:
        """Which articles were in stock at some moment with start ≤ moment < end: bool (N)."""
        return self._mark((self.start < end) & (start < self.end))

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        return (self.article.astype(np.int64) << _TIME_BITS) | self.start

    def _mark(self, intervals: NDArray[np.bool_]) -> NDArray[np.bool_]:
        marked = np.zeros(self.articles, dtype=bool)
        marked[self.article[intervals]] = True
        return marked


class DataSet:
    """A validated data set. Articles are numbered by their row: ``article_ids[i]`` is row i of the articles table."""

    def __init__(self, folder: Path, file: DataSetFile, article_ids: list[str], last_event: int, fingerprint: str):
        self.folder, self.file, self.article_ids = folder, file, article_ids
        self.last_event = last_event
        """Timestamp of the last event, Unix seconds."""
        self.fingerprint = fingerprint
        """SHA-256 over the tables (pictures are not read)."""

    @classmethod
    def open(cls, folder: Path) -> DataSet:
        """Open and validate everything. Raises InvalidData with file, row and column of the first fault."""
        folder = Path(folder)
        if not folder.is_dir():
            raise InvalidData(
                f"{folder} is not a folder; expected a data set (modiste shop or modiste import makes one)"
            )
        file = _read_data_set_file(folder)
        checked = table_rules.validate(folder)
        return cls(folder, file, checked.article_ids, checked.last_event, _fingerprint(folder))

    def articles(self, start: int = 0, stop: int | None = None) -> Iterator[Article]:
        """Articles of the rows start … stop - 1, in table order."""
        stop = len(self.article_ids) if stop is None else min(stop, len(self.article_ids))
        for first_row, batch in tables.read_batches(self.folder, tables.ARTICLES):
            if first_row >= stop:
                return
            low, high = max(start - first_row, 0), min(stop - first_row, batch.num_rows)
            if low < high:
                yield from map(tables.to_article, tables.article_rows(batch.slice(low, high - low)))

    def image(self, article: Article) -> bytes | None:
        """The bytes of an article's picture, None where it has none. Raises InvalidData where the file is gone."""
        if article.image is None:
            return None
        try:
            return table_rules.image_path(self.folder, article.image).read_bytes()
        except OSError as error:
            raise InvalidData(f"'{article.image}' cannot be read ({error.strerror})", column="image") from None

    def purchases(self, known_at: int | None = None) -> Purchases:
        """Purchases less returns (``model_store.history``); only events earlier than ``known_at`` count."""
        events = self._history_events
        if known_at is not None:
            events = events.take(np.flatnonzero(events.timestamp < known_at))
        return purchases_of(events, self.article_ids)

    @cached_property
    def availability(self) -> Availability:
        """When articles were in stock; without that table, always. An article without an interval never was."""
        count = len(self.article_ids)
        if not (self.folder / tables.AVAILABILITY.file).exists():
            return Availability.always(count)
        known = pa.array(self.article_ids, pa.string())
        parts = [
            (
                pc.index_in(batch.column("article_id"), value_set=known).to_numpy(),
                tables.seconds(batch.column("from")),
                tables.seconds(batch.column("to"), tables.OPEN_END),
            )
            for _, batch in tables.read_batches(self.folder, tables.AVAILABILITY)
        ]
        if not parts:
            return Availability(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64), count)
        article, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((start, article))
        return Availability(article[order], start[order], end[order], count)

    @cached_property
    def created_at(self) -> NDArray[np.int64]:
        """When each article was created, int64 (N) in Unix seconds; -1 where the table does not say."""
        columns = [batch.column("created_at") for _, batch in tables.read_batches(self.folder, tables.ARTICLES)]
        return np.concatenate([tables.seconds(column, -1) for column in columns])

    def events(self, batch: int = tables.BATCH) -> Iterator[pa.RecordBatch]:
        """The events table in file order and canonical schema, at most ``batch`` rows at a time."""
        for _, rows in tables.read_batches(self.folder, tables.EVENTS, batch=batch):
            yield rows

    def search_results(self, batch: int = tables.BATCH) -> Iterator[pa.RecordBatch]:
        """The search results in file order and canonical schema; nothing where there are none."""
        if (self.folder / tables.SEARCH_RESULTS.file).exists():
            for _, rows in tables.read_batches(self.folder, tables.SEARCH_RESULTS, batch=batch):
                yield rows

    def ended(self, ends: Mapping[str, int], what: str, but: Sequence[int] | NDArray[np.int64] = ()) -> DataSet:
        """The same, as if some customers had done nothing more after a time of their own.

        ``ends``: the last second (Unix) that counts of each customer who is named; ``but``: rows of the events table
        that are left out besides. ``what`` says to people, and to the fingerprint, what was left out. Search results
        that answered what is left out are gone, too.
        """
        return _Ended(self, ends, what, np.sort(np.asarray(but, np.int64)))

    @cached_property
    def _history_events(self) -> HistoryEvents:
        return read_history_events(self.folder, self.article_ids)


class _Ended(DataSet):
    """A data set in which customers named by ``ends`` did nothing later than that, nor the rows ``but``, sorted."""

    def __init__(self, whole: DataSet, ends: Mapping[str, int], what: str, but: NDArray[np.int64]):
        digest = hashlib.sha256(f"{whole.fingerprint}\n{what}\n".encode())
        for customer_id in sorted(ends):
            digest.update(f"{customer_id}\0{ends[customer_id]}\n".encode())
        digest.update(but.tobytes())
        super().__init__(whole.folder, whole.file, whole.article_ids, whole.last_event, digest.hexdigest())
        self._end_of = dict(ends)
        self._names = pa.array(ends.keys(), pa.string())
        self._ends = np.append(np.fromiter(ends.values(), np.int64, len(ends)), LATEST_TIMESTAMP)
        self._but = but

    def ended(self, ends: Mapping[str, int], what: str, but: Sequence[int] | NDArray[np.int64] = ()) -> DataSet:
        sooner = {name: min(end, self._end_of.get(name, end)) for name, end in ends.items()}
        return _Ended(self, self._end_of | sooner, what, np.union1d(self._but, np.asarray(but, np.int64)))

    def events(self, batch: int = tables.BATCH) -> Iterator[pa.RecordBatch]:
        for rows, out in self._marked(batch):
            yield rows.filter(pa.array(~out))

    def search_results(self, batch: int = tables.BATCH) -> Iterator[pa.RecordBatch]:
        for rows in super().search_results(batch):
            asked = pa.array(_query_at(rows), pa.string())
            yield rows.filter(pc.invert(pc.is_in(asked, value_set=self._answered)))

    @cached_property
    def _answered(self) -> pa.Array:
        """Queries with their time that nobody sent but customers for whom they are left out."""
        kept, left_out = set[str](), set[str]()
        for rows, out in self._marked():
            is_search = pc.equal(rows.column("type"), EventType.SEARCH.value)
            searches, gone = rows.filter(is_search), out[is_search.to_numpy(zero_copy_only=False)]
            for asked, unheard in zip(_query_at(searches), gone.tolist(), strict=True):
                (left_out if unheard else kept).add(asked)
        return pa.array(sorted(left_out - kept), pa.string())

    def _marked(self, batch: int = tables.BATCH) -> Iterator[tuple[pa.RecordBatch, NDArray[np.bool_]]]:
        """Events of the whole data set, and which of them are left out."""
        first = 0
        for rows in super().events(batch):
            place = pc.fill_null(pc.index_in(rows.column("customer_id"), value_set=self._names), -1)
            late = tables.seconds(rows.column("timestamp")) > self._ends[place.to_numpy()]
            yield rows, late | np.isin(np.arange(first, first + len(rows)), self._but)
            first += len(rows)

    @cached_property
    def _history_events(self) -> HistoryEvents:
        events = read_history_events(self.folder, self.article_ids)
        place = pc.fill_null(pc.index_in(pa.array(events.customer_ids, pa.string()), value_set=self._names), -1)
        late = events.timestamp > self._ends[place.to_numpy()][events.customer]
        return events.take(np.flatnonzero(~late & ~np.isin(events.row, self._but)))


def _query_at(rows: pa.RecordBatch) -> list[str]:
    """Query and time of searches or their results, as one text."""
    times = tables.seconds(rows.column("timestamp"), -1).tolist()
    return [f"{time} {query}" for query, time in zip(rows.column("query").to_pylist(), times, strict=True)]


# --- files -------------------------------------------------------------------------------------------------------


def _read_data_set_file(folder: Path) -> DataSetFile:
    path = folder / DATA_SET_FILE
    if not path.exists():
        return DataSetFile(name=(folder.resolve().name or "data set")[:100])
    try:
        return DataSetFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidData(f"cannot be read ({error.strerror})", file=DATA_SET_FILE) from None
    except ValidationError as error:
        field, message = describe_validation_error(error)
        raise InvalidData(message, file=DATA_SET_FILE, column=field) from None


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for table in tables.TABLES:
        path = folder / table.file
        if path.exists():
            with path.open("rb") as file:
                digest.update(f"{table.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def new_data_set(out: Path) -> Iterator[Path]:
    """A folder to write a new data set into: becomes ``out`` where the block ends well, else is removed.

    What an earlier, killed writer left behind is cleared away. Raises InvalidData where ``out`` is a file or a folder
    with something in it, where it cannot be written, or while another process is writing it.
    """
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise InvalidData(f"{out} is a file; name a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise InvalidData(f"{out} is not empty; name a new folder, or remove this one first")
    stage = out.parent / f".{out.name}.partial"
    try:
        stage.mkdir(parents=True, exist_ok=True)
        lock = os.open(stage, os.O_RDONLY)
    except OSError as error:
        raise InvalidData(f"{out} cannot be written ({error.strerror})") from None
    try:
        _lock(lock, out)
        try:
            _clear(stage)
            yield stage
            stage.rename(out)
        except BaseException as error:
            shutil.rmtree(stage, ignore_errors=True)
            if isinstance(error, OSError):  # a full disk, say; the error names the file where it concerns one
                raise InvalidData(f"{out} cannot be written ({error})") from error
            raise
    finally:
        os.close(lock)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidData(f"{out} is being written by another process; wait for it or name another folder") from None


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def write_data_set_file(folder: Path, file: DataSetFile) -> None:
    """Write ``data_set.json``."""
    (folder / DATA_SET_FILE).write_text(file.model_dump_json(indent=2) + "\n", encoding="utf-8")
