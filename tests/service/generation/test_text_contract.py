"""What every TextGenerator does; held against the fake, the embedded language model and a real vLLM server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import pytest
from language_model_backends import TinyModel, tiny_folder, tiny_model, vllm_url

from model_store.language_model import Written
from model_store.prompts import RESPONSE_REGEX, parse_response
from service.errors import LanguageModelUnavailable, PromptRefused
from service.generation.embedded import EmbeddedTextGenerator
from service.generation.fake import FakeTextGenerator
from service.generation.text import TextGenerator, Writing
from service.generation.vllm import VllmTextGenerator

PATIENCE = 120.0  # seconds; the machine may be busy, and nothing here is timed
VLLM_PATIENCE = 600.0  # it needs two cores and gets what others leave
LIKELIEST = Writing(max_new_tokens=200, temperature=0.0)
ENDLESS = Writing(max_new_tokens=600, temperature=0.0, regex="[a-z ]{2000,3000}")
VLLM = pytest.param("vllm", marks=[pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(900)])


@dataclass
class Backend:
    """Makes generators of one kind, which are closed at the end; ``prompts`` are such as it takes."""

    make_one: Callable[[Writing], TextGenerator]
    prompts: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        self.made: list[TextGenerator] = []

    def make(self, writing: Writing = LIKELIEST) -> TextGenerator:
        self.made.append(self.make_one(writing))
        return self.made[-1]


@pytest.fixture(params=["fake", "embedded", VLLM])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    makers = {"fake": fake_backend, "embedded": embedded_backend, "vllm": vllm_backend}
    backend: Backend = makers[request.param]()
    yield backend
    for generator in backend.made:
        await generator.aclose()


def fake_backend() -> Backend:
    def make(writing: Writing) -> TextGenerator:
        delay = 600.0 if writing is ENDLESS else 0.0
        return FakeTextGenerator(fake_answer, delay=delay, max_new_tokens=writing.max_new_tokens)

    return Backend(make, [[number, 7] for number in range(6)])


def fake_answer(prompt: Sequence[int]) -> str:
    return f"{{<id>a{prompt[0]:06}</id>,<title>a jacket</title>}}"


def embedded_backend() -> Backend:
    model = tiny_model()
    return Backend(
        lambda writing: EmbeddedTextGenerator(model.embedded, model.llm, writing, timeout=PATIENCE), model.prompts(6)
    )


def vllm_backend() -> Backend:
    url, model = vllm_url(), TinyModel(tiny_folder("llama"), tiny_folder("llama"))
    return Backend(
        lambda writing: VllmTextGenerator(url, writing, model.tokenizer, timeout=VLLM_PATIENCE, concurrency=4),
        model.prompts(6),
    )


async def under_way(generator: TextGenerator, prompts: Sequence[Sequence[int]]) -> list[asyncio.Task[Written]]:
    """Writes that have begun and not ended: where some have ended, all are begun anew.

    A fast machine writes all 600 tokens in 0.07 s, and at times vLLM leaves this process no core for a second.
    """
    while True:
        running = [asyncio.create_task(generator.write(prompt)) for prompt in prompts]
        await asyncio.sleep(0.01)
        if not any(task.done() for task in running):
            return running
        await asyncio.gather(*running)


async def test_it_becomes_ready(backend: Backend) -> None:
    generator = backend.make()
    await generator.ready()
    await generator.ready()


async def test_at_temperature_0_the_same_prompt_gives_the_same_text(backend: Backend) -> None:
    generator = backend.make()
    first = [await generator.write(prompt) for prompt in backend.prompts]
    second = [await generator.write(prompt) for prompt in reversed(backend.prompts)]
    assert first == second[::-1]
    assert len({written.text for written in first}) > 1, "prompts make no difference"


async def test_what_is_written_matches_the_regex_however_wild_the_choice(backend: Backend) -> None:
    generator = backend.make(Writing(max_new_tokens=400, temperature=1.5, top_p=1.0))
    for prompt in backend.prompts:
        written = await generator.write(prompt)
        assert not written.cut_off
        assert re.fullmatch(RESPONSE_REGEX, written.text)
        assert parse_response(written.text).title
        assert 0 < written.tokens <= 400


async def test_what_reaches_the_limit_of_tokens_is_cut_off_there(backend: Backend) -> None:
    whole = await backend.make().write(backend.prompts[0])
    for limit in (3, 7):
        written = await backend.make(Writing(max_new_tokens=limit, temperature=0.0)).write(backend.prompts[0])
        assert written.cut_off
        assert written.tokens == limit
        assert written.text
        assert whole.text.startswith(written.text)
    assert not whole.cut_off


async def test_many_may_ask_at_once(backend: Backend) -> None:
    generator = backend.make()
    alone = [await generator.write(prompt) for prompt in backend.prompts]
    together = await asyncio.gather(*(generator.write(prompt) for prompt in backend.prompts * 2))
    assert together == alone * 2


async def test_cancelling_one_frees_it_for_the_next(backend: Backend) -> None:
    generator = backend.make(ENDLESS)
    await generator.ready()
    for _ in range(3):
        running = await under_way(generator, backend.prompts[:1] * 8)
        for task in running:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*running, return_exceptions=True)
        )
    if isinstance(generator, FakeTextGenerator):
        generator.delay = 0.0
        assert generator.writing == 0
    assert (await generator.write(backend.prompts[1])).text


async def test_closing_ends_what_is_being_written_and_all_that_comes_later(backend: Backend) -> None:
    generator = backend.make(ENDLESS)
    await generator.ready()
    running = await under_way(generator, backend.prompts)
    await generator.aclose()
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, LanguageModelUnavailable)] == []
    for call in (generator.write(backend.prompts[0]), generator.ready()):
        with pytest.raises(LanguageModelUnavailable, match="closed"):
            await call
    await generator.aclose()


async def test_one_that_was_never_used_can_be_closed(backend: Backend) -> None:
    await backend.make().aclose()


@pytest.mark.parametrize("backend", ["embedded", VLLM], indirect=True)  # the fake takes everything
@pytest.mark.parametrize(
    "prompt", [[], [5] * 1_000, [1_000_000], [-1]], ids=["empty", "too long", "unknown token", "negative token"]
)
async def test_a_prompt_that_it_cannot_take_is_refused_and_the_next_is_written(
    backend: Backend, prompt: list[int]
) -> None:
    generator = backend.make()
    with pytest.raises(PromptRefused):
        await generator.write(prompt)
    assert (await generator.write(backend.prompts[0])).text
