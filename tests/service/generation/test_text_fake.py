"""What the fake does beyond the contract: delay, failure and rubbish as they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from model_store.prompts import UnparseableGeneration, parse_response
from service.errors import LanguageModelUnavailable
from service.generation.fake import FakeTextGenerator


async def test_without_more_words_it_writes_what_can_be_parsed() -> None:
    written = await FakeTextGenerator().write([1, 2])
    assert parse_response(written.text, cut_off=written.cut_off).article_id == "a000001"


async def test_it_remembers_its_prompts_and_fails_on_demand() -> None:
    fake = FakeTextGenerator(failure=LanguageModelUnavailable("gone"))
    for call in (fake.write([1]), fake.ready()):
        with pytest.raises(LanguageModelUnavailable, match="gone"):
            await call
    fake.failure = None
    await fake.ready()
    await fake.write([2, 3])
    assert fake.prompts == [(1,), (2, 3)]


async def test_it_writes_rubbish_too() -> None:
    written = await FakeTextGenerator(lambda prompt: "\0 no" * len(prompt)).write([1, 2])
    with pytest.raises(UnparseableGeneration):
        parse_response(written.text, cut_off=written.cut_off)


async def test_its_delay_is_waited_for() -> None:
    fake = FakeTextGenerator(delay=600.0)
    running = asyncio.create_task(fake.write([1]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (running.done(), fake.writing) == (False, 1)
    running.cancel()
    await asyncio.wait([running])
    assert fake.writing == 0
