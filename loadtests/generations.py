"""Let a trained run's embedded language model write for real sessions, as serving does, and count what does not parse.

    .venv/bin/python -m loadtests.generations --data var/data/shop --run var/runs/shop --count 10000

Prints JSON: the share that parses, names an article of the catalogue, and was cut off; generations a second; latency.
Ends with 1 where a single one does not parse.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import orjson

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.language_model import EmbeddedLanguageModel
from model_store.prompts import Prompt, UnparseableGeneration, parse_response
from model_store.tokens import Tokenizer
from offline.generating import GeneratingModel
from offline.progress import Console, Progress
from offline.run import Run
from offline.sequences import Prompts, find_examples


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2, help="generations at a time")
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
    figures = measure(model, tokenizer, asked, set(data.article_ids), options.threads, progress)
    sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if figures["unparseable"] == 0 else 1


def measure(
    model: GeneratingModel,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    article_ids: set[str],
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write for every prompt with the bundle's own temperature and top-p, ``threads`` at a time."""
    card, models = model.spec.language_model, SimpleQueue[EmbeddedLanguageModel]()
    for _ in range(threads):
        models.put(EmbeddedLanguageModel(model.embedded, tokenizer))

    def write(prompt: Prompt) -> tuple[str | None, bool, float]:
        one = models.get()
        begun = time.perf_counter()
        try:
            written = one.write(
                prompt.token_ids,
                max_new_tokens=model.spec.prompt.response_tokens,
                temperature=card.temperature,
                top_p=card.top_p,
            )
        finally:
            models.put(one)
        seconds = time.perf_counter() - begun
        try:
            return parse_response(written.text, cut_off=written.cut_off).article_id, written.cut_off, seconds
        except UnparseableGeneration:
            return None, written.cut_off, seconds

    begun = time.perf_counter()
    with progress.bar("generations", len(prompts)) as bar, ThreadPoolExecutor(threads) as pool:
        results = []
        for result in pool.map(write, prompts):
            results.append(result)
            bar.advance()
    wall = time.perf_counter() - begun
    latency = 1_000 * np.array([seconds for _, _, seconds in results])
    return {
        "generations": len(results),
        "unparseable": sum(article_id is None for article_id, _, _ in results),
        "cut_off": sum(cut_off for _, cut_off, _ in results),
        "in_catalogue": float(np.mean([article_id in article_ids for article_id, _, _ in results])),
        "prompt_tokens_mean": float(np.mean([len(prompt.token_ids) for prompt in prompts])),
        "per_second": len(results) / wall,
        "threads": threads,
        "latency_ms": {f"p{share}": float(np.percentile(latency, share)) for share in (50, 95, 99)},
    }


if __name__ == "__main__":
    sys.exit(main())
