"""What one customer should see: state read → style at a moment, and intent → strategy → ranked articles → JSON.

Everything that is asked for lies in memory but what is known of the customer, which is one round trip to the store, and
a second one where they are searching. While the store does not answer, what was last known of the customer stands in
for it, and the answer says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from service import answers
from service.breaker import Breaker
from service.engine.ranking import Taste
from service.engine.trending import NO_TREND, TrendSnapshot
from service.errors import StoreUnavailable
from service.gathered import WorkedOff
from service.intents import NOTHING, Found, Intents, Question, listens, remembered
from service.live import Live
from service.metrics import Metrics
from service.rankings import Informed, Known, Ranking, Wish, rank_together
from service.state.customer import NO_LOG, CustomerState, CustomerView, Revision, empty_state
from service.state.last_known import LastKnown
from service.state.store import CustomerStore

log = logging.getLogger(__name__)


class Trends(Protocol):
    """Where recent sales come from."""

    async def snapshot(self, at: int | None) -> TrendSnapshot:
        """Sales of the window that ends at ``at`` (Unix seconds), or now. Raises StoreUnavailable."""
        ...

    @property
    def last_known(self) -> TrendSnapshot:
        """Those of the present that were read last."""
        ...

    def keep_known(self) -> None:
        """Have those of the present read now and then, though nobody asks for them."""
        ...


class Recommender:
    """Answers requests for recommendations."""

    def __init__(
        self,
        customers: CustomerStore,
        trends: Trends,
        intents: Intents,
        breaker: Breaker,
        metrics: Metrics,
        clock: Callable[[], int],
    ):
        self._customers, self._trends, self._intents, self._breaker = customers, trends, intents, breaker
        self._metrics, self._clock = metrics, clock
        self._last_known = LastKnown()
        self._rankings = WorkedOff(rank_together)

    async def recommend(self, live: Live, wish: Wish) -> bytes:
        """The answer's JSON (``service.http.schemas.Recommendations``), from the one bundle ``live``."""
        start = time.perf_counter()
        known = await self._known(live, wish)
        found, listened, waited = NOTHING, None, 0.0
        if listens(live, wish.strategy):
            begun = time.perf_counter()
            known, found, waited = await self._listen(live, wish, known)
            listened = time.perf_counter() - begun - waited
        trend = await self._trend(wish, known)
        read = time.perf_counter()
        ranking = await self._rankings.one(Informed(live, wish, known, trend, found.intent))
        answer = _answer(live, wish, known, found, ranking, _explanations(live, wish, ranking, trend, found))
        self._metrics.observe_stages(
            redis=read - start - waited - (listened or 0.0),
            waiting=waited,
            generation=listened,
            lstm=ranking.styled - read,
            search=ranking.ranked - ranking.styled,
            json=time.perf_counter() - ranking.ranked,
        )
        if known.degraded:
            self._metrics.degraded.inc()
        return answer

    async def forget(self, customer_id: str) -> None:
        """Keep nothing of an erased customer, and have nothing written for them. Raises StoreUnavailable."""
        self._last_known.forget(customer_id)
        await self._intents.forget(customer_id)

    async def _known(self, live: Live, wish: Wish) -> Known:
        """State and session from the store, or from memory while it does not answer."""
        customer_id = wish.customer_id
        if self._breaker.may_try():
            try:
                view = await self._customers.read(customer_id)
                state, revision = await self._state(live, customer_id, view, wish.at)
            except StoreUnavailable as error:
                log.warning("recommending from memory: %s", error)
                self._metrics.count_store_failure(error.reason)
                self._breaker.failed()
            else:
                self._breaker.succeeded()
                if (state, revision) != (view.state, view.revision):
                    view = view.with_state(state, revision)
                if wish.at is None:
                    self._last_known.keep(customer_id, view)
                return Known(state, view, self._moment(wish, state), degraded=False)
        view = self._last_known.view(customer_id)
        state = _usable(live, view.state)
        return Known(state, view, self._moment(wish, state), degraded=True)

    async def _listen(self, live: Live, wish: Wish, known: Known) -> tuple[Known, Found, float]:
        """What was generated for the customer, and where a fresh one was waited for, what is known since, and seconds.

        What was generated speaks of now: at another moment only a query counts.
        """
        question, waited = Question(wish.customer_id, wish.query, wish.wait), 0.0
        if wish.at is not None or known.degraded:
            past = wish.at is not None and wish.query is None
            return known, NOTHING if past else remembered(live, question, known.view), waited
        try:
            found = await self._intents.find(live, question, known.view)
            if self._intents.ask(question, known.view, found) and question.wait:
                begun = time.perf_counter()
                await self._intents.wait(live, question, known.view)
                waited = time.perf_counter() - begun
                known = await self._known(live, wish)
                found = await self._intents.find(live, question, known.view)
        except StoreUnavailable as error:
            log.warning("recommending without what was generated last: %s", error)
            found = remembered(live, question, known.view)
        return known, found, waited

    async def _trend(self, wish: Wish, known: Known) -> TrendSnapshot:
        """Sales before the moment, where they count; while those cannot be read, the last ones that were."""
        if known.degraded:
            return self._trends.last_known
        if wish.strategy == "style" and not known.cold and not wish.explain:
            self._trends.keep_known()
            return NO_TREND
        try:
            return await self._trends.snapshot(wish.at)
        except StoreUnavailable:
            return self._trends.last_known

    async def _state(
        self, live: Live, customer_id: str, view: CustomerView, at: int | None
    ) -> tuple[CustomerState, Revision]:
        """The state that ``live``'s bundle makes of the history up to ``at``, and the revision of the whole of it."""
        state = view.state
        if state is not None and live.style.fits(state) and not _lies_before_pending(at, state):
            return state, view.revision or NO_LOG
        history = await self._customers.read_log(customer_id)
        if not history.events:
            return empty_state(live.style.bundle_version), history.revision
        if state is None or not live.style.fits(state):
            state = live.style.replay(history.events)
            self._metrics.replays.inc()
            await self._keep(customer_id, state, history.revision)
        if at is not None and _lies_before_pending(at, state):
            return live.style.replay([event for event in history.events if event.timestamp <= at]), history.revision
        return state, history.revision

    async def _keep(self, customer_id: str, state: CustomerState, revision: Revision) -> None:
        """Spare the next request the replay. A store that only reads for the moment makes no answer worse."""
        try:
            await self._customers.put_state(customer_id, state, revision)
        except StoreUnavailable as error:
            log.warning("a state could not be stored, and is replayed again: %s", error)
            self._metrics.count_store_failure(error.reason)

    def _moment(self, wish: Wish, state: CustomerState) -> int:
        """The time to read the style at: what is asked for, else now, but never before the latest purchase."""
        if wish.at is not None:
            return wish.at
        return self._clock() if state.pending is None else max(self._clock(), state.pending.timestamp)


def _lies_before_pending(at: int | None, state: CustomerState) -> bool:
    return at is not None and state.pending is not None and at < state.pending.timestamp


def _usable(live: Live, state: CustomerState | None) -> CustomerState:
    """A remembered state; of one from another bundle only what was bought is of use while it cannot be replayed."""
    if state is None:
        return empty_state(live.style.bundle_version)
    if live.style.fits(state):
        return state
    return replace(empty_state(live.style.bundle_version), purchased=state.purchased, returned=state.returned)


def _explanations(
    live: Live, wish: Wish, ranking: Ranking, trend: TrendSnapshot, found: Found
) -> answers.ScoreExplanations | None:
    if not wish.explain:
        return None
    listed = None if found.intent is None else live.ranker.mixup(live.index, found.intent, ranking.filters)
    again = live.index.ids_of(live.index.allowed_among(ranking.again, ranking.filters))
    return answers.ScoreExplanations(live, ranking.taste, trend, listed, again)


def _answer(
    live: Live,
    wish: Wish,
    known: Known,
    found: Found,
    ranking: Ranking,
    explanations: answers.ScoreExplanations | None,
) -> bytes:
    head: dict[str, Any] = {
        "customer_id": wish.customer_id,
        "bundle": live.version,
        "strategy": wish.strategy,
        "degraded": known.degraded,
        "generation": found.freshness,
    }
    if explanations is not None:
        head["explain"] = _explain(known, explanations.taste, found)
    explained = None if explanations is None else [explanations.of(each) for each in ranking.articles.article_ids]
    return answers.recommendations(head, ranking, explained)


def _explain(known: Known, taste: Taste, found: Found) -> dict[str, Any]:
    return {
        "at": known.at,
        "cold": known.cold,
        "purchases": len(known.state.purchased),
        "session_events": len(known.session),
        "session_counts": taste.session is not None,
        "generation": answers.explain_generation(found),
    }
