"""One generator process: takes customers from the queue and lets the language model write for them.

Started by ``service.launcher``, or on any machine that reaches the Redis and holds the bundles, with the same settings:

    MODISTE_REDIS_URL=redis://… MODISTE_STORE=… python -m service.generation.worker
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import uvloop

from model_store.bundle import Bundle
from model_store.errors import InvalidConfig, ModisteError
from model_store.generation import LLM, LLM_EMBEDDED
from service.catalogue.redis_store import RedisCatalogue
from service.choice import RedisChoice
from service.generation.embedded import EmbeddedTextGenerator
from service.generation.generator import Generator
from service.generation.prompting import Prompting
from service.generation.redis_queue import RedisGenerationQueue
from service.generation.scribes import Scribes
from service.generation.text import TextGenerator, Writing
from service.generation.vllm import VllmTextGenerator
from service.generation.work import Work
from service.lifeline import GRACE, follow
from service.log_lines import configure_logging, tell_failure
from service.settings import Settings, variable
from service.state.connection import Client, connect
from service.state.redis_store import RedisStore
from service.tracing import open_tracing

OpenText: TypeAlias = Callable[[Bundle, Prompting], TextGenerator]

NICENESS = 10
"""Beside a service, or with a language model of its own, a generator takes what answers leave of the processor."""
MARGIN = 10.0
"""Seconds beyond the language model's own limits after which a request counts as abandoned."""


def main() -> int:
    """Generate until SIGTERM or SIGINT. The first argument, where there is one, is the launcher's process."""
    beside_a_service = len(sys.argv) > 1
    if beside_a_service:
        follow(int(sys.argv[1]))
    configure_logging()
    try:
        settings = Settings.from_environment(os.environ)
        if beside_a_service or settings.llm_url is None:
            os.nice(NICENESS)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except ModisteError as error:
        tell_failure("modiste generator", error)
        return 1
    return 0


async def run(settings: Settings, open_text: OpenText | None = None, margin: float = MARGIN) -> None:
    """Generate until a signal asks to stop; what is in hand then has some seconds to end. Raises InvalidConfig.

    ``open_text`` makes a bundle's text generator; None: as the settings say. ``margin``: seconds, as ``MARGIN``.
    """
    if settings.redis_url is None:
        raise InvalidConfig(f"{variable('redis_url')} is not set: a generator works for a service that runs")
    if settings.llm_url == "off":
        raise InvalidConfig(f"{variable('llm_url')} is 'off': there is nothing to generate with")
    tracing = open_tracing(settings.otlp_endpoint, "modiste-generator")
    client = connect(settings.redis_url, timeout=settings.redis_timeout, connections=settings.redis_connections)
    try:
        customers = RedisStore(client)
        scribes = Scribes(settings.store, RedisChoice(client), open_text or _text_of(settings))
        generator = Generator(customers, RedisCatalogue(client), time.time, log_prompts=settings.log_prompts)
        work = Work(
            _queue(settings, client, margin),
            generator if tracing is None else tracing.of_generations(generator),
            scribes,
            at_once=1 if settings.llm_url is None else settings.llm_concurrency,
        )
        async with scribes.running():
            await _until_asked_to_stop(work)
    finally:
        await client.aclose()
        if tracing is not None:
            await tracing.aclose()


async def _until_asked_to_stop(work: Work) -> None:
    """Work; after the signal, for ``GRACE`` seconds at most."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    working = asyncio.create_task(work.run())
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait([working, asked], return_when=asyncio.FIRST_COMPLETED)
    work.stop()
    await asyncio.wait([working], timeout=GRACE)
    working.cancel()
    asked.cancel()
    await asyncio.wait([working])
    if not working.cancelled():
        working.result()


def _queue(settings: Settings, client: Client, margin: float) -> RedisGenerationQueue:
    return RedisGenerationQueue(
        client,
        most=settings.generation_queue,
        debounce=settings.generation_debounce,
        abandoned_after=2 * settings.llm_timeout + margin,  # to wait for a turn, and to write
    )


def _text_of(settings: Settings) -> OpenText:
    """What makes a bundle's text generator: by the API that is set, else of the bundle's embedded language model."""

    def open_text(bundle: Bundle, prompting: Prompting) -> TextGenerator:
        writing = Writing.of(prompting.spec)
        if settings.llm_url is None:
            folders = bundle.path(LLM_EMBEDDED), bundle.path(LLM)
            return EmbeddedTextGenerator(*folders, writing, timeout=settings.llm_timeout)
        return VllmTextGenerator(
            settings.llm_url,
            writing,
            prompting.tokenizer,
            api_key=None if settings.llm_api_key is None else settings.llm_api_key.get_secret_value(),
            timeout=settings.llm_timeout,
            concurrency=settings.llm_concurrency,
            max_tokens=prompting.spec.prompt.max_tokens,
        )

    return open_text


if __name__ == "__main__":
    sys.exit(main())
