"""What every importer is, and what they share: reading CSV with faults that name the row, and writing aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray
from pydantic import ValidationError
from tqdm import tqdm

from model_store import table_rules, tables
from model_store.dataset import DataSetFile, new_data_set, write_data_set_file
from model_store.errors import InvalidData
from model_store.records import Article, describe_validation_error

DAY = 86_400  # seconds
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


class Importer(Protocol):
    """Reads one foreign layout and writes the tables of a data set.

    ``window_days`` is the length of the evaluation window at the end of the data: whatever an importer computes
    (prices, stock) must not depend on sales inside it.
    """

    window_days: int

    def __init__(self, window_days: int | None = None): ...

    def write(self, source: Path, stage: Path) -> DataSetFile:
        """Write the tables of the data in ``source`` into ``stage`` and describe them. Raises InvalidData."""
        ...


def import_data(importer: Importer, source: Path, out: Path) -> DataSetFile:
    """Import ``source`` into the new folder ``out``: whole and valid, or not at all. Raises InvalidData."""
    if not source.is_dir():
        raise InvalidData(f"{source} is not a folder; name the one with the files to import")
    with new_data_set(out) as stage:
        file = importer.write(source, stage)
        write_data_set_file(stage, file)
        table_rules.validate(stage)
    return file


class CsvFile:
    """One CSV file (gzip where the name says so), read in text columns; rows are counted from 0 below the header."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str]):
        self.name, self._path, self._columns = name, folder / name, list(columns)
        if not self._path.is_file():
            raise InvalidData(f"is missing in {folder}", file=name)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, text columns), under a progress bar over the file's bytes."""
        total = self._path.stat().st_size
        with (
            tqdm(total=total, desc=self.name, unit="B", unit_scale=True, leave=False) as bar,
            self._path.open("rb") as raw,
        ):
            first_row = 0
            for batch in self._read(raw):
                yield first_row, batch
                first_row += batch.num_rows
                bar.update(raw.tell() - bar.n)

    def _read(self, raw: object) -> Iterator[pa.RecordBatch]:
        try:
            kind = "gzip" if self.name.endswith(".gz") else None
            stream = pa.input_stream(raw, compression=kind)
            reader = pa_csv.open_csv(
                stream,
                read_options=pa_csv.ReadOptions(block_size=1 << 22, use_threads=False),
                parse_options=pa_csv.ParseOptions(newlines_in_values=True),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(self._columns, pa.string()), strings_can_be_null=False
                ),
            )
            for column in self._columns:
                if column not in reader.schema.names:
                    expected = ", ".join(self._columns)
                    raise InvalidData(f"is missing; expected the columns {expected}", file=self.name, column=column)
            yield from (batch.select(self._columns) for batch in reader)
        except (pa.ArrowException, OSError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidData(f"is not readable CSV ({reason})", file=self.name) from None

    def fault(self, message: str, row: int, column: str) -> InvalidData:
        """An error about one value of this file."""
        return InvalidData(message, file=self.name, row=row, column=column)

    def filled(self, batch: pa.RecordBatch, column: str, first_row: int, expected: str = "an id") -> pa.Array:
        """A text column in which nothing may be empty; ``expected`` says in words what it holds."""
        self._refuse(pc.equal(batch.column(column), ""), batch, column, first_row, expected)
        return batch.column(column)

    def days(self, batch: pa.RecordBatch, column: str, first_row: int) -> NDArray[np.int64]:
        """A column of dates (YYYY-MM-DD) as Unix seconds of their 00:00 UTC, int64 (rows)."""
        encoded = batch.column(column).dictionary_encode()
        midnight = np.asarray([_midnight(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
        result: NDArray[np.int64] = midnight[encoded.indices.to_numpy()]
        self._refuse(pa.array(result < 0), batch, column, first_row, "a date as YYYY-MM-DD, from 1970 on")
        return result

    def prices(self, batch: pa.RecordBatch, column: str, first_row: int) -> NDArray[np.float64]:
        """A column of prices above 0, float64 (rows)."""
        is_number = pc.match_substring_regex(batch.column(column), _NUMBER)
        self._refuse(pc.invert(is_number), batch, column, first_row, "a price above 0")
        price = pc.utf8_trim_whitespace(batch.column(column)).cast(pa.float64())
        good = pc.and_(pc.greater(price, 0), pc.is_finite(price))
        self._refuse(pc.invert(good), batch, column, first_row, "a price above 0")
        return price.to_numpy()  # type: ignore[no-any-return]

    def indices(
        self, batch: pa.RecordBatch, column: str, first_row: int, known: pa.Array, where: str
    ) -> NDArray[np.int32]:
        """Index of each value in ``known``, int32 (rows); ``where`` says in words where the known ones are."""
        index = pc.index_in(batch.column(column), value_set=known)
        self._refuse(pc.is_null(index), batch, column, first_row, f"an id of {where}")
        return index.to_numpy()  # type: ignore[no-any-return]

    def _refuse(self, wrong: pa.Array, batch: pa.RecordBatch, column: str, first_row: int, expected: str) -> None:
        row = pc.index(wrong, True).as_py()
        if row >= 0:
            raise self.fault(f"'{batch.column(column)[row].as_py()}'; expected {expected}", first_row + row, column)

    def article(self, fields: dict[str, object], row: int) -> Article:
        """An article made from one row; what ``records.Article`` refuses is a fault of that row."""
        try:
            return Article.model_validate({name: value for name, value in fields.items() if value not in (None, "")})
        except ValidationError as error:
            field, message = describe_validation_error(error)
            raise InvalidData(f"{field}: {message}" if field else message, file=self.name, row=row) from None


def _midnight(text: str) -> int:
    try:
        return int(datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return -1


def write_articles(stage: Path, articles: Sequence[Article]) -> None:
    """Write the articles table."""
    with tables.TableWriter(stage, tables.ARTICLES) as writer:
        for start in range(0, len(articles), tables.BATCH):
            part = articles[start : start + tables.BATCH]
            columns: dict[str, list[object]] = {
                name: [getattr(article, name) for article in part] for name in tables.ARTICLES.schema.names
            }
            columns["materials"] = [list(article.materials.items()) for article in part]
            writer.write(columns)


def bring_file(source: Path, target: Path) -> None:
    """Let ``target`` have the content of ``source``: a hard link where the file system allows one, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def window_start(last_day: int, window_days: int) -> int:
    """First moment (Unix seconds) of a window of whole days that ends with the day starting at ``last_day``."""
    return last_day + DAY - window_days * DAY


def day_name(time: int) -> str:
    """The UTC date of a Unix time, as YYYY-MM-DD."""
    return datetime.fromtimestamp(time, UTC).date().isoformat()
