"""What models of text are told: words of articles, and searches that came before the moment, and nothing later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import DAY, START, make_run, write_shop

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.records import Article, Event, EventType
from model_store.sessions import session_events
from offline.baselines import FOLDER, questions, texts
from offline.baselines.asking import ask_with_texts, main
from offline.baselines.questions import Questions, Sequences
from offline.baselines.telling import attributes_of
from offline.baselines.texts import TextQuestions, Texts
from offline.evaluation.backtest import Options
from offline.hold_out import Protocol, training_data

Rows = list[tuple[str, str, float]]

ARTICLES = list("abcdefgh")
CUTOFF = START + 60 * DAY  # the validation window: the 5 days before
BOUGHT: Rows = [
    ("ann", "a", 1),
    ("ann", "b", 10),
    ("bob", "b", 8),
    ("bob", "c", 40),
    ("cid", "d", 41),
    ("cid", "c", 56),  # from here on in the validation window
    ("dan", "a", 57),
    ("ann", "d", 62),  # and from here on to be found
    ("bob", "d", 63),
    ("new", "a", 63),
]
SEARCHED: Rows = [
    ("ann", "Coat", 0.5),
    ("ann", "Coat", 0.6),  # the same in a row
    ("ann", "hat", 10),  # in the second of a purchase: behind it
    ("cid", "boots", 55.5),
    ("cid", "scarf", 56),  # at the moment itself: not before it
    ("cid", "scarf", 58),
    ("dan", "Coat", 56.5),
    ("eve", "skirt", 3),  # who never buys
    ("ann", "shirt", 61),
    ("new", "hat", 62),
]


def told(
    folder: Path, searches: Rows, protocol: Protocol = "by_time", bought: Rows = BOUGHT
) -> tuple[Questions, Texts, DataSet]:
    data = write_shop(folder / "shop", ARTICLES, bought, searches=searches)
    run = make_run(folder / "run", training_data(data, protocol), CUTOFF, hold_out=protocol)
    return *ask_with_texts(data, run, Options()), data


def named(data: DataSet, words: Texts, steps: Sequences) -> list[list[str]]:
    """Articles by their ids, searches as what was searched."""
    return [
        [data.article_ids[step] if step >= 0 else words.queries[~step] for step in steps[customer].tolist()]
        for customer in range(len(steps))
    ]


def test_searches_stand_among_purchases_in_order_of_time(tmp_path: Path) -> None:
    _, words, data = told(tmp_path, SEARCHED)
    assert named(data, words, words.training) == [["Coat", "a", "b", "hat"], ["b", "c"], ["d"]]
    assert named(data, words, words.everything) == [
        ["Coat", "a", "b", "hat"],
        ["b", "c"],
        ["d", "boots", "c", "scarf"],
        ["Coat", "a"],
    ]


def test_searches_count_up_to_the_moment_of_each_customer(tmp_path: Path) -> None:
    asked, words, data = told(tmp_path, SEARCHED)
    assert named(data, words, words.validation) == [["d", "boots"], ["Coat"]]
    assert asked.tests[0].customer_ids == ["ann", "bob", "new"]
    assert named(data, words, words.tests[0]) == [["Coat", "a", "b", "hat", "shirt"], ["b", "c"], ["hat"]]


def test_without_searches_steps_are_purchases_alone(tmp_path: Path) -> None:
    asked, words, _ = told(tmp_path, SEARCHED)
    plain = words.told(asked, searches=False)
    assert plain.training is asked.training
    assert plain.tests == asked.tests
    assert plain.queries == []
    with_searches = words.told(asked, searches=True)
    for steps, bought in (
        (with_searches.everything, asked.everything),
        (with_searches.validation.histories, asked.validation.histories),
        (with_searches.tests[0].histories, asked.tests[0].histories),
    ):
        for customer in range(len(bought)):
            assert steps[customer][steps[customer] >= 0].tolist() == bought[customer].tolist()


def test_steps_are_what_sessions_hold_less_clicks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = rng.permutation(80) / 2.0
    rows = [(f"c{rng.integers(3)}", str(rng.choice(ARTICLES)), time) for time in times[:40]]
    searches = [(f"c{rng.integers(3)}", str(rng.choice(["coat", "hat"])), time) for time in times[40:]]
    later = [("c0", "a", 58.0), ("c1", "a", 62.0)]
    _, words, data = told(tmp_path, searches, bought=[*rows, *later])
    for customer, steps in enumerate(named(data, words, words.training)):
        events = [
            Event.model_validate(
                {"event_id": f"{number:03}", "customer_id": who, "timestamp": START + int(day * DAY), **acted}
            )
            for number, (who, day, acted) in enumerate(
                [(who, day, {"type": "purchase", "article_id": what}) for who, what, day in rows]
                + [(who, day, {"type": "search", "query": what}) for who, what, day in searches]
            )
            if who == f"c{customer}"
        ]
        session = session_events(events, 1_000)
        assert [event.query if event.type is EventType.SEARCH else event.article_id for event in session] == steps


def later_differ() -> tuple[Rows, Rows]:
    return [*SEARCHED, ("bob", "hat", 63)], [
        *SEARCHED,
        ("bob", "zebra", 63),
        ("ann", "zebra", 62.5),
        ("eve", "gown", 1),
    ]


def ends_differ() -> tuple[Rows, Rows]:
    """Searches at the moment of what is to be found, and later."""
    return SEARCHED, [*SEARCHED, ("ann", "zebra", 62), ("bob", "zebra", 63), ("cid", "zebra", 59)]


@pytest.mark.parametrize(
    ("protocol", "searches"),
    [("by_time", later_differ), ("last_order", ends_differ), ("last_purchase", ends_differ)],
)
def test_what_is_searched_later_leaves_no_trace(
    tmp_path: Path, protocol: Protocol, searches: Callable[[], tuple[Rows, Rows]]
) -> None:
    found = [told(tmp_path / str(number), rows, protocol) for number, rows in enumerate(searches())]
    one, other = (replace(words.told(asked, searches=True), about=about(asked)).digest for asked, words, _ in found)
    assert one == other


def about(asked: Questions) -> questions.About:
    return replace(asked.about, fingerprint="")


def test_what_led_to_the_held_out_order_is_asked_with_but_not_trained_on(tmp_path: Path) -> None:
    asked, words, data = told(tmp_path, SEARCHED, "last_order")
    test = dict(zip(asked.tests[0].customer_ids, named(data, words, words.tests[0]), strict=True))
    assert test["ann"] == ["Coat", "a", "b", "hat", "shirt"]
    assert test["cid"] == ["d", "boots"]
    assert named(data, words, words.everything)[0] == ["Coat", "a", "b", "hat"]


def test_articles_are_told_by_the_words_of_prompts() -> None:
    article = Article(article_id="7", title='Red "Linen"  dress', category="Dress", colour="red", season="summer")
    assert attributes_of(article) == {
        "title": "Red 'Linen' dress",
        "category": "Dress",
        "color": "red",
        "season": "summer",
    }
    assert list(attributes_of(article)) == ["title", "category", "color", "season"]


def test_a_title_of_which_nothing_is_legible_is_left_out() -> None:
    assert attributes_of(Article(article_id="7", title="\u200b", category="Hat")) == {"category": "Hat"}
    assert attributes_of(Article(article_id="7", title="\u200b", category="\u200b")) == {}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    asked, words, _ = told(tmp_path, SEARCHED)
    texts.write(words, asked, tmp_path / "texts")
    found = texts.read(tmp_path / "texts", asked)
    for searches in (False, True):
        assert found.told(asked, searches=searches).digest == words.told(asked, searches=searches).digest


def test_the_digest_is_of_every_text(tmp_path: Path) -> None:
    asked, words, _ = told(tmp_path, SEARCHED)
    one = words.told(asked, searches=True)
    others: list[TextQuestions] = [
        words.told(asked, searches=False),
        replace(one, queries=[*one.queries[:-1], "sandals"]),
        replace(one, articles=[*one.articles[:-1], {"title": "sandals"}]),
        replace(one, training=asked.training),
    ]
    assert len({each.digest for each in [one, *others]}) == 1 + len(others)


def test_texts_of_other_questions_are_refused(tmp_path: Path) -> None:
    asked, words, _ = told(tmp_path, SEARCHED)
    texts.write(words, asked, tmp_path / "texts")
    with pytest.raises(InvalidConfig, match="belong to other questions: 'make baselines' writes both anew"):
        texts.read(tmp_path / "texts", replace(asked, about=about(asked)))
    with pytest.raises(InvalidConfig, match="holds no texts: 'make baselines' writes them first"):
        texts.read(tmp_path / "nowhere", asked)


def test_the_command_writes_texts_beside_the_questions(tmp_path: Path) -> None:
    asked, words, data = told(tmp_path, SEARCHED)
    assert main(["--data", str(data.folder), "--run", str(tmp_path / "run")]) == 0
    found = texts.read(tmp_path / "run" / FOLDER / texts.FOLDER, asked)
    assert found.told(asked, searches=True).digest == words.told(asked, searches=True).digest


def test_a_shop_without_searches_tells_none(tmp_path: Path) -> None:
    asked, words, _ = told(tmp_path, [])
    assert words.queries == []
    assert words.training.article.tolist() == asked.training.article.tolist()
