"""What goes over the wire, as models: requests are checked by them, answers are documented by them.

Answers on the hot path are written as bytes (``service.recommend``), never built from these; a test holds real answers
against the schema.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from model_store.records import Article, EventType, Identifier, LongText, ShortText, Timestamp, parse_timestamp

MAX_RECOMMENDATIONS = 200
MAX_VALUES = 1_000
"""Most values of one repeatable parameter."""

_UNIX_SECONDS = re.compile(r"-?\d+(\.\d+)?")
_ZONE_AFTER_SPACE = re.compile(r"(\d\d:\d\d\S*) (\d\d:?\d\d)$")


def query_timestamp(value: object) -> object:
    """A time in a query string, where every value is text: digits are Unix seconds, a ``+`` may have become a space."""
    if not isinstance(value, str):
        return value
    if _UNIX_SECONDS.fullmatch(value):
        return parse_timestamp(float(value))
    return parse_timestamp(_ZONE_AFTER_SPACE.sub(r"\1+\2", value))


QueryTime = Annotated[Timestamp, BeforeValidator(query_timestamp)]
Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Facet = Annotated[tuple[ShortText, ...], Field(max_length=MAX_VALUES)]


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


SearchText = Annotated[ShortText, AfterValidator(_not_blank)]
"""What a customer types into a search box."""

Strategy = Literal["blended", "style", "generated", "trending"]


class FilterQuery(BaseModel):
    """Which articles may be answered. Of several values of one parameter any may match; parameters all have to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    category: Facet = Field((), description="Repeatable. Only articles of one of these categories (case is ignored).")
    brand: Facet = Field((), description="Repeatable. Only articles of one of these brands.")
    colour: Facet = Field((), description="Repeatable. Only articles in one of these colours.")
    gender: Facet = Field((), description="Repeatable. Only articles for one of these genders.")
    price_min: Price | None = Field(None, description="Only articles that cost at least this.")
    price_max: Price | None = Field(None, description="Only articles that cost at most this.")
    exclude: Annotated[tuple[Identifier, ...], Field(max_length=MAX_VALUES)] = Field(
        (), description="Repeatable. Articles never to answer."
    )

    @model_validator(mode="after")
    def _prices_leave_something(self) -> FilterQuery:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError("price_min: must not be above price_max")
        return self


class RecommendationQuery(FilterQuery):
    """Parameters of a request for recommendations."""

    n: int = Field(20, ge=1, le=MAX_RECOMMENDATIONS, description="Most articles to answer.")
    strategy: Strategy = Field(
        "blended",
        description="`blended` joins all that is known, with weights fitted at training; `style` is the customer's "
        "long-term taste alone; `trending` is what sold best in the last 7 days; `generated` is what follows from what "
        "the language model wrote last for the customer, or from the `query`, and where there is neither the blended "
        "answer. It needs a bundle with a generating half and is answered by 422 `generation_unavailable` without one.",
    )
    query: SearchText | None = Field(
        None,
        description="What the customer searches for right now, to which the answer leans. Has an effect on `blended` "
        "and `generated`, where the bundle has a generating half.",
    )
    exclude_purchased: bool = Field(
        True, description="Leave out what the customer has bought, returned purchases included."
    )
    at: QueryTime | None = Field(
        None,
        description="Recommend for this moment instead of now: ISO 8601 (UTC where it names no zone) or Unix seconds.",
    )
    wait_ms: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Longest to wait for a fresh generation, in ms; the answer then comes from what is there. Has an "
        "effect on `blended` and `generated`, where the bundle has a generating half.",
    )
    explain: bool = Field(False, description="Say how each score came about.")


class SimilarQuery(FilterQuery):
    """Parameters of a request for similar articles."""

    n: int = Field(20, ge=1, le=MAX_RECOMMENDATIONS, description="Most articles to answer.")


class SearchQuery(FilterQuery):
    """Parameters of a search."""

    q: SearchText = Field(description="What to search for.")
    n: int = Field(20, ge=1, le=MAX_RECOMMENDATIONS, description="Most articles to answer.")


class ErrorBody(BaseModel):
    """What went wrong. ``type`` is for programs and stable, ``message`` is for people and may change."""

    type: str
    message: str
    field: str | None = Field(None, description="The parameter or field at fault; absent where there is none.")


class ErrorAnswer(BaseModel):
    """The one shape of all errors."""

    error: ErrorBody


class EventIn(BaseModel):
    """One event. A search carries `query`, every other type `article_id`."""

    event_id: Identifier | None = Field(
        None, description="Makes sending it again harmless. Without one the service makes one, and cannot tell repeats."
    )
    type: EventType
    customer_id: Identifier
    article_id: Identifier | None = None
    query: ShortText | None = None
    timestamp: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | float | None = Field(
        None, description="ISO 8601 or Unix seconds, at most a day ahead. Without one: now."
    )
    order_id: Identifier | None = None
    position: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class RejectionBody(ErrorBody):
    """Why one entry of an array was not taken."""


class Rejection(BaseModel):
    """One entry that was not taken; all others were."""

    index: int = Field(description="Place in the array that was sent, from 0.")
    error: RejectionBody


class EventsAnswer(BaseModel):
    """What became of the events. Accepted ones are stored and count in the very next answer."""

    accepted: int
    duplicates: int = Field(description="Events whose event_id was stored before; they change nothing.")
    rejected: list[Rejection]


class ArticleIn(Article):
    """One article, new or changed."""

    image: LongText | None = Field(
        None,
        description="The picture: base64 (a data: URL is fine too), or a path under the catalogue's image root.",
    )


class StockIn(BaseModel):
    """Stock of one article."""

    article_id: Identifier
    quantity: int = Field(ge=0)
    set_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | float | None = Field(
        None, description="When this was true; a level older than the stored one is ignored. Without one: now."
    )


class BatchAnswer(BaseModel):
    """What became of an array of articles or stock levels."""

    accepted: int
    rejected: list[Rejection]


class ScoreExplanation(BaseModel):
    """The parts that a score may be made of; which of them count depends on the strategy and on what is known."""

    style: float | None = Field(description="Fashion DNA times style, f·d.")
    popularity: float | None = Field(description="The component of Fashion DNA that tells how much an article sold.")
    popularity_weight: float = Field(description="What the blended ranking adds to that component's weight in f·d.")
    session: float | None = Field(description="Fashion DNA times the mean Fashion DNA of what was clicked lately.")
    recent_sales: float = Field(description="Sales less returns of the last 7 days.")
    trend: float = Field(description="log(1 + recent sales).")
    trend_weight: float = Field(description="The bundle's weight of the trend in the blended ranking.")
    best_seller: float = Field(description="Worth of the place among the ten best sellers in stock: 1 for the first.")
    best_sellers_weight: float = Field(description="The bundle's weight of that in the blended ranking.")
    bought_before: float = Field(
        description="Worth of the place among what the customer bought, as far as it may be shown again: 1 for the "
        "latest."
    )
    bought_before_weight: float = Field(description="The bundle's weight of that in the blended ranking.")
    generated: float = Field(
        description="Worth of the place in the list that what was generated gives (`sources.generated`): 1 for the "
        "first, 0 beyond the 200th."
    )
    generated_weight: float = Field(description="The bundle's weight of that in the blended ranking.")
    generated_id_rank: int | None = Field(description="Place in the list by id embeddings, as far as that counts.")
    generated_title_rank: int | None = Field(description="Place in the list by title embeddings.")


class Generation(BaseModel):
    """What the language model wrote for a customer."""

    article_id: str = Field(description="The model's word: perhaps of no article at all.")
    title: str
    bundle: str = Field(description="The bundle whose language model wrote it: version and fingerprint.")
    session_length: int = Field(description="Actions of the customer that it read.")
    written_at: float = Field(description="Unix seconds.")
    seconds: float = Field(description="From reading the customer's events to the written text.")


class CountedGeneration(Generation):
    """A generation that takes part in an answer."""

    freshness: Literal["fresh", "stale"]


class Explanation(BaseModel):
    """What was known of the customer."""

    at: int = Field(description="The moment that was recommended for, in Unix seconds.")
    cold: bool = Field(description="Whether no purchase is known.")
    purchases: int = Field(description="Distinct articles in the history.")
    session_events: int
    session_counts: bool = Field(description="Whether clicks adapted the ranking, as they do for cold customers.")
    generation: CountedGeneration | None = Field(
        description="What was generated and takes part; null where nothing was, or the strategy ignores it."
    )


class RankedArticle(BaseModel):
    """One recommended article. What is unknown about it is null."""

    article_id: str
    title: str
    category: str
    brand: str | None
    colour: str | None
    price: float | None
    image: str | None = Field(description="Path of the picture under the catalogue's image root.")
    score: float = Field(description="Comparable within one answer only.")
    sources: dict[str, int] = Field(
        description="Which lists named the article, and at which place, from 1: `style`, `session`, `trending`, "
        "`best_sellers`, `bought_before`, `generated` or `catalogue`."
    )
    explain: ScoreExplanation | None = Field(None, description="There only where `explain` was asked for.")


class Recommendations(BaseModel):
    """Articles for one customer, best first; all in stock at the moment of the answer."""

    customer_id: str
    bundle: str
    strategy: Strategy
    degraded: bool = Field(description="Redis could not be asked: this is answered from memory and may be out of date.")
    generation: Literal["fresh", "stale", "none"] = Field(
        description="Whether what a language model generated takes part: `fresh` reflects all that the customer did, "
        "and the `query` where there is one; `stale` was written before their latest event, or by another bundle. "
        "`none` also where the `query` stands in for what is not written yet."
    )
    explain: Explanation | None = Field(None, description="There only where `explain` was asked for.")
    articles: list[RankedArticle]


class SimilarArticle(BaseModel):
    """One neighbour of an article."""

    article_id: str
    title: str
    category: str
    brand: str | None
    colour: str | None
    price: float | None
    image: str | None
    score: float = Field(description="Cosine of the two articles' Fashion DNA, -1 to 1.")


class SimilarArticles(BaseModel):
    """Articles in stock whose Fashion DNA points the same way, closest first."""

    article_id: str
    bundle: str
    articles: list[SimilarArticle]


class FoundArticle(BaseModel):
    """One article that a search found."""

    article_id: str
    title: str
    category: str
    brand: str | None
    colour: str | None
    price: float | None
    image: str | None
    score: float = Field(description="Cosine of the embeddings of query and title, -1 to 1.")


class FoundArticles(BaseModel):
    """Articles in stock whose titles are closest in meaning to a query, closest first."""

    query: str
    bundle: str
    articles: list[FoundArticle]


class BundleSummary(BaseModel):
    """One bundle of the store."""

    version: str
    live: bool = Field(description="Whether this worker answers from it.")
    created: str | None = None
    data_set: dict[str, Any] | None = Field(
        None, description="Name, fingerprint, cut-off and sizes of the training data."
    )
    metrics: dict[str, Any] | None = None
    error: str | None = Field(None, description="Why it cannot be read; absent where it can.")


class Replay(BaseModel):
    """How far states are replayed for the live bundle; customers who ask before have theirs replayed at once."""

    total: int = Field(description="Customers with purchases or returns.")
    done: int = Field(description="Those of them that have a state of the live bundle.")
    ended: bool


class Bundles(BaseModel):
    """All bundles of the store."""

    live: str | None
    bundles: list[BundleSummary]
    replay: Replay | None = Field(description="null where nothing was replayed yet, or Redis does not answer.")


class Activated(BaseModel):
    """The bundle that answers from now on."""

    bundle: str
    articles: int = Field(description="Articles of the live catalogue, encoded by it.")


class Health(BaseModel):
    """A probe's answer."""

    status: Literal["ok"]


class StoredEvent(BaseModel):
    """One event as it is stored."""

    event_id: str
    type: EventType
    article_id: str | None
    query: str | None
    timestamp: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    order_id: str | None
    position: int | None


class StoredPurchase(BaseModel):
    """One purchase that was kept."""

    event_id: str
    article_id: str
    timestamp: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    order_id: str | None


class StoredState(BaseModel):
    """What a bundle's style LSTM made of the history: a cache, derived from it again whenever it does not fit."""

    bundle: str = Field(description="The bundle that it fits: version and fingerprint.")
    consumed: int = Field(description="Purchases that the LSTM's memory has consumed.")
    pending: StoredPurchase | None = Field(description="The latest purchase, which enters the memory with the next.")
    skipped: list[str] = Field(description="Purchased articles that the bundle has no Fashion DNA for.")


class Customer(BaseModel):
    """All that is stored about a customer."""

    customer_id: str
    events: list[StoredEvent] = Field(description="Purchases and returns, oldest first.")
    history: list[StoredPurchase] = Field(description="Purchases that were not returned, oldest first.")
    returned: list[str] = Field(description="Articles that were returned; they are not recommended again.")
    session: list[StoredEvent] = Field(description="The latest clicks and searches, oldest first.")
    state: StoredState | None
    generation: Generation | None = Field(description="What the language model wrote last for the customer.")
    searching: Generation | None = Field(
        description="What it wrote last for a `query` of the customer, in the last hour."
    )
