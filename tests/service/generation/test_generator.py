"""One request from events to what is stored: real stores, prompts and tokens; only the writing is scripted."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle, sample_articles
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.bundle import Bundle
from model_store.prompts import PromptWriter, response_text
from model_store.records import Event
from service.catalogue.memory_store import MemoryCatalogue
from service.catalogue.records import StockLevel, StoredArticle
from service.errors import LanguageModelUnavailable, PromptRefused, StoreUnavailable
from service.generation.generator import TELL_AGAIN, Done, Generator, Scribe
from service.generation.prompting import Prompting, open_prompting
from service.generation.queue import Outcome
from service.generation.records import GenerationRequest, session_mark, view_mark
from service.generation.text import Written
from service.state.customer import Addition
from service.state.memory_store import MemoryStore

NOW = 1_780_000_000.0
ARTICLES = [one.article for one in sample_articles(60)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles"), generating=True)


@pytest.fixture(scope="module")
def prompting(bundle: Bundle) -> Prompting:
    return open_prompting(bundle)


@dataclass
class Text:
    """A language model that writes what it is told, and remembers what it was asked."""

    writes: Callable[[], Written] = lambda: Written(response_text(ARTICLES[7]), 9, False)
    before: Callable[[], Any] = lambda: asyncio.sleep(0)
    prompts: list[tuple[int, ...]] = field(default_factory=list)

    async def write(self, prompt: Sequence[int]) -> Written:
        self.prompts.append(tuple(prompt))
        await self.before()
        return self.writes()

    async def ready(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass
class Shop:
    """Stores with sixty articles, and a generator over them whose clock a test sets."""

    prompting: Prompting
    text: Text
    customers: MemoryStore
    catalogue: MemoryCatalogue
    now: float = NOW

    @property
    def scribe(self) -> Scribe:
        return Scribe(self.prompting, self.text)

    @property
    def prompt(self) -> str:
        """The prompt that was written last."""
        return self.prompting.tokenizer.decode(self.text.prompts[-1])

    async def generate(self, customer_id: str = "c", query: str | None = None, **how: Any) -> Done:
        generator = Generator(self.customers, self.catalogue, lambda: self.now, **how)
        return await generator.generate(self.scribe, GenerationRequest(customer_id, query))

    async def tell(self, *events: Event) -> None:
        for event in events:
            await self.customers.append(Addition(event.customer_id, (event,)))

    async def sell_out(self, *article_ids: str) -> None:
        await self.catalogue.set_stock([StockLevel(article_id, 0, 5) for article_id in article_ids])


@pytest.fixture
async def shop(prompting: Prompting) -> Shop:
    return await open_shop(prompting)


async def open_shop(prompting: Prompting) -> Shop:
    catalogue = MemoryCatalogue()
    await catalogue.upsert(
        [StoredArticle(article, "0" * 64) for article in ARTICLES], "none", np.zeros((60, 128), np.float32)
    )
    return Shop(prompting, Text(), MemoryStore(), catalogue)


def event(number: int, kind: str = "click", customer_id: str = "c", **changes: Any) -> Event:
    subject = {"query": "red coat"} if kind == "search" else {"article_id": f"a{number % 60:03}"}
    fields = {"event_id": f"{kind}{number}", "type": kind, "customer_id": customer_id, "timestamp": 1_000 + number}
    return Event.model_validate({**fields, **subject, **changes})


def candidates(prompt: str) -> list[str]:
    found = re.search(r"Candidate product ids:\[(.*?)\]", prompt)
    assert found is not None
    return [each for each in found[1].split(",") if each]


async def test_what_was_written_is_kept_with_what_it_reflects(shop: Shop) -> None:
    await shop.tell(event(1, "purchase"), event(2, "search"), event(3))

    async def three_seconds() -> None:
        shop.now += 3

    shop.text.before = three_seconds
    done = await shop.generate()
    assert done.outcome is Outcome.WRITTEN
    assert done.seconds is not None
    view, log = await shop.customers.read("c"), await shop.customers.read_log("c")
    generation = view.generation
    assert generation is not None
    assert (generation.article_id, generation.title) == ("a007", ARTICLES[7].title)
    assert (generation.written_at, generation.seconds, generation.session_length) == (NOW + 3, 3, 3)
    assert generation.bundle == shop.prompting.bundle
    assert generation.mark == session_mark(log.revision, view.session)
    assert await shop.customers.read_searching("c") is None


async def test_the_prompt_tells_log_and_session_in_order_less_what_was_returned(shop: Shop) -> None:
    await shop.tell(
        event(1, "purchase"), event(9), event(3, "search"), event(4, "purchase"), event(5, "return", article_id="a004")
    )
    await shop.generate()
    told = [*re.finditer(r"(purchase|click) product|search keyword", shop.prompt)]
    assert [match[1] for match in told] == ["purchase", None, "click"]
    assert f'"title": "{ARTICLES[1].title}"' in shop.prompt
    assert '"id": "a004"' not in shop.prompt


async def test_deleted_articles_stay_in_the_session_and_out_of_the_candidates(shop: Shop) -> None:
    query = f"{ARTICLES[3].colour} {ARTICLES[3].category}"
    await shop.tell(event(3), event(4, "search", query=query))
    await shop.generate()
    before = candidates(shop.prompt)
    assert "a003" in before
    await shop.catalogue.delete("a003")
    await shop.sell_out(before[-1])
    await shop.tell(event(5))
    await shop.generate()
    assert '"id": "a003"' in shop.prompt
    assert not {"a003", before[-1]} & set(candidates(shop.prompt))


@pytest.mark.parametrize("sold_out", [0, 5, 20, 40, 59, 60])
async def test_candidates_are_those_of_training_whatever_is_in_stock(shop: Shop, sold_out: int) -> None:
    """What the memory gives when it is asked about every article, as training asks it."""
    rng = np.random.default_rng(sold_out)
    gone = {f"a{number:03}" for number in rng.permutation(60)[:sold_out]}
    await shop.sell_out(*gone)
    spec, memory = shop.prompting.spec, shop.prompting.memory
    for number, query in enumerate(memory.queries):
        await shop.tell(event(number, "search", query=query))
        done = await shop.generate()
        assert done.outcome is Outcome.WRITTEN
        (key,) = shop.prompting.query_encoder.encode([query])
        expected = memory.candidates(key, spec.nearest_queries, spec.top_articles, lambda each: each not in gone)
        assert candidates(shop.prompt) == expected


async def test_a_bundle_may_tell_no_attributes_and_name_no_candidates(prompting: Prompting) -> None:
    spec = prompting.spec.model_copy(update={"top_articles": 0})
    spec = spec.model_copy(update={"prompt": spec.prompt.model_copy(update={"attributes": ()})})
    writer = PromptWriter(spec.prompt, prompting.tokenizer)
    shop = await open_shop(replace(prompting, spec=spec, writer=writer))
    await shop.tell(event(3), event(4, "search", query=prompting.memory.queries[0]))
    assert (await shop.generate()).outcome is Outcome.WRITTEN
    assert f'{{"id": "a003", "title": "{ARTICLES[3].title}"}}' in shop.prompt
    assert candidates(shop.prompt) == []


async def test_a_query_is_what_is_searched_last_and_kept_apart(shop: Shop) -> None:
    await shop.tell(event(1), event(2, "search", query="blue jeans"))
    assert (await shop.generate(query="red coat")).outcome is Outcome.WRITTEN
    assert shop.prompt.index("blue jeans") < shop.prompt.index("search keyword <red coat>")
    view, searching = await shop.customers.read("c"), await shop.customers.read_searching("c")
    assert view.generation is None
    assert searching is not None
    assert searching.session_length == 3
    assert searching.mark == view_mark(view, "red coat")
    assert (await shop.generate(query="red coat")).outcome is Outcome.FRESH
    assert (await shop.generate(query="blue jeans")).outcome is Outcome.WRITTEN
    assert shop.prompt.count("blue jeans") == 1  # it was the last search anyway


async def test_what_is_fresh_is_not_written_again(shop: Shop) -> None:
    await shop.tell(event(1))
    assert (await shop.generate()).outcome is Outcome.WRITTEN
    assert (await shop.generate()) == Done(Outcome.FRESH)
    assert len(shop.text.prompts) == 1
    await shop.tell(event(2))
    assert (await shop.generate()).outcome is Outcome.WRITTEN


async def test_another_bundle_writes_anew(shop: Shop, tmp_path: Path) -> None:
    await shop.tell(event(1))
    await shop.generate()
    shop.prompting = open_prompting(make_bundle(tmp_path, version="test-2", generating=True))
    assert (await shop.generate()).outcome is Outcome.WRITTEN
    view = await shop.customers.read("c")
    assert view.generation is not None
    assert view.generation.bundle.startswith("test-2@")


@pytest.mark.parametrize("query", [None, "red coat"])
async def test_of_nobody_there_is_nothing_to_say(shop: Shop, query: str | None) -> None:
    assert (await shop.generate("nobody", query)) == Done(Outcome.NOTHING_TO_SAY)
    await shop.tell(event(1, "purchase"), event(2, "return", article_id="a001"))
    assert (await shop.generate()).outcome is Outcome.NOTHING_TO_SAY
    await shop.tell(event(3, article_id="never seen"))
    assert (await shop.generate()).outcome is Outcome.NOTHING_TO_SAY
    assert shop.text.prompts == []


@pytest.mark.parametrize("query", [None, "red coat"])
@pytest.mark.parametrize("before", [[event(1)], [event(1, "purchase")], [event(1), event(1, "purchase")]])
@pytest.mark.parametrize("after", [[], [event(9)], [event(9, "purchase")], [event(9), event(9, "purchase")]])
async def test_an_erase_while_it_is_written_leaves_nothing(
    shop: Shop, query: str | None, before: list[Event], after: list[Event]
) -> None:
    """Not even where somebody else has come under the same id."""
    await shop.tell(*before)

    async def erase() -> None:
        await shop.customers.erase("c")
        await shop.tell(*after)

    shop.text.before = erase
    assert (await shop.generate(query=query)).outcome is Outcome.TOO_LATE
    assert ((await shop.customers.read("c")).generation, await shop.customers.read_searching("c")) == (None, None)


async def test_the_slower_of_two_generators_does_not_win_with_the_older_session(shop: Shop) -> None:
    await shop.tell(event(1))

    async def meanwhile() -> None:
        """Another generator reads more, and is done first."""
        shop.text.before = lambda: asyncio.sleep(0)
        shop.now += 1
        await shop.tell(event(2))
        assert (await shop.generate()).outcome is Outcome.WRITTEN
        shop.now += 5

    shop.text.before = meanwhile
    assert (await shop.generate()).outcome is Outcome.TOO_LATE
    generation = (await shop.customers.read("c")).generation
    assert generation is not None
    assert generation.session_length == 2


@pytest.mark.parametrize("text", ["", "rubbish", "{<id>a001</id>,<title></title>}", "{<id>a b</id>,<title>t</title>}"])
async def test_rubbish_is_counted_and_not_kept(shop: Shop, text: str) -> None:
    await shop.tell(event(1))
    shop.text.writes = lambda: Written(text, 9, False)
    assert (await shop.generate()).outcome is Outcome.UNPARSEABLE
    assert (await shop.customers.read("c")).generation is None


async def test_rubbish_is_logged_seldom(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.text.writes = lambda: Written("rubbish", 9, False)
    generator = Generator(shop.customers, shop.catalogue, lambda: shop.now)

    async def rubbish(times: int) -> list[str]:
        caplog.clear()
        for _ in range(times):
            assert (await generator.generate(shop.scribe, GenerationRequest("c"))).outcome is Outcome.UNPARSEABLE
        return [record.getMessage() for record in caplog.records]

    await shop.tell(event(1))
    assert len(await rubbish(3)) == 1
    shop.now += TELL_AGAIN
    (line,) = await rubbish(1)
    assert line.endswith("cannot be parsed: 3 since this was said")


async def test_what_was_cut_off_is_read_as_far_as_it_goes(shop: Shop) -> None:
    await shop.tell(event(1))
    shop.text.writes = lambda: Written("{<id>a001</id>,<title>Breezy strip", 64, True)
    assert (await shop.generate()).outcome is Outcome.WRITTEN
    generation = (await shop.customers.read("c")).generation
    assert generation is not None
    assert generation.title == "Breezy strip"


async def test_a_language_model_that_is_away_is_told(shop: Shop) -> None:
    await shop.tell(event(1))

    async def away() -> None:
        raise LanguageModelUnavailable("down")

    shop.text.before = away
    with pytest.raises(LanguageModelUnavailable, match="down"):
        await shop.generate()
    assert (await shop.customers.read("c")).generation is None


async def test_a_prompt_that_is_refused_is_not_tried_again(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.tell(event(1))

    async def refuse() -> None:
        raise PromptRefused("longer than the model reads")

    shop.text.before = refuse
    assert await shop.generate() == Done(Outcome.REFUSED)
    assert "refuses a prompt: longer than the model reads" in caplog.text


async def test_a_store_that_is_down_is_told(shop: Shop) -> None:
    class Down(MemoryStore):
        async def read_log(self, customer_id: str) -> Any:
            raise StoreUnavailable("down")

    shop.customers = Down()
    with pytest.raises(StoreUnavailable):
        await shop.generate()


async def test_logs_hold_no_prompt_unless_asked(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.tell(event(1), event(2, "search", query="secret wish"))
    with caplog.at_level(logging.DEBUG):
        await shop.generate("c")
        shop.text.writes = lambda: Written("no, but secret wish", 4, False)
        await shop.tell(event(3))
        await shop.generate()
        await shop.generate(query="secret wish 2")
    assert "secret wish" not in caplog.text
    assert ARTICLES[1].title not in caplog.text
    with caplog.at_level(logging.DEBUG):
        await shop.generate(log_prompts=True)
    assert "search keyword <secret wish>" in caplog.text


@settings(max_examples=20)
@given(
    st.text("0123456789abcdefXYZ-", min_size=12, max_size=40).map("customer ".__add__),
    st.lists(st.tuples(st.sampled_from(["click", "search", "purchase", "return"]), st.integers(0, 59)), min_size=1),
    st.sampled_from([None, "red coat"]),
)
def test_no_prompt_holds_a_customers_id(
    prompting: Prompting, customer_id: str, steps: list[tuple[str, int]], query: str | None
) -> None:
    async def run() -> None:
        shop = await open_shop(prompting)
        for place, (kind, number) in enumerate(steps):
            more = {"event_id": f"{customer_id} {place}", "timestamp": place, "order_id": f"{customer_id} order"}
            await shop.tell(event(number, kind, customer_id, **more))
        await shop.generate(customer_id, query)
        assert all(customer_id not in prompting.tokenizer.decode(prompt) for prompt in shop.text.prompts)

    asyncio.run(run())
