"""Parts of a data set, each a data set of its own: some of the customers, or some of the articles.

What is written is whole or not at all, and written once. A part has the very rows that the whole has, in their order:

- *Of customers*: all their events, and the result lists of queries that one of them sent. The articles stay all.
- *Of articles*: their events, pictures, stock and places in result lists. A search stays where the query is one of
  these articles: most of what the shop showed for it is among them. Queries without any list go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store import tables
from model_store.dataset import DataSet, new_data_set, write_data_set_file
from model_store.generation import plain_text
from model_store.records import EventType
from model_store.tables import TableSpec, as_mask

Mask = NDArray[np.bool_]


def nested_customers(data: DataSet, known_at: int, shares: Sequence[float], seed: int) -> list[frozenset[str]]:
    """For each share (0 … 1) so many of the customers who did something before ``known_at``, drawn by ``seed``.

    Rounded up; a smaller share lies within every greater one.
    """
    seen = set[str]()
    for rows in data.events():
        early = rows.filter(pa.array(tables.seconds(rows.column("timestamp")) < known_at))
        seen.update(pc.unique(early.column("customer_id")).to_pylist())
    order = np.random.default_rng(seed).permutation(sorted(seen)).tolist()
    return [frozenset(order[: int(np.ceil(share * len(order) - 1e-9))]) for share in shares]


def only_customers(data: DataSet, customers: Collection[str], out: Path, words: str) -> DataSet:
    """What ``customers`` did, in the folder ``out``; ``words`` says to people what it is. Read where it was written."""
    kept = pa.array(sorted(customers), pa.string())
    queries = _queries_of(data, kept)
    return _part(
        data,
        out,
        words,
        {
            tables.EVENTS: lambda rows: as_mask(pc.is_in(rows.column("customer_id"), value_set=kept)),
            tables.SEARCH_RESULTS: lambda rows: _named(rows.column("query"), queries),
        },
    )


def only_articles(data: DataSet, chosen: Mask, out: Path, words: str) -> DataSet:
    """The ``chosen`` (N) articles and all that is about them, in the folder ``out``. Read where it was written."""
    kept = pa.array([name for name, wanted in zip(data.article_ids, chosen.tolist(), strict=True) if wanted])
    queries = queries_about(data, chosen)

    def about(rows: pa.RecordBatch) -> Mask:
        return as_mask(pc.fill_null(pc.is_in(rows.column("article_id"), value_set=kept), False))

    def events(rows: pa.RecordBatch) -> Mask:
        searches = as_mask(pc.equal(rows.column("type"), EventType.SEARCH.value))
        return np.where(searches, _named(rows.column("query"), queries), about(rows))

    return _part(
        data,
        out,
        words,
        {
            tables.ARTICLES: about,
            tables.EVENTS: events,
            tables.SEARCH_RESULTS: lambda rows: about(rows) & _named(rows.column("query"), queries),
            tables.AVAILABILITY: about,
        },
    )


def queries_about(data: DataSet, chosen: Mask) -> set[str]:
    """Plain texts of the queries for which the shop showed ``chosen`` (N) articles more often than others."""
    row_of = {name: row for row, name in enumerate(data.article_ids)}
    balance: dict[str, int] = {}
    for rows in data.search_results():
        queries, articles = rows.column("query").to_pylist(), rows.column("article_id").to_pylist()
        for query, article_id in zip(queries, articles, strict=True):
            text = plain_text(query)
            balance[text] = balance.get(text, 0) + (1 if chosen[row_of[article_id]] else -1)
    return {text for text, more in balance.items() if more > 0}


def _queries_of(data: DataSet, customers: pa.Array) -> set[str]:
    """Plain texts of the queries that any of ``customers`` sent."""
    queries = set[str]()
    for rows in data.events():
        mine = rows.filter(pc.is_in(rows.column("customer_id"), value_set=customers))
        queries.update(plain_text(query) for query in pc.unique(mine.column("query")).to_pylist() if query is not None)
    return queries


def _named(column: pa.Array, queries: Collection[str]) -> Mask:
    texts = pc.unique(column).to_pylist()
    kept = pa.array([text for text in texts if text is not None and plain_text(text) in queries], pa.string())
    return as_mask(pc.is_in(column, value_set=kept))


def _part(data: DataSet, out: Path, words: str, keep: dict[TableSpec, Callable[[pa.RecordBatch], Mask]]) -> DataSet:
    """``keep``: by table, which of a batch's rows stay; a table that is not named stays as it is."""
    if not out.is_dir():
        with new_data_set(out) as folder:
            name = f"{data.file.name}, {words}"[:100]
            described = f"{data.file.description}\n\nOf it a part: {words}."
            write_data_set_file(folder, data.file.model_copy(update={"name": name, "description": described}))
            for table in tables.TABLES:
                if not (data.folder / table.file).exists():
                    continue
                if table not in keep:
                    shutil.copyfile(data.folder / table.file, folder / table.file)
                    continue
                with tables.TableWriter(folder, table) as writer:
                    for _, rows in tables.read_batches(data.folder, table):
                        kept = rows.filter(pa.array(keep[table](rows)))
                        writer.write({column: kept.column(column) for column in kept.schema.names})
            _take_pictures(data.folder, folder)
    return DataSet.open(out)


def _take_pictures(source: Path, folder: Path) -> None:
    """The pictures that the articles name, linked where that can be done."""
    names = set[str]()
    for _, rows in tables.read_batches(folder, tables.ARTICLES):
        names.update(name for name in rows.column("image").to_pylist() if name is not None)
    for name in sorted(names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target)
        except OSError:
            shutil.copyfile(source / name, target)
