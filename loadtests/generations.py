"""Let a trained run's language model write for real sessions, as serving does, and count what does not parse.

    .venv/bin/python -m loadtests.generations --data var/data/shop --run var/runs/shop --count 10000
    .venv/bin/python -m loadtests.generations … --vllm http://127.0.0.1:8001 --at-once 8

The first asks the embedded model, the second a vLLM that serves the run's model. Prints JSON: the share that parses,
names an article of the catalogue, and was cut off; generations a second; latency. Ends with 1 where a single one does
not parse.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import orjson

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, ModisteError
from model_store.language_model import EmbeddedLanguageModel, Written
from model_store.prompts import Prompt, UnparseableGeneration, parse_response
from model_store.tokens import Tokenizer
from offline.generating import GeneratingModel
from offline.progress import Console, Progress
from offline.run import Run
from offline.sequences import Prompts, find_examples
from service.generation.text import Writing
from service.generation.vllm import VllmTextGenerator

Write = Callable[[Prompt], Awaitable[Written]]
PATIENCE = 120.0  # seconds for one generation


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=2, help="generations at a time")
    parser.add_argument("--vllm", metavar="URL", help="ask a vLLM that serves the run's model, not the embedded one")
    options = parser.parse_args()
    data, progress = DataSet.open(options.data), Console()
    model = GeneratingModel.of_run(Run(options.run), data)
    if model is None:
        raise InvalidConfig(f"{options.run} has no generating half")
    tokenizer = Tokenizer.of_model(model.llm)
    prompts = Prompts(data, model.spec, tokenizer, model.memory, model.encode_query)
    examples = find_examples(
        data,
        0,
        data.last_event + 1,
        actions=model.spec.prompt.actions,
        most=options.count,
        rng=np.random.default_rng(0),
    )
    asked = [prompts.prompt(example) for example in examples]
    figures = asyncio.run(_measure(options, model, tokenizer, asked, set(data.article_ids), progress))
    sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if figures["unparseable"] == 0 else 1


async def _measure(
    options: argparse.Namespace,
    model: GeneratingModel,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    article_ids: set[str],
    progress: Progress,
) -> dict[str, Any]:
    async with _writer(model, tokenizer, options.at_once, options.vllm) as write:
        figures = await measure(write, prompts, article_ids, options.at_once, progress)
    return {"language_model": "embedded" if options.vllm is None else "vLLM", **figures}


@asynccontextmanager
async def _writer(model: GeneratingModel, tokenizer: Tokenizer, at_once: int, vllm: str | None) -> AsyncIterator[Write]:
    """The embedded language model, or a vLLM, with the bundle's own temperature and top-p."""
    writing = Writing.of(model.spec)
    if vllm is not None:
        generator = VllmTextGenerator(vllm, writing, tokenizer, timeout=PATIENCE, concurrency=at_once)
        try:
            await generator.ready()
            yield lambda prompt: generator.write(prompt.token_ids)
        finally:
            await generator.aclose()
        return
    models = SimpleQueue[EmbeddedLanguageModel]()
    for _ in range(at_once):
        models.put(EmbeddedLanguageModel(model.embedded, tokenizer))

    def write(prompt: Prompt) -> Written:
        one = models.get()
        try:
            return one.write(
                prompt.token_ids,
                max_new_tokens=writing.max_new_tokens,
                temperature=writing.temperature,
                top_p=writing.top_p,
            )
        finally:
            models.put(one)

    yield lambda prompt: asyncio.to_thread(write, prompt)


async def measure(
    write: Write, prompts: list[Prompt], article_ids: set[str], at_once: int, progress: Progress
) -> dict[str, Any]:
    """Have everything written, ``at_once`` prompts at a time."""
    named: list[str | None] = []
    cut_off, latencies = 0, []
    waiting = iter(prompts)

    async def hand() -> None:
        nonlocal cut_off
        for prompt in waiting:
            begun = time.perf_counter()
            written = await write(prompt)
            latencies.append(1_000 * (time.perf_counter() - begun))
            cut_off += written.cut_off
            try:
                named.append(parse_response(written.text, cut_off=written.cut_off).article_id)
            except UnparseableGeneration:
                named.append(None)
            bar.advance()

    begun = time.perf_counter()
    with progress.bar("generations", len(prompts)) as bar:
        await asyncio.gather(*(hand() for _ in range(at_once)))
    wall = time.perf_counter() - begun
    return {
        "generations": len(named),
        "unparseable": named.count(None),
        "cut_off": cut_off,
        "in_catalogue": float(np.mean([article_id in article_ids for article_id in named])),
        "prompt_tokens_mean": float(np.mean([len(prompt.token_ids) for prompt in prompts])),
        "per_second": len(named) / wall,
        "at_once": at_once,
        "latency_ms": {f"p{share}": float(np.percentile(latencies, share)) for share in (50, 95, 99)},
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ModisteError as error:
        sys.exit(f"generations: {error}")
