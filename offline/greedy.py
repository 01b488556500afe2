"""What a language model in training writes by itself, and how much of it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model_store.prompts import UnparseableGeneration, parse_response
from model_store.tokens import Tokenizer
from offline.language_models import device_of, evaluating, quiet_transformers


def format_errors(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch: int = 32
) -> tuple[float, list[str]]:
    """The share of greedy answers that do not parse (§4.3: 7% after one epoch), and all answers.

    Unlike in serving, nothing holds the model to the format.
    """
    answers = greedy_answers(model, prompts, max_new_tokens, tokenizer.end, batch)
    texts = [tokenizer.decode(answer) for answer in answers]
    wrong = sum(
        not _parses(text, cut_off=tokenizer.end not in answer) for text, answer in zip(texts, answers, strict=True)
    )
    return wrong / max(len(texts), 1), texts


def greedy_answers(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, end: int, batch: int = 32
) -> list[list[int]]:
    """What the model writes after each prompt, always its likeliest token, up to and with ``end``."""
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    with evaluating(model), quiet_transformers():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            token_ids, mask = _padded_in_front([prompts[row] for row in rows], end, device_of(model))
            written = model.generate(
                input_ids=token_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=end,
                pad_token_id=end,
            )
            for row, ids in zip(rows, written[:, token_ids.shape[1] :].tolist(), strict=True):
                answers[row] = ids[: ids.index(end) + 1] if end in ids else ids
    return answers


def _padded_in_front(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids int64 (B, T) and attention mask int64 (B, T), so that all prompts end together."""
    most = max(map(len, prompts))
    token_ids = [[padding] * (most - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (most - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(token_ids, device=device), torch.tensor(mask, device=device)


def _parses(text: str, *, cut_off: bool) -> bool:
    try:
        parse_response(text, cut_off=cut_off)
    except UnparseableGeneration:
        return False
    return True
