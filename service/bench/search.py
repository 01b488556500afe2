"""The search by itself: how long it takes and what it finds, through filters of every width, next to a flat scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import faiss
import numpy as np

from model_store.history import Purchase
from service.bench.results import Result
from service.bench.timing import timings
from service.bench.world import DAY, HISTORY_DAYS, World, popularity
from service.engine.arrays import Float32
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex
from service.engine.style import StyleModel

K = 100  # neighbours asked for
_CUSTOMERS = 1_024
_COMPARED = 200  # queries whose answers are held against all inner products

_WIDTHS: Mapping[str, Filters] = {
    "100%": EVERYTHING,
    "50%": Filters(category=frozenset(f"category {number}" for number in range(10))),
    "20%": Filters(category=frozenset(f"category {number}" for number in range(4))),
    "5%": Filters(category=frozenset({"category 7"})),
    "1%": Filters(brand=frozenset({"brand 7", "brand 8"})),
    "0.1%": Filters(brand=frozenset({"brand 7", "brand 8", "brand 9"}), colour=frozenset({"colour 3"})),
}
"""Filters by the share of articles that pass them, nearly."""


def measure_search(world: World, count: int) -> list[Result]:
    """The index, asked by customers' styles, through every filter; then a flat FAISS scan of the same vectors."""
    faiss.omp_set_num_threads(1)
    index = ArticleIndex()
    index.upsert_many(world.articles, world.dna, [True] * len(world.dna))
    index.settle()
    flat = faiss.IndexFlatIP(world.dna.shape[1])
    flat.add(world.dna)
    styles = _styles(world)

    def search(filters: Filters) -> Callable[[int], object]:
        return lambda number: index.search(styles[number % len(styles)], K, filters)

    timed = [
        Result.of_times(f"search among {len(index):,} articles, {share} pass", timings(search(filters), count))
        for share, filters in _WIDTHS.items()
    ]
    recalls = [
        Result(f"recall@{K} of the search, {share} pass", _recall(index, styles[:_COMPARED], filters), "")
        for share, filters in _WIDTHS.items()
    ]
    scan = timings(lambda number: flat.search(styles[number % len(styles)][None], K), count)
    return [*timed, *recalls, Result.of_times("yardstick: flat FAISS scan, fp32", scan)]


def _styles(world: World) -> Float32:
    """Styles float32 (C, 128) of customers who bought what the world's customers buy."""
    row_of = {article.article_id: row for row, article in enumerate(world.articles)}
    model = StyleModel.of_bundle(
        world.bundle, lambda article_id: world.dna[row_of[article_id]] if article_id in row_of else None
    )
    rng = np.random.default_rng(1)
    shares = popularity(len(world.articles))
    now = HISTORY_DAYS * DAY
    histories = []
    for length in np.minimum(rng.geometric(0.1, size=_CUSTOMERS), 60):
        bought = rng.choice(len(world.articles), size=length, p=shares)
        times = np.sort(rng.integers(0, now, size=length))
        histories.append(
            [
                Purchase(int(at), f"{place}", world.articles[row].article_id, None)
                for place, (row, at) in enumerate(zip(bought, times, strict=True))
            ]
        )
    return np.stack([model.style(state, now) for state in model.states(histories, [()] * len(histories))])


def _recall(index: ArticleIndex, styles: Float32, filters: Filters) -> float:
    """The share of the best that is found, of all queries together; of nothing, everything is."""
    rows = index.allowed_rows(filters)
    if not len(rows):
        return 1.0
    ids, vectors = np.array(index.ids_of(rows)), index.vectors_of(rows).astype(np.float64)
    most = min(K, len(rows))
    found = 0
    for style in styles:
        best = ids[np.argsort(-(vectors @ style.astype(np.float64)), kind="stable")[:most]]
        found += len(set(best.tolist()).intersection(index.search(style, most, filters).article_ids))
    return found / (most * len(styles))
