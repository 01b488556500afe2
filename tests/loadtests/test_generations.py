from __future__ import annotations

import asyncio

from loadtests.generations import measure
from model_store.language_model import Written
from model_store.prompts import Prompt
from offline.progress import Console


def test_all_is_written_so_many_at_once_and_what_does_not_parse_is_counted() -> None:
    texts = {
        1: Written("{<id>a1</id>,<title>Coat</title>}", 9, False),
        2: Written("{<id>z9</id>,<title>Coat</title>}", 9, False),
        3: Written("no article at all", 4, False),
        4: Written("{<id>a1</id>,<title>Co", 5, True),
    }
    prompts = [Prompt("", (number,), 1) for number in (1, 2, 3, 4, 1)]
    running, most = 0, 0

    async def write(prompt: Prompt) -> Written:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return texts[prompt.token_ids[0]]

    figures = asyncio.run(measure(write, prompts, {"a1"}, 2, Console()))
    assert most == 2
    assert (figures["generations"], figures["unparseable"], figures["cut_off"]) == (5, 1, 1)
    assert figures["in_catalogue"] == 3 / 5
    assert figures["prompt_tokens_mean"] == 1
    assert figures["latency_ms"]["p50"] >= 1
