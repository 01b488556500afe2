from __future__ import annotations

from pathlib import Path

import torch
from fine_tuning_toys import LEARNING, tuned
from tiny_language_models import (
    tiny_articles,
    tiny_prompt,
)

from model_store.prompts import response_text
from model_store.tokens import Tokenizer
from offline.greedy import format_errors, greedy_answers
from offline.language_models import open_model
from offline.sequences import Tokenised


def test_answers_in_batches_are_those_one_by_one(llama: Path) -> None:
    tokenizer, model = Tokenizer.of_model(llama), open_model(llama)
    prompts = [tokenizer.encode_prompt(tiny_prompt(article, actions))[-90:] for article, actions in
               zip(tiny_articles(5), (1, 2, 3, 2, 1), strict=True)]  # fmt: skip
    prompts[2] = prompts[2][-40:]
    together = greedy_answers(model, prompts, 6, tokenizer.end, batch=3)
    assert together == [greedy_answers(model, [prompt], 6, tokenizer.end)[0] for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in answer:  # the likeliest token, each time, with no cache and no padding
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_format_errors_of_a_model_that_knows_the_format_and_of_one_that_does_not(llama: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.of_model(llama)
    prompts = [(7, number) for number in range(20, 36)]
    response = (*tokenizer.encode(response_text(tiny_articles(1)[0])), tokenizer.end)
    shares: dict[str, tuple[float, list[str]]] = {}
    tuned(
        llama,
        tmp_path,
        [Tokenised(prompt, response) for prompt in prompts] * 4,
        LEARNING,
        on_stage=lambda name, model: shares.update({name: format_errors(model, tokenizer, prompts, 40)}),
    )
    assert shares["base"][0] == 1.0
    assert shares["all prompts"] == (0.0, [response_text(tiny_articles(1)[0])] * 16)
