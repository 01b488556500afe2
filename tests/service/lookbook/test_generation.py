"""What the page is told of what the language model read and wrote."""

from __future__ import annotations

from typing import Any

import pytest
from service_running import Shop, ids

from model_store.prompts import parse_response
from service.generation.prompting import open_prompting

from ..http.generating import RECORDS, come, write
from .asking import ask


@pytest.fixture
def generating() -> bool:
    return True


def listed(places: list[dict[str, Any]]) -> list[str]:
    assert [each["place"] for each in places] == list(range(1, len(places) + 1))
    return [each["article"]["article_id"] for each in places]


async def test_before_anything_was_written_the_prompt_is_there_already(shop: Shop) -> None:
    await come(shop)
    answer = await ask(shop, "/customers/c1/generation")
    assert (answer["available"], answer["written"], answer["by_title"]) == (True, None, [])
    kinds = [(each["type"], each["article"]["article_id"]) for each in answer["session"]]
    assert kinds == [("purchase", "a003"), ("click", "a011")]
    assert RECORDS["a011"].title in answer["prompt"]


async def test_the_prompt_is_the_generators_own(shop: Shop) -> None:
    await come(shop)
    await shop.tell({"type": "search", "customer_id": "c1", "query": "red dress"})
    services = shop.services
    prompting = open_prompting(services.live.bundle)
    events = [*(await services.customers.read_log("c1")).events, *(await services.customers.read("c1")).session]
    expected = await prompting.prompt(events, None, services.catalogue)
    assert expected is not None
    answer = await ask(shop, "/customers/c1/generation")
    assert (answer["prompt"], answer["tokens"]) == (expected.text, len(expected.token_ids))
    assert answer["candidates"]
    assert all(each in answer["prompt"] for each in answer["candidates"])


async def test_both_lists_are_shown_and_which_of_them_each_merged_place_comes_from(shop: Shop) -> None:
    await come(shop)
    await write(shop, "c1", "a010", RECORDS["a020"].title)
    answer = await ask(shop, "/customers/c1/generation")
    written = answer["written"]
    assert (written["article_id"], written["title"]) == ("a010", RECORDS["a020"].title)
    assert (written["freshness"], written["session_length"]) == ("fresh", 3)
    assert parse_response(written["text"]).article_id == "a010"
    by_id, by_title, mixup = (listed(answer[name]) for name in ("by_id", "by_title", "mixup"))
    assert answer["n"] == 1
    assert by_id[0] == "a010"
    assert mixup[0] == "a010"
    assert [each["from"] for each in answer["mixup"]] == ["id"] + ["title"] * 11
    expected = [each for each in by_title[1:] if each != "a010"]  # the paper: positions N + 1 … K of the title list
    assert mixup[1 : 1 + len(expected)] == expected
    assert mixup == ids(await shop.recommend("c1", strategy="generated", n=12))
    assert "a003" not in {*by_id, *by_title}  # bought


async def test_what_the_customer_did_since_makes_it_stale(shop: Shop) -> None:
    await come(shop)
    await write(shop, "c1", "a010", "Birch red dress")
    await shop.tell({"type": "click", "customer_id": "c1", "article_id": "a012"})
    assert (await ask(shop, "/customers/c1/generation"))["written"]["freshness"] == "stale"


async def test_a_query_alone_has_a_title_list(shop: Shop) -> None:
    await come(shop)
    answer = await ask(shop, "/customers/c1/generation", query="red dress")
    assert answer["written"] is None
    assert answer["by_id"] == []
    assert {each["from"] for each in answer["mixup"]} == {"title"}
    assert "red dress" in answer["prompt"]


async def test_nobody_has_nothing_to_read(shop: Shop) -> None:
    answer = await ask(shop, "/customers/nobody/generation")
    assert (answer["prompt"], answer["session"], answer["written"]) == (None, [], None)
