from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.records import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    Article,
    Event,
    describe_validation_error,
    parse_timestamp,
)

ARTICLE = {"article_id": "a", "title": "Red dress", "category": "dress"}
EVENT = {"event_id": "e", "type": "purchase", "customer_id": "c", "article_id": "a", "timestamp": 1_700_000_000}


def fault(model: type, values: dict) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return describe_validation_error(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (1_700_000_000.9, 1_700_000_000),
        ("1970-01-02", 86_400),
        ("2026-05-28T20:26:40Z", 1_780_000_000),
        ("2026-05-28T22:26:40+02:00", 1_780_000_000),
        ("2026-05-28 20:26:40", 1_780_000_000),
        (datetime(2026, 5, 28, 20, 26, 40), 1_780_000_000),
        (datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC), 1_780_000_000),
        (LATEST_TIMESTAMP, LATEST_TIMESTAMP),
    ],
)
def test_times_are_read_as_unix_seconds_in_utc(value: object, seconds: int) -> None:
    assert parse_timestamp(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        "",
        "soon",
        "1700000000",
        -1,
        LATEST_TIMESTAMP + 1,
        float("nan"),
        float("inf"),
        1e300,
        [1],
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
    ],
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_timestamp(value)


@given(st.integers(EARLIEST_TIMESTAMP + 86_400, LATEST_TIMESTAMP - 86_400), st.integers(-23, 23))
def test_every_zone_tells_the_same_instant(seconds: int, hours: int) -> None:
    shifted = datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours)))
    assert parse_timestamp(shifted) == parse_timestamp(shifted.isoformat()) == seconds


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert EARLIEST_TIMESTAMP <= parse_timestamp(text) <= LATEST_TIMESTAMP


def test_the_smallest_article_knows_nothing_else() -> None:
    article = Article.model_validate(ARTICLE)
    assert (article.price, article.brand, article.tags, article.materials, article.image) == (None, None, (), {}, None)
    assert Article.model_validate_json(article.model_dump_json()) == article


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"article_id": ""}, "article_id", "at least 1 character"),
        ({"article_id": "x" * 129}, "article_id", "at most 128 characters"),
        ({"article_id": "a\nb"}, "article_id", "must not contain control characters"),
        ({"article_id": "\ud800"}, "article_id", ""),
        ({"title": ""}, "title", "at least 1 character"),
        ({"title": "bell\x07"}, "title", "must not contain control characters"),
        ({"price": 0}, "price", "greater than 0"),
        ({"price": float("nan")}, "price", "finite number"),
        ({"price": float("inf")}, "price", "finite number"),
        ({"materials": {"wool": 60, "silk": 41}}, "materials", "percentages add up to more than 100"),
        ({"materials": {"wool": -1}}, "materials.wool", "greater than or equal to 0"),
        ({"materials": {"wool": float("nan")}}, "materials.wool", "finite number"),
        ({"tags": ["ok", ""]}, "tags.1", "at least 1 character"),
        ({"created_at": "yesterday"}, "created_at", "must be ISO 8601"),
        ({"weight": 3}, "weight", "not permitted"),
    ],
)
def test_a_wrong_article_is_told_by_its_field(change: dict, field: str, message: str) -> None:
    found, told = fault(Article, {**ARTICLE, **change})
    assert found == field
    assert message in told


def test_line_breaks_in_texts_become_spaces() -> None:
    article = Article.model_validate({**ARTICLE, "title": "Red\n\tdress", "description": "long\r\nand wide"})
    assert (article.title, article.description) == ("Red dress", "long and wide")


def test_materials_may_add_up_to_a_rounding_error_above_100() -> None:
    assert Article.model_validate({**ARTICLE, "materials": {"wool": 50.2, "silk": 50.2}}).materials["wool"] == 50.2


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"type": "wish"}, "type", "'purchase', 'click', 'search' or 'return'"),
        ({"article_id": None}, "article_id", "a purchase needs one"),
        ({"type": "click", "query": "red"}, "query", "a click has none"),
        ({"type": "search"}, "query", "a search needs one"),
        ({"type": "search", "query": "red"}, "article_id", "a search has none"),
        ({"type": "search", "article_id": None, "query": ""}, "query", "at least 1 character"),
        ({"customer_id": "\x00"}, "customer_id", "control characters"),
        ({"timestamp": "2026-13-01"}, "timestamp", "must be ISO 8601"),
        ({"position": 0}, "position", "greater than or equal to 1"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_a_wrong_event_is_told_by_its_field(change: dict, field: str, message: str) -> None:
    found, told = fault(Event, {**EVENT, **change})
    assert found == field
    assert message in told


def test_a_search_carries_a_query_and_no_article() -> None:
    event = Event.model_validate({**EVENT, "type": "search", "article_id": None, "query": "red  dress"})
    assert (event.query, event.article_id) == ("red  dress", None)
