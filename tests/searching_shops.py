"""Small data sets with searches and clicks: row by row, or with what a query means planted.

``synonym_shop``: a query and the titles bought from it share no word, so only the purchases tell what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model_store.dataset import DataSet, DataSetFile, write_data_set_file
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, SEARCH_RESULTS, TableWriter

HOUR, DAY = 3_600, 86_400
START = 1_700_006_400  # 2023-11-15, 00:00
MEANINGS, KINDS = 12, 3

Step = tuple[str, str, str, float]
"""(type, customer, article or query, hours after START)"""
Result = tuple[str, str, int, float | None]
"""(query, article, position, hours after START or None)"""


def at(hours: float) -> int:
    """Unix seconds."""
    return START + int(hours * HOUR)


def write_searching_shop(
    folder: Path,
    titles: Mapping[str, str],
    steps: Sequence[Step],
    results: Sequence[Result] = (),
    stock: Mapping[str, tuple[float, float | None]] | None = None,
) -> DataSet:
    """A data set of articles by title, events and search results; ``stock``: hours from … to, None: open."""
    folder.mkdir(parents=True)
    write_data_set_file(folder, DataSetFile(name=folder.name, synthetic=True))
    with TableWriter(folder, ARTICLES) as writer:
        writer.write({"article_id": list(titles), "title": list(titles.values()), "category": ["x"] * len(titles)})
    searched = [kind == "search" for kind, *_ in steps]
    with TableWriter(folder, EVENTS) as writer:
        writer.write(
            {
                "event_id": [f"e{index:06d}" for index in range(len(steps))],
                "type": [step[0] for step in steps],
                "customer_id": [step[1] for step in steps],
                "article_id": [None if query else step[2] for query, step in zip(searched, steps, strict=True)],
                "query": [step[2] if query else None for query, step in zip(searched, steps, strict=True)],
                "timestamp": [at(step[3]) for step in steps],
            }
        )
    if results:
        with TableWriter(folder, SEARCH_RESULTS) as writer:
            writer.write(
                {
                    "query": [result[0] for result in results],
                    "article_id": [result[1] for result in results],
                    "position": [result[2] for result in results],
                    "timestamp": [None if result[3] is None else at(result[3]) for result in results],
                }
            )
    if stock is not None:
        with TableWriter(folder, AVAILABILITY) as writer:
            writer.write(
                {
                    "article_id": list(stock),
                    "from": [at(low) for low, _ in stock.values()],
                    "to": [None if high is None else at(high) for _, high in stock.values()],
                }
            )
    return DataSet.open(folder)


def synonym_shop(folder: Path, *, planted: bool = True, visits: int = 900, seed: int = 0) -> DataSet:
    """12 queries of 3 titles each; every hour somebody searches, clicks and buys: if not planted, any article."""
    rng = np.random.default_rng(seed)
    words = _words(2 * MEANINGS + KINDS, rng)
    names, searched, kinds = words[:MEANINGS], words[MEANINGS : 2 * MEANINGS], words[2 * MEANINGS :]
    titles = {
        f"a{number:02d}": f"{kinds[number % KINDS]} {names[number // KINDS]}" for number in range(MEANINGS * KINDS)
    }
    steps: list[Step] = []
    for visit in range(visits):
        meaning, customer = int(rng.integers(MEANINGS)), f"c{rng.integers(60):02d}"
        wanted = meaning * KINDS + int(rng.integers(KINDS)) if planted else int(rng.integers(len(titles)))
        article = f"a{wanted:02d}"
        steps += [
            ("search", customer, searched[meaning], visit),
            ("click", customer, article, visit + 0.1),
            ("purchase", customer, article, visit + 0.2),
        ]
    return write_searching_shop(folder, titles, steps)


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Different words of six random letters."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6))] = None
    return list(words)
