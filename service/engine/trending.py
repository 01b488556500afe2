"""What sold lately: the counts of one window, in the order in which they trend.

The window that ends at ``at`` is [at − 7 d, at), as in offline evaluation. Sales are counted per UTC day, so where
``at`` is no midnight its two outermost days lie in the window only in part: the oldest counts by the share of it that
is still inside, and so does the newest where it is over; a newest day that still runs counts whole, so a sale of this
minute does. A shop whose data ended long ago still has a trend: the window never ends later than the newest day that
sold anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.popularity import TRENDING_DAYS, newcomer_sales, trend_score
from model_store.records import LATEST_TIMESTAMP

DAY = 86_400  # seconds


@dataclass(frozen=True)
class TrendWindow:
    """Which days count, and how much: ``days`` maps a day number (Unix time // 86,400) to its weight in (0, 1]."""

    days: tuple[tuple[int, float], ...]

    @property
    def since(self) -> int:
        """Where the window starts, to the day: Unix seconds."""
        return self.days[0][0] * DAY if self.days else LATEST_TIMESTAMP


def trend_window(at: int, newest_day: int | None, now: int) -> TrendWindow:
    """The window that ends at ``at`` (Unix seconds), or at the end of ``newest_day`` where that is earlier.

    ``newest_day`` is the last day with sales, None where nothing ever sold; ``now`` tells which day still runs.
    """
    if newest_day is None:
        return TrendWindow(())
    first, rest = divmod(min(at, (newest_day + 1) * DAY) - TRENDING_DAYS * DAY, DAY)
    if not rest:
        return TrendWindow(tuple((day, 1.0) for day in range(first, first + TRENDING_DAYS)))
    share, last = rest / DAY, first + TRENDING_DAYS
    whole = tuple((day, 1.0) for day in range(first + 1, last))
    return TrendWindow(((first, 1.0 - share), *whole, (last, share if last < now // DAY else 1.0)))


@dataclass(frozen=True, eq=False)
class TrendSnapshot:
    """Sales per article in one window. Articles without sales are left out. Compared by identity."""

    sales: Mapping[str, float]
    since: int = LATEST_TIMESTAMP
    """Start of the window, Unix seconds: an article created later had no full window to sell in"""

    def with_newcomers(self, newcomers: Sequence[str], in_stock: int) -> TrendSnapshot:
        """The trend in which articles in stock that are younger than the window count with average sales at least.

        ``in_stock``: number of articles in stock (``model_store.popularity.newcomer_sales``).
        """
        least = newcomer_sales(sum(self.sales.values()), in_stock, len(newcomers))
        if not newcomers or not least:
            return self
        raised = {article_id: max(self.sales.get(article_id, 0.0), least) for article_id in newcomers}
        return TrendSnapshot({**self.sales, **raised}, self.since)

    @cached_property
    def article_ids(self) -> tuple[str, ...]:
        """The best seller first; equal sales in order of article id."""
        return tuple(sorted(sorted(self.sales), key=self.sales.__getitem__, reverse=True))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each article in ``article_ids``, from 0."""
        return {article_id: place for place, article_id in enumerate(self.article_ids)}

    @cached_property
    def scores(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Trend scores of ``article_ids``: float32, highest first, all above 0."""
        return trend_score(np.array([self.sales[article_id] for article_id in self.article_ids], np.float64))


NO_TREND = TrendSnapshot({})


class WindowTotals:
    """The sales of one window, kept in order, so that another trend costs little more than what changed since the last.

    ``days``: day number → article → sales less returns.
    """

    def __init__(self, window: TrendWindow, days: Mapping[int, Mapping[str, int]]):
        self._window = window
        self._names = sorted({article_id for day, _ in window.days for article_id in days.get(day, ())})
        self._totals = np.array([self._total(article_id, days) for article_id in self._names], np.float64)

    def update(self, changed: Iterable[str], days: Mapping[int, Mapping[str, int]]) -> None:
        """Take in what ``days`` hold of the articles that ``changed``."""
        changed = sorted(changed)
        places = [bisect_left(self._names, article_id) for article_id in changed]
        new = [
            (place, article_id)
            for place, article_id in zip(places, changed, strict=True)
            if place == len(self._names) or self._names[place] != article_id
        ]
        if new:
            self._totals = np.insert(self._totals, [place for place, _ in new], 0.0)
            self._names += [article_id for _, article_id in new]
            self._names.sort()  # two sorted runs: little more than a copy
            places = [bisect_left(self._names, article_id) for article_id in changed]
        self._totals[places] = [self._total(article_id, days) for article_id in changed]

    def snapshot(self) -> TrendSnapshot:
        """The trend as it stands. What nets to 0 or less is out."""
        sold = np.flatnonzero(self._totals > 0)
        best_first = sold[np.argsort(-self._totals[sold], kind="stable")]
        article_ids = tuple([self._names[place] for place in best_first.tolist()])
        snapshot = TrendSnapshot(
            dict(zip(article_ids, self._totals[best_first].tolist(), strict=True)), self._window.since
        )
        snapshot.__dict__["article_ids"] = article_ids  # the cached property: they are in order already
        return snapshot

    def _total(self, article_id: str, days: Mapping[int, Mapping[str, int]]) -> float:
        return sum([weight * days[day].get(article_id, 0) for day, weight in self._window.days if day in days])
