"""H&M "Personalized Fashion Recommendations", in Kaggle's layout.

    articles.csv              the catalogue; one article per colour, 7 digits of product code + 3 of colour
    transactions_train.csv    one row per article bought; days, no times
    images/NNN/…              optional pictures by article id (Kaggle), or by product code, shared by its colours

H&M publishes no stock, so every article counts as in stock throughout: deriving it from the sales would tell which
articles sell inside the evaluation window. For the same reason a price is the median of the sales before the window.

Nor does it publish what customers searched for and clicked on. On request, searches, clicks and result lists are
derived (``offline.importers.derived``), and called so wherever they appear; purchases stay as they are, but that they
are stamped at 20:00 of their day instead of 00:00, so that what leads up to them lies on the same day.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from model_store import tables
from model_store.dataset import DataSetFile
from model_store.errors import InvalidData
from model_store.records import Article, EventType
from offline.importers.base import CsvFile, bring_file, day_name, window_start, write_articles
from offline.importers.derived import MOMENT, DerivedSearches, Sales

WINDOW_DAYS = 28

_TAGS = {
    "product_group_name": "group",
    "graphical_appearance_name": "appearance",
    "perceived_colour_value_name": "shade",
    "perceived_colour_master_name": "colour family",
    "department_name": "department",
    "index_name": "index",
    "index_group_name": "index group",
    "section_name": "section",
    "garment_group_name": "garment group",
}
_ARTICLE_COLUMNS = [
    "article_id",
    "product_code",
    "prod_name",
    "product_type_name",
    "colour_group_name",
    "detail_desc",
    *_TAGS,
]
_SALES_COLUMNS = ["t_dat", "customer_id", "article_id", "price"]
_UNKNOWN = {"unknown", "undefined", "other"}
_WOMEN_INDEXES = {"Ladieswear", "Lingeries/Tights", "Ladies Accessories"}


class HmImporter:
    """See the module. ``derived_seed``: searches and clicks are derived with it; None: there are none."""

    def __init__(self, window_days: int | None = None, derived_seed: int | None = None):
        self.window_days = window_days or WINDOW_DAYS
        self.derived_seed = derived_seed

    def write(self, source: Path, stage: Path) -> DataSetFile:
        """Write articles, events and pictures, and the result lists of derived searches."""
        catalogue = CsvFile(source, "articles.csv", _ARTICLE_COLUMNS)
        records = _read_articles(catalogue)
        derived = None if self.derived_seed is None else DerivedSearches(records, self.derived_seed)
        sales, prices = _write_events(source, stage, records, derived)
        if derived is not None:
            derived.write_lists(stage, int(sales.day.min()))
        window = window_start(int(sales.day.max()), self.window_days)
        medians = _median_prices(sales, prices, window, len(records))
        pictures = _bring_pictures(source, stage, records)
        articles = [
            record.model_copy(update={"price": price if price > 0 else None, "image": picture})
            for record, price, picture in zip(records, medians.tolist(), pictures, strict=True)
        ]
        write_articles(stage, articles)
        return self._describe(window)

    def _describe(self, window: int) -> DataSetFile:
        name = "H&M"
        description = (
            "H&M Personalized Fashion Recommendations, purchases by day. An article's price is the median"
            f" of its sales before {day_name(window)}, the first day of the evaluation window; none where it had none."
        )
        if self.derived_seed is not None:
            name = "H&M with derived searches"
            description += (
                " Purchases are real, stamped at 20:00 of their day. All searches, clicks and result lists are derived"
                " from the catalogue's words for what was bought, with noise (events derived-…, seed"
                f" {self.derived_seed}): figures that rest on them do not tell how real searches would have served."
            )
        return DataSetFile(
            name=name,
            description=description,
            stock="H&M publishes no stock: every article counts as in stock throughout.",
            window_days=self.window_days,
        )


def _read_articles(catalogue: CsvFile) -> list[Article]:
    articles: list[Article] = []
    for first_row, batch in catalogue.batches():
        for row, record in enumerate(batch.to_pylist(), first_row):
            articles.append(catalogue.article(_article_fields(record), row))
    if not articles:
        raise InvalidData("is empty; expected at least one article", file=catalogue.name)
    return articles


def _article_fields(record: dict[str, str]) -> dict[str, object]:
    colour = record["colour_group_name"]
    return {
        "article_id": record["article_id"],
        "title": record["prod_name"],
        "category": record["product_type_name"],
        "colour": None if colour.casefold() in _UNKNOWN else colour,
        "gender": gender(record["index_name"], record["section_name"]),
        "description": record["detail_desc"],
        "tags": tuple(f"{name}: {record[column]}" for column, name in _TAGS.items() if record[column]),
    }


def gender(index: str, section: str) -> str | None:
    """Whom an article is made for, from H&M's index and section; None where they leave it open (Divided, Sport)."""
    words = section.replace("-", " ").casefold().split()
    if {"boy", "boys"} & set(words):
        return "boys"
    if {"girl", "girls"} & set(words):
        return "girls"
    if {"kids", "baby", "young"} & set(words) or index.startswith(("Baby", "Children")):
        return "children"
    if {"men", "mens"} & set(words) or index == "Menswear":
        return "men"
    if {"women", "womens", "ladies", "mama"} & set(words) or index in _WOMEN_INDEXES:
        return "women"
    return None


class _CustomerNumbers:
    """Numbers of customer ids, given as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, column: pa.Array) -> NDArray[np.int32]:
        """Numbers int32 (rows) of a column of ids."""
        coded = column.dictionary_encode()
        numbers = [self._numbers.setdefault(each, len(self._numbers)) for each in coded.dictionary.to_pylist()]
        found: NDArray[np.int32] = np.asarray(numbers, np.int32)[coded.indices.to_numpy()]
        return found

    @property
    def ids(self) -> list[str]:
        """The ids, by number."""
        return list(self._numbers)


def _write_events(
    source: Path, stage: Path, articles: list[Article], derived: DerivedSearches | None
) -> tuple[Sales, NDArray[np.float32]]:
    """Stream the transactions into the events table, and what is derived behind them; returns sales and prices.

    The same article twice in a day is two purchases.
    """
    transactions = CsvFile(source, "transactions_train.csv", _SALES_COLUMNS)
    known = pa.array([article.article_id for article in articles])
    customers = _CustomerNumbers()
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]] = []
    with tables.TableWriter(stage, tables.EVENTS) as writer:
        for first_row, batch in transactions.batches():
            day = transactions.days(batch, "t_dat", first_row)
            price = transactions.prices(batch, "price", first_row).astype(np.float32)
            article = transactions.indices(batch, "article_id", first_row, known, "articles.csv")
            customer_id = transactions.filled(batch, "customer_id", first_row)
            writer.write(
                {
                    "event_id": [f"hm-{row}" for row in range(first_row, first_row + batch.num_rows)],
                    "customer_id": customer_id,
                    "type": [EventType.PURCHASE.value] * batch.num_rows,
                    "article_id": batch.column("article_id"),
                    "timestamp": day if derived is None else day + MOMENT,
                }
            )
            # Who bought matters only to what is derived: a plain import need not remember every customer.
            customer = np.zeros(len(day), np.int32) if derived is None else customers.of(customer_id)
            parts.append((customer, article, day, price))
        if not parts:
            raise InvalidData("is empty; expected at least one purchase", file=transactions.name)
        customer, article, day, price = (np.concatenate(column) for column in zip(*parts, strict=True))
        sales = Sales(customers.ids, customer, article, day)
        if derived is not None:
            derived.write_events(writer, sales)
    return sales, price


def _median_prices(sales: Sales, price: NDArray[np.float32], window: int, articles: int) -> NDArray[np.float64]:
    """Median price of each article's sales before ``window``, float64 (articles), 0 where it had none."""
    before = sales.day < window
    article, price = sales.article[before], price[before]
    order = np.lexsort((price, article))
    counts = np.bincount(article, minlength=articles)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sold = counts > 0
    price = price[order].astype(np.float64)
    median = np.zeros(articles)
    median[sold] = (price[(first + (counts - 1) // 2)[sold]] + price[(first + counts // 2)[sold]]) / 2
    return np.round(median, 6)


def _bring_pictures(source: Path, stage: Path, articles: list[Article]) -> list[str | None]:
    """Bring every picture over once; returns each article's path, that of its product where it has none of its own."""
    available: dict[str, set[str]] = {}
    brought: set[str] = set()
    paths: list[str | None] = []
    for article in tqdm(articles, desc="pictures", unit=" articles", leave=False):
        shelf = article.article_id[:3]
        if shelf not in available:
            folder = source / "images" / shelf
            available[shelf] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        names = [f"{article.article_id}.jpg", f"{article.article_id[:7]}.jpg"]
        name = next((name for name in names if name in available[shelf]), None)
        path = None if name is None else f"images/{shelf}/{name}"
        if path is not None and path not in brought:
            bring_file(source / path, stage / path)
            brought.add(path)
        paths.append(path)
    return paths
