from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import tiny_language_model
from tiny_shops import DAY, START, tiny_shop

from model_store.dataset import DataSet, DataSetFile, write_data_set_file
from model_store.generation import QueryMemory
from model_store.generation_spec import GenerationSpec, LanguageModelCard
from model_store.prompts import ATTRIBUTES, PromptSpec, PromptWriter, parse_response
from model_store.records import Event, EventType
from model_store.sessions import latest_query, session_actions, session_events
from model_store.tables import ARTICLES, AVAILABILITY, EVENTS, TableWriter
from model_store.tokens import Tokenizer
from offline.sequences import Example, Prompts, Tokenised, find_examples

ARTICLE_IDS = ["a0", "a1", "a2", "a3", "rare", "x" * 49]
CARD = LanguageModelCard(base="tiny", stand_in=True, architecture="LlamaForCausalLM", parameters=1)


def shop(folder: Path, rows: Sequence[tuple], stock: dict[str, tuple[float, float]] | None = None) -> DataSet:
    """A data set of ARTICLE_IDS from (type, customer, article or query, day, order_id?) rows, in that file order.

    All is in stock throughout, but for what ``stock`` says and for "rare", which never was.
    """
    folder.mkdir(parents=True)
    write_data_set_file(folder, DataSetFile(name="shop", synthetic=True))
    with TableWriter(folder, ARTICLES) as writer:
        titles = [f"thing {name[:4]}" for name in ARTICLE_IDS]
        writer.write({"article_id": ARTICLE_IDS, "title": titles, "category": ["x"] * len(ARTICLE_IDS)})
    with TableWriter(folder, EVENTS) as writer:
        writer.write(
            {
                "event_id": [f"e{index:02d}" for index in range(len(rows))],
                "type": [row[0] for row in rows],
                "customer_id": [row[1] for row in rows],
                "article_id": [None if row[0] == "search" else row[2] for row in rows],
                "query": [row[2] if row[0] == "search" else None for row in rows],
                "timestamp": [START + int(row[3] * DAY) for row in rows],
                "order_id": [row[4] if len(row) > 4 else None for row in rows],
            }
        )
    lasting = {name: (0, 1_000) for name in ARTICLE_IDS if name != "rare"} | (stock or {})
    with TableWriter(folder, AVAILABILITY) as writer:
        writer.write(
            {
                "article_id": list(lasting),
                "from": [START + int(low * DAY) for low, _ in lasting.values()],
                "to": [START + int(high * DAY) for _, high in lasting.values()],
            }
        )
    return DataSet.open(folder)


def found(
    data: DataSet, since: float = 0, until: float = 100, *, actions: int = 10, most: int | None = None, seed: int = 0
) -> list[Example]:
    return find_examples(
        data,
        START + int(since * DAY),
        START + int(until * DAY),
        actions=actions,
        most=most,
        rng=np.random.default_rng(seed),
    )


def told(example: Example) -> list[tuple[str, str]]:
    return [(event.type.value, event.article_id or event.query or "") for event in example.events]


def test_an_order_is_foretold_by_what_came_strictly_before_its_first_purchase(tmp_path: Path) -> None:
    data = shop(
        tmp_path / "shop",
        [
            ("purchase", "c", "a1", 3, "o1"),
            ("search", "c", "blue thing", 1),
            ("click", "c", "a2", 2),
            ("click", "c", "a3", 3),  # at that very moment: too late
            ("click", "c", "a3", 3.5),  # while the order goes on
            ("purchase", "c", "a1", 4, "o1"),
            ("search", "d", "of somebody else", 2),
        ],
    )
    (example,) = found(data)
    assert (example.customer_id, example.time, example.target) == ("c", START + 3 * DAY, 1)
    assert told(example) == [("search", "blue thing"), ("click", "a2")]


def test_an_order_is_an_order_id_or_else_a_moment(tmp_path: Path) -> None:
    data = shop(
        tmp_path / "shop",
        [
            ("search", "c", "q", 1),
            ("purchase", "c", "a0", 2),
            ("purchase", "c", "a1", 2),  # the same moment, the same order
            ("purchase", "c", "a2", 2, "o"),  # an order of its own by its id
            ("purchase", "c", "a3", 5, "o"),
            ("purchase", "c", "a3", 6),
        ],
    )
    examples = found(data)
    assert [(example.time - START) / DAY for example in examples] == [2, 2, 6]
    assert examples[0].target in {0, 1}
    assert examples[1].target in {2, 3}
    assert told(examples[2]) == [("search", "q"), *[("purchase", name) for name in ("a0", "a1", "a2", "a3")]]


def test_every_article_of_an_order_is_a_target_for_some_seed(tmp_path: Path) -> None:
    rows = [("search", "c", "q", 1), *[("purchase", "c", name, 2, "o") for name in ("a0", "a1", "a2")]]
    data = shop(tmp_path / "shop", rows)
    assert {found(data, seed=seed)[0].target for seed in range(30)} == {0, 1, 2}


def test_clicks_on_the_target_are_left_out_and_its_earlier_purchase_is_not(tmp_path: Path) -> None:
    data = shop(
        tmp_path / "shop",
        [
            ("purchase", "c", "a1", 0),
            ("click", "c", "a1", 1),
            ("click", "c", "a2", 1.1),
            ("click", "c", "a1", 1.2),
            ("click", "c", "a2", 1.3),
            ("purchase", "c", "a1", 2),
        ],
    )
    (example,) = found(data)  # of day 0 there is none: nothing had happened before
    assert told(example) == [("purchase", "a1"), ("click", "a2")]


def test_a_customer_who_did_nothing_but_look_at_the_target_gives_no_example(tmp_path: Path) -> None:
    assert not found(shop(tmp_path / "a", [("click", "c", "a1", 1), ("purchase", "c", "a1", 2)]))
    bought = [("purchase", "c", "a0", 1), ("purchase", "c", "a1", 3)]
    assert not found(shop(tmp_path / "b", [*bought, ("return", "c", "a0", 2)])), "what was taken back is no session"
    assert len(found(shop(tmp_path / "c", bought))) == 1


def test_returns_count_from_when_they_were_known(tmp_path: Path) -> None:
    data = shop(
        tmp_path / "shop",
        [
            ("search", "c", "q", 0),
            ("purchase", "c", "a0", 1),
            ("purchase", "c", "a1", 2),
            ("return", "c", "a0", 3),
            ("purchase", "c", "a2", 4),
            ("return", "c", "a2", 9),
        ],
    )
    before = found(data, until=2.5)
    assert told(before[1]) == [("search", "q"), ("purchase", "a0")], "nobody knew at that moment that a0 would go back"
    late = found(data, until=8)
    assert [example.target for example in late] == [1, 2], "what goes back is no target, once that is known"
    assert told(late[1]) == [("search", "q"), ("purchase", "a1")]
    assert [example.target for example in found(data, until=10)] == [1]


@pytest.mark.parametrize("name", ["rare", "x" * 49])
def test_what_was_never_in_stock_or_cannot_be_written_is_no_target(tmp_path: Path, name: str) -> None:
    rows = [("search", "c", "q", 0), ("purchase", "c", name, 1, "o"), ("purchase", "c", "a2", 1, "o")]
    rows += [("purchase", "c", name, 2)]
    data = shop(tmp_path / "shop", rows, {"a3": (5, 9)})
    for seed in range(10):
        (example,) = found(data, seed=seed)
        assert example.target == 2
    gone = shop(tmp_path / "gone", [("search", "c", "q", 0), ("purchase", "c", "a3", 1)], {"a3": (5, 9)})
    assert not found(gone)


def test_the_window_is_half_open_and_nothing_at_its_end_is_read(tmp_path: Path) -> None:
    rows = [("search", "c", "q", 0), *[("purchase", "c", f"a{day}", day) for day in range(4)]]
    data = shop(tmp_path / "shop", rows)
    assert [example.target for example in found(data, since=1, until=3)] == [1, 2]
    cut = shop(tmp_path / "cut", rows[:-1])
    assert found(data, since=1, until=3) == found(cut, since=1, until=3)


def test_examples_do_not_depend_on_the_order_of_the_file_and_are_drawn_by_seed(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", customers=30)
    window = (START + 20 * DAY, START + 100 * DAY)
    everything = find_examples(data, *window, actions=5, most=None, rng=np.random.default_rng(1))
    assert [(one.customer_id, one.time) for one in everything] == sorted(
        (one.customer_id, one.time) for one in everything
    )
    drawn = find_examples(data, *window, actions=5, most=40, rng=np.random.default_rng(1))
    again = find_examples(data, *window, actions=5, most=40, rng=np.random.default_rng(1))
    other = find_examples(data, *window, actions=5, most=40, rng=np.random.default_rng(2))
    assert len(drawn) == 40
    assert drawn == again
    assert drawn != other
    assert {(one.customer_id, one.time) for one in drawn} < {(one.customer_id, one.time) for one in everything}


KINDS = st.sampled_from(["purchase", "click", "click", "search", "return"])


@given(
    rows=st.lists(st.tuples(KINDS, st.sampled_from(["a0", "a1", "a2"]), st.integers(0, 25)), min_size=20, max_size=90),
    actions=st.integers(1, 6),
)
@settings(max_examples=60)
def test_sessions_are_those_of_all_events_however_few_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], actions: int
) -> None:
    orders = [
        ("o" if number % 3 == 0 and row[0] in {"purchase", "return"} else None) for number, row in enumerate(rows)
    ]
    table = [(kind, "c", name, time / 8, order) for (kind, name, time), order in zip(rows, orders, strict=True)]
    data = shop(tmp_path_factory.mktemp("shop") / "shop", table)
    events = [
        Event(
            event_id=f"e{number:02d}",
            type=EventType(kind),
            customer_id="c",
            article_id=None if kind == "search" else name,
            query=name if kind == "search" else None,
            timestamp=START + int(day * DAY),
            order_id=order,
        )
        for number, (kind, _, name, day, order) in enumerate(table)
    ]
    for example in found(data, actions=actions):
        before = [event for event in events if event.timestamp < example.time]
        whole = session_events(before, actions, without_clicks_on=frozenset({data.article_ids[example.target]}))
        assert list(example.events) == whole


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.of_model(tiny_language_model(tmp_path_factory.mktemp("model"), "llama"))


def encode(texts: Sequence[str]) -> np.ndarray:
    """Queries of one direction each, by their first word."""
    return np.stack([np.eye(128, dtype=np.float32)[{"blue": 0, "red": 1}.get(text.split()[0], 2)] for text in texts])


def memory() -> QueryMemory:
    return QueryMemory(["blue thing", "red thing"], encode(["blue", "red"]), [["a3", "a1", "rare", "a0"], ["a2", "a0"]])


ROWS = [
    ("search", "c", "red hat", 1),
    ("click", "c", "a2", 2),
    ("search", "c", "blue hat", 3),
    ("click", "c", "a0", 4),
    ("purchase", "c", "a1", 5),
    ("purchase", "d", "a1", 5),
    ("click", "d", "a0", 4),
]


def prompts_of(data: DataSet, tokenizer: Tokenizer, spec: PromptSpec | None = None) -> Prompts:
    generation = GenerationSpec(prompt=spec or PromptSpec(), language_model=CARD, nearest_queries=1, top_articles=2)
    return Prompts(data, generation, tokenizer, memory(), encode)


def test_the_prompt_is_what_serving_writes_for_the_same_events(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The same events, put together by hand as the service does: no skew."""
    data = shop(tmp_path / "shop", ROWS)
    example = found(data)[0]
    articles = {article.article_id: article for article in data.articles()}
    events = [
        Event(event_id="1", type="search", customer_id="c", query="red hat", timestamp=START + DAY),
        Event(event_id="2", type="click", customer_id="c", article_id="a2", timestamp=START + 2 * DAY),
        Event(event_id="3", type="search", customer_id="c", query="blue hat", timestamp=START + 3 * DAY),
        Event(event_id="4", type="click", customer_id="c", article_id="a0", timestamp=START + 4 * DAY),
    ]
    actions = session_actions(session_events(events, 50), articles.get)
    candidates = memory().candidates(encode([latest_query(actions) or ""])[0], 1, 2, lambda name: name != "rare")
    served = PromptWriter(PromptSpec(), tokenizer).write(actions, candidates)
    assert prompts_of(data, tokenizer).prompt(example) == served
    assert "Candidate product ids:[a3,a1]." in served.text


def test_candidates_were_in_stock_at_that_moment(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = shop(tmp_path / "shop", ROWS, {"a3": (0, 4.9)})
    text = prompts_of(data, tokenizer).prompt(found(data)[0]).text
    assert "Candidate product ids:[a1,a0]." in text, (
        "the next ones in the list take the places of a3 and of what never was"
    )


def test_without_attributes_and_memory_a_prompt_has_none_and_is_the_same_else(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    data = shop(tmp_path / "shop", ROWS)
    bare = GenerationSpec(prompt=PromptSpec(attributes=()), language_model=CARD, nearest_queries=1, top_articles=0)
    text = Prompts(data, bare, tokenizer, memory(), encode).prompt(found(data)[0]).text
    full = prompts_of(data, tokenizer).prompt(found(data)[0]).text
    assert '{"id": "a0", "title": "thing a0"}' in text
    assert "Candidate product ids:[]." in text
    told = re.compile(r', "(category|brand|color|size|season|holiday|occasion)": "[^"]*"')
    assert len(told.findall(full)) == 2 * len(ATTRIBUTES)
    assert told.sub("", full).replace("ids:[a3,a1]", "ids:[]") == text


def test_without_a_search_there_are_no_candidates(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = shop(tmp_path / "shop", ROWS)
    example = found(data)[1]
    assert example.customer_id == "d"
    assert "Candidate product ids:[]." in prompts_of(data, tokenizer).prompt(example).text


def test_tokenised_prompts_fit_and_their_responses_name_the_target(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = shop(tmp_path / "shop", ROWS)
    spec = PromptSpec(max_tokens=1_024, response_tokens=64)
    prompts, examples = prompts_of(data, tokenizer, spec), found(data)
    tokenised = prompts.tokenise(examples)
    for example, one in zip(examples, tokenised, strict=True):
        assert one == Tokenised(prompts.prompt(example).token_ids, one.response)
        assert len(one.prompt) <= 1_024 - 64
        assert one.response[-1] == tokenizer.end
        assert parse_response(tokenizer.decode(one.response)).article_id == data.article_ids[example.target]


def test_each_query_is_encoded_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = shop(tmp_path / "shop", ROWS)
    asked: list[str] = []

    def counting(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return encode(texts)

    generation = GenerationSpec(prompt=PromptSpec(), language_model=CARD)
    prompts = Prompts(data, generation, tokenizer, memory(), counting)
    prompts.tokenise(found(data) * 3)
    prompts.prompt(found(data)[0])
    assert sorted(asked) == ["blue hat", "red hat"]
