"""What the stand-in learns to read and write from: prompts made up of the shop's own catalogue and result lists.

Nothing here has ever seen a customer: a document imagines one. It draws a moment and an article that was in stock then,
a query that shows this article, and a session of articles *like* it; the response names the article. So the model
learns the format, which title belongs to which id, that a session speaks of what it leads to, and that candidates are
worth copying from. What customers really do it learns from fine-tuning alone.

Two articles are alike by the words and attributes that they share, rare ones counting more (tf-idf, cosine). The
category does not count: people who like a striped shirt may like a striped scarf.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.generation import QueryMemory
from model_store.prompts import Action, PromptSpec, can_be_written, prompt_text, response_text
from model_store.records import Article, EventType
from model_store.sessions import latest_query

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_LIKE = 64  # of an article's like, those that a session is drawn from
_SPAN = 400 * 86_400  # seconds before ``known_at`` from which moments are drawn, the later ones more often
_LAST_VISIT = 3  # clicks after the latest search, at most
_SEARCHES, _OLD_SEARCHES, _PURCHASES, _STRAY, _NEW_IDS = 0.75, 0.2, 0.3, 0.2, 0.02
"""How often a document ends in a search; how often an earlier action is a search, and otherwise a purchase; how often
an article has nothing to do with the one to be foretold; how often it has an id that the tokenizer does not know as a
whole, as articles that come later will."""


@dataclass(frozen=True)
class Document:
    """A prompt's text and the text of the response that it should have."""

    prompt: str
    response: str


class Documents:
    """Draws documents about the articles that were known before ``known_at`` (Unix seconds).

    An article was known from its ``created_at`` on, or else from when it was first in stock. ``nearest`` and ``top``:
    the memory's Q and V (§4.2). Raises TrainingError where no article was known.
    """

    def __init__(
        self, data: DataSet, memory: QueryMemory, *, known_at: int, prompt: PromptSpec, nearest: int, top: int
    ):
        self._memory, self._prompt, self._nearest, self._top = memory, prompt, nearest, top
        self._articles = list(data.articles())
        self._row_of = {article_id: row for row, article_id in enumerate(data.article_ids)}
        self._row_of_query = {query: row for row, query in enumerate(memory.queries)}
        self._availability, self._until = data.availability, known_at
        self.known = known_articles(data, known_at)
        if not len(self.known):
            raise TrainingError("stand_in: no article was known before the validation window; there is nothing to read")
        self._is_known = np.zeros(len(self._articles), dtype=bool)
        self._is_known[self.known] = True
        self.articles = [self._articles[row] for row in self.known.tolist()]
        self._like = Likeness(self._articles, self.known)
        self._queries = self._queries_of_articles()

    def draw(self, count: int, rng: np.random.Generator) -> list[Document]:
        """``count`` documents."""
        return [self._document(rng) for _ in range(count)]

    def _document(self, rng: np.random.Generator) -> Document:
        stock = self._stock_at(self._until - int(_SPAN * rng.random() ** 2) - 1)
        target = int(rng.choice(np.flatnonzero(stock)))
        shown_by = self._queries.get(target, ())
        searched = int(rng.choice(shown_by)) if len(shown_by) and rng.random() < _SEARCHES else None
        most = self._prompt.actions
        length = most if rng.random() < 0.5 else int(rng.integers(1, most + 1))
        visit = self._visit(target, searched, length, rng)
        earlier = [self._earlier(target, rng) for _ in range(length - len(visit))]
        actions = [*earlier, *visit]
        text = prompt_text(actions, self._candidates(latest_query(actions), stock), self._prompt)
        return Document(text, response_text(self._articles[target]))

    def _visit(self, target: int, searched: int | None, most: int, rng: np.random.Generator) -> list[Action]:
        """The latest visit: perhaps a search, and clicks on articles of the target's category that are like it.

        At most ``most`` actions, and that is at least 1.
        """
        search = [] if searched is None else [Action(EventType.SEARCH, query=self._memory.queries[searched])]
        clicks = int(rng.integers(min(_LAST_VISIT, most - len(search)) + 1))
        like = self._like.in_category(target)
        return [*search, *(Action(EventType.CLICK, article=self._draw(like, rng)) for _ in range(clicks))]

    def _earlier(self, target: int, rng: np.random.Generator) -> Action:
        """Something done before the latest visit: on an article that is like the target, of any category."""
        row = self._row(self._like.of(target), rng)
        shown_by = self._queries.get(row, ())
        if len(shown_by) and rng.random() < _OLD_SEARCHES:
            return Action(EventType.SEARCH, query=self._memory.queries[int(rng.choice(shown_by))])
        kind = EventType.PURCHASE if rng.random() < _PURCHASES else EventType.CLICK
        return Action(kind, article=self._named(row, rng))

    def _draw(self, like: Int64, rng: np.random.Generator) -> Article:
        return self._named(self._row(like, rng), rng)

    def _row(self, like: Int64, rng: np.random.Generator) -> int:
        """One of ``like``, best first, the first more often; sometimes anything that is known."""
        if not len(like) or rng.random() < _STRAY:
            return int(rng.choice(self.known))
        return int(like[int(len(like) * rng.random() ** 2)])

    def _named(self, row: int, rng: np.random.Generator) -> Article:
        article = self._articles[row]
        if rng.random() >= _NEW_IDS:
            return article
        digits = re.sub(r"\d", lambda _: str(rng.integers(10)), article.article_id)
        return article.model_copy(update={"article_id": digits})

    def _candidates(self, query: str | None, stock: NDArray[np.bool_]) -> list[str]:
        """As ``offline.sequences`` has them; ``query`` is one of the memory's own."""
        if query is None:
            return []
        key = self._memory.keys[self._row_of_query[query]]
        return self._memory.candidates(
            key, self._nearest, self._top, lambda name: name in self._row_of and bool(stock[self._row_of[name]])
        )

    def _stock_at(self, time: int) -> NDArray[np.bool_]:
        """Known articles in stock at ``time``, bool (N); all that are known where none was."""
        stock: NDArray[np.bool_] = self._availability.in_stock_at(time) & self._is_known
        return stock if stock.any() else self._is_known

    def _queries_of_articles(self) -> dict[int, Int64]:
        """Per article the rows of the queries that show it."""
        queries: dict[int, list[int]] = defaultdict(list)
        for row, article_ids in enumerate(self._memory.article_ids):
            for article_id in article_ids:
                if article_id in self._row_of:
                    queries[self._row_of[article_id]].append(row)
        return {article: np.asarray(rows, dtype=np.int64) for article, rows in queries.items()}


class Likeness:
    """Which of the ``articles`` at ``rows`` are alike."""

    def __init__(self, articles: Sequence[Article], rows: Int64):
        self._rows = rows
        self._features = [_features(articles[row]) for row in rows.tolist()]
        self._place = {row: place for place, row in enumerate(rows.tolist())}
        _, self._category = np.unique([articles[row].category for row in rows.tolist()], return_inverse=True)
        having: dict[str, list[int]] = defaultdict(list)
        for place, features in enumerate(self._features):
            for feature in features:
                having[feature].append(place)
        self._having = {feature: np.asarray(places, dtype=np.int64) for feature, places in having.items()}
        self._weight = {feature: np.log(1 + len(rows) / len(places)) ** 2 for feature, places in self._having.items()}
        squares = [sum(self._weight[feature] for feature in features) for features in self._features]
        self._length = np.sqrt(np.asarray(squares)).clip(min=1e-6)
        self._found: dict[tuple[int, bool], Int64] = {}

    def of(self, row: int) -> Int64:
        """Rows of the articles most like the one at ``row``, best first, itself left out: int64 (≤ 64)."""
        return self._best(row, False)

    def in_category(self, row: int) -> Int64:
        """The same of those of its category."""
        return self._best(row, True)

    def _best(self, row: int, in_category: bool) -> Int64:
        if (row, in_category) not in self._found:
            place = self._place[row]
            score = self._score(place)
            if in_category:
                score[self._category != self._category[place]] = 0.0
            best = np.argsort(-score, kind="stable")[:_LIKE]
            self._found[row, in_category] = self._rows[best[score[best] > 0]]
        return self._found[row, in_category]

    def _score(self, place: int) -> NDArray[np.float64]:
        """Cosines float64 (len(rows)), 0 for the article itself."""
        score = np.zeros(len(self._rows))
        for feature in self._features[place]:
            score[self._having[feature]] += self._weight[feature]
        score /= self._length * self._length[place]
        score[place] = 0.0
        return score


def _features(article: Article) -> set[str]:
    """Words of the title and values of the attributes, without what names the category."""
    category = set(_words(article.category))
    values = (article.brand, article.colour, article.gender, article.season, article.occasion, article.holiday)
    named = {f"{place}:{value.casefold()}" for place, value in enumerate(values) if value}
    words = {*_words(article.title), *(tag.casefold() for tag in article.tags)}
    return named | (words - category)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def known_articles(data: DataSet, before: int) -> Int64:
    """Rows of the articles that were known before ``before`` and whose id a response can name: int64 (…)."""
    first = np.full(len(data.article_ids), np.iinfo(np.int64).max)
    np.minimum.at(first, data.availability.article, data.availability.start)
    first = np.where(data.created_at >= 0, data.created_at, first)
    writable = np.array([can_be_written(article_id) for article_id in data.article_ids], dtype=bool)
    rows: Int64 = np.flatnonzero((first < before) & writable)
    return rows
