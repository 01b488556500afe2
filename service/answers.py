"""Answers as JSON, put together from what every article's own JSON was when it came into the index.

Schemas: ``service.http.schemas``; a test holds real answers against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from model_store.generation import rank_bonus
from model_store.generation_spec import MIXUP_LENGTH
from model_store.popularity import POPULARITY, trend_score
from service.engine.arrays import NO_ROWS
from service.engine.best_sellers import BONUSES
from service.engine.filters import EVERYTHING, Filters
from service.engine.index import ArticleIndex, Ranked
from service.engine.mixup import MixupList
from service.engine.ranking import Taste
from service.engine.similar import similar
from service.engine.trending import TrendSnapshot
from service.errors import GenerationUnavailable, UnknownArticle
from service.generation.records import StoredGeneration
from service.intents import Found
from service.live import Live
from service.rankings import Ranking

_BONUSES = rank_bonus(MIXUP_LENGTH).tolist()


def similar_articles(live: Live, article_id: str, n: int, filters: Filters) -> bytes:
    """The JSON (``SimilarArticles``) of what in stock is closest to an article of the catalogue.

    Raises UnknownArticle.
    """
    dna = live.index.dna_of(article_id)
    if dna is None or not live.index.knows(article_id):
        raise UnknownArticle(f"article '{article_id}' is not in the catalogue")
    found = similar(live.index, dna, n, filters.without((article_id,)))
    return _list_of({"article_id": article_id, "bundle": live.version}, _scored(live.index, found))


def found_articles(live: Live, query: str, n: int, filters: Filters) -> bytes:
    """The JSON (``FoundArticles``) of what in stock has the titles that are closest to a query (Amazon 2024, §4.4).

    Raises GenerationUnavailable where the bundle has no title encoder.
    """
    if live.titles is None:
        raise GenerationUnavailable("the live bundle has no generating half, and so no title encoder to search with")
    found = live.index.search(live.titles.of(query), n, filters, "title")
    return _list_of({"query": query, "bundle": live.version}, _scored(live.index, found))


def recommendations(head: dict[str, Any], ranking: Ranking, explained: Sequence[dict[str, Any]] | None) -> bytes:
    """The JSON (``Recommendations``) of a ranking behind ``head``; where they are ``explained``, with that of each."""
    articles = ranking.articles
    columns = zip(ranking.open_jsons, _jsons(articles.scores), _sources(articles.ranks), strict=True)
    entries = [b'%b,"score":%b,"sources":{%b}' % entry for entry in columns]
    if explained is not None:
        entries = [b'%b,"explain":%b' % (e, orjson.dumps(why)) for e, why in zip(entries, explained, strict=True)]
    return _list_of(head, entries)


def _jsons(numbers: Sequence[float]) -> list[bytes]:
    """Each number as JSON: written all at once, which takes a tenth of the time of writing one by one."""
    return orjson.dumps(numbers)[1:-1].split(b",") if numbers else []


def _sources(ranks: Mapping[str, Sequence[int]]) -> list[bytes]:
    """The inside of each article's JSON object ``sources``; a rank of 0 is none."""
    parts = [
        [b'"%b":%d' % (source, rank) if rank else b"" for rank in of_each]
        for source, of_each in ((name.encode(), of_each) for name, of_each in ranks.items())
    ]
    if len(parts) == 1:
        return parts[0]
    return [b",".join(filter(None, of_one)) for of_one in zip(*parts, strict=True)]


def explain_generation(found: Found) -> dict[str, Any] | None:
    """What was generated and counts; never what it was generated from."""
    return None if found.generation is None else {"freshness": found.freshness, **shown_generation(found.generation)}


def shown_generation(generation: StoredGeneration) -> dict[str, Any]:
    """A generation as answers show it."""
    return {
        "article_id": generation.article_id,
        "title": generation.title,
        "bundle": generation.bundle,
        "session_length": generation.session_length,
        "written_at": generation.written_at,
        "seconds": generation.seconds,
    }


class ScoreExplanations:
    """The parts that scores may be made of; which of them count depends on the strategy (``service.engine.ranking``).

    ``listed``: the mixup list, None where there is no intent; ``again``: what was bought before, the latest first, as
    far as it may be shown.
    """

    def __init__(
        self, live: Live, taste: Taste, trend: TrendSnapshot, listed: MixupList | None, again: Sequence[str] = ()
    ):
        self.taste, self._again = taste, dict(zip(again, _BONUSES, strict=False))
        self._index, self._blend, self._trend = live.index, live.bundle.manifest.blend, trend
        lists = (NO_ROWS, NO_ROWS, NO_ROWS) if listed is None else (listed.rows, listed.by_id, listed.by_title)
        self._ranks, self._id_ranks, self._title_ranks = (
            {article_id: rank for rank, article_id in enumerate(self._index.ids_of(each), 1)} for each in lists
        )
        best = live.ranker.best_sellers(live.index, EVERYTHING)
        self._best_sellers = dict(zip(self._index.ids_of(best.rows), BONUSES.tolist(), strict=False))

    def of(self, article_id: str) -> dict[str, Any]:
        """The parts of one article's score."""
        dna, taste = self._index.dna_of(article_id), self.taste
        sales, rank = self._trend.sales.get(article_id, 0.0), self._ranks.get(article_id)
        return {
            "style": None if dna is None or taste.style is None else float(dna @ taste.style),
            "popularity": None if dna is None else float(dna[POPULARITY]),
            "popularity_weight": self._blend.popularity,
            "session": None if dna is None or taste.session is None else float(dna @ taste.session),
            "recent_sales": sales,
            "trend": float(trend_score(np.array([sales]))[0]),
            "trend_weight": self._blend.trend,
            "best_seller": self._best_sellers.get(article_id, 0.0),
            "best_sellers_weight": self._blend.best_sellers,
            "bought_before": self._again.get(article_id, 0.0),
            "bought_before_weight": self._blend.bought_before,
            "generated": 0.0 if rank is None else _BONUSES[rank - 1],
            "generated_weight": self._blend.generated,
            "generated_id_rank": self._id_ranks.get(article_id),
            "generated_title_rank": self._title_ranks.get(article_id),
        }


def _scored(index: ArticleIndex, found: Ranked) -> list[bytes]:
    return [
        b'%b,"score":%b' % entry
        for entry in zip(index.open_jsons(found.rows), _jsons(found.scores.tolist()), strict=True)
    ]


def _list_of(head: dict[str, Any], articles: Sequence[bytes]) -> bytes:
    """``articles``: each without its last brace."""
    closed = b"},".join(articles) + b"}" if articles else b""
    return orjson.dumps(head)[:-1] + b',"articles":[' + closed + b"]}"
