from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import (
    VOCABULARY,
)

from model_store.prompts import PromptSpec, PromptWriter, response_text
from model_store.records import Article
from model_store.tokens import Tokenizer
from offline.language_models import open_model
from offline.responses import Batch, bucketed_batches, collate, perplexities, response_losses
from offline.sequences import Tokenised

tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=12).map(tuple)
examples_of_any_length = st.lists(st.builds(Tokenised, prompt=tokens, response=tokens), min_size=1, max_size=6)


@given(examples_of_any_length)
def test_labels_are_the_responses_tokens_and_nothing_else(examples: list[Tokenised]) -> None:
    batch = collate(examples)
    assert batch.token_ids.shape == batch.labels.shape
    for example, ids, labels in zip(examples, batch.token_ids.tolist(), batch.labels.tolist(), strict=True):
        start, end = len(example.prompt), len(example.prompt) + len(example.response)
        assert tuple(ids[:end]) == example.prompt + example.response
        assert labels == [-100] * start + list(example.response) + [-100] * (len(ids) - end)
    assert batch.responses_from == min(len(example.prompt) for example in examples)


def test_a_truncated_response_is_learned_as_far_as_it_goes_and_does_not_end(llama: Path) -> None:
    tokenizer = Tokenizer.of_model(llama)
    article = Article(article_id="a001", title="navy jacket " * 10, category="jacket")
    writer = PromptWriter(PromptSpec(response_tokens=16), tokenizer)
    response = writer.response_ids(article)
    assert len(tokenizer.encode(response_text(article))) > 16
    batch = collate([Tokenised((5, 6, 7), tuple(response))])
    learned = batch.labels[batch.labels != -100].tolist()
    assert learned == tokenizer.encode(response_text(article))[:16]
    assert tokenizer.end not in learned


@settings(max_examples=10)
@given(examples=examples_of_any_length)
def test_losses_are_those_of_each_response_alone(llama: Path, examples: list[Tokenised]) -> None:
    model = open_model(llama)
    with torch.no_grad():
        losses = response_losses(model, collate(examples)).sum(1)
        expected = [_loss_by_hand(model, example).sum() for example in examples]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-5)
    found = perplexities(model, examples, batch=2)
    by_hand = [np.exp(_loss_by_hand(model, example).mean()) for example in examples]
    np.testing.assert_allclose(found, by_hand, rtol=2e-5)


def _loss_by_hand(model: Any, example: Tokenised) -> np.ndarray:
    """−log softmax of the whole sequence's logits at the response's tokens, in float64 numpy."""
    with torch.no_grad():
        logits = model(torch.tensor([example.prompt + example.response])).logits[0].double().numpy()
    places = np.arange(len(example.prompt), len(example.prompt) + len(example.response))
    rows = logits[places - 1]
    return np.log(np.exp(rows).sum(1)) - rows[np.arange(len(places)), list(example.response)]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80), size=st.integers(1, 9), seed=st.integers(0, 2**32)
)
def test_every_example_is_in_exactly_one_batch(lengths: list[int], size: int, seed: int) -> None:
    examples = [Tokenised((1,) * length, (2,)) for length in lengths]
    batches = bucketed_batches(examples, np.arange(len(examples)), size, np.random.default_rng(seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(examples)))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_batches_hold_little_padding_and_come_in_another_order_each_epoch() -> None:
    rng = np.random.default_rng(0)
    examples = [Tokenised((1,) * int(length), (2,)) for length in rng.integers(10, 500, 640)]
    batches = bucketed_batches(examples, np.arange(640), 16, np.random.default_rng(1))
    padded = sum(len(batch) * max(len(examples[row].prompt) for row in batch) for batch in batches)
    assert padded < 1.1 * sum(len(example.prompt) for example in examples)
    other = bucketed_batches(examples, np.arange(640), 16, np.random.default_rng(2))
    assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in other]
    lengths = [len(examples[batch[0]].prompt) for batch in batches]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.5  # not sorted from long to short


def test_a_batch_says_where_its_responses_begin() -> None:
    assert Batch(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[-100, -100, 3, 4]])).responses_from == 2
