"""Attributes as tokens, by hand: a token a word, numbered as they come."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from offline.baselines.sentences import (
    MAX_ATTRIBUTE_TOKENS,
    Layout,
    Sentence,
    Vocabulary,
    masked,
    sentence_of,
    words_of,
)
from offline.models.recformer import CLS, KEY, PADDING, VALUE

CPU = torch.device("cpu")
_PADDING, _CLS, _MASK, _FIRST, _SIZE = 0, 1, 2, 10, 1_000


def by_word() -> Vocabulary:
    """title 10, red 11, … in the order in which words are met."""
    numbers: defaultdict[str, int] = defaultdict(lambda: _FIRST + len(numbers))
    return Vocabulary(lambda text: [numbers[word] for word in text.split()], _CLS, _PADDING, _MASK, _SIZE)


def layout(**changes: int) -> Layout:
    return Layout(by_word(), **{"tokens": 100, "sentences": 50, "window": 4, **changes})


def sentences(vocabulary: Vocabulary) -> list[Sentence]:
    """A dress, then a search, then an article of which only the category is known."""
    return [
        sentence_of({"title": "red dress", "brand": "Linje"}, vocabulary),  # 10 11 12 13 14
        sentence_of({"query": "wool coat"}, vocabulary),  # 15 16 17
        sentence_of({"title": "", "category": "coat"}, vocabulary),  # 18 17
    ]


def test_a_sentence_is_keys_and_values_in_order() -> None:
    dress, search, unknown_title = sentences(by_word())
    assert dress == ((10, 11, 12, 13, 14), (KEY, VALUE, VALUE, KEY, VALUE))
    assert search == ((15, 16, 17), (KEY, VALUE, VALUE))
    assert unknown_title == ((18, 17), (KEY, VALUE))


def test_of_nothing_known_there_is_no_word() -> None:
    assert sentence_of({}, by_word()) == sentence_of({"title": " "}, by_word()) == ((), ())


def test_long_values_are_cut() -> None:
    token, kind = sentence_of({"title": "word " * 40, "brand": "Linje"}, by_word())
    assert len(token) == 1 + MAX_ATTRIBUTE_TOKENS + 2
    assert kind[-2:] == (KEY, VALUE)


def test_sequences_begin_with_cls_and_the_newest_sentence() -> None:
    made = layout()
    tokens = made.tokens_of([sentences(made.vocabulary), []], CPU)
    rest, none = [PADDING] * 1, [PADDING] * 11
    assert tokens.token.tolist() == [[1, 18, 17, 15, 16, 17, 10, 11, 12, 13, 14, 0], [1, *[0] * 11]]
    assert tokens.kind.tolist() == [
        [CLS, KEY, VALUE, KEY, VALUE, VALUE, KEY, VALUE, VALUE, KEY, VALUE, *rest],
        [CLS, *none],
    ]
    assert tokens.sentence.tolist() == [[0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 0], [0] * 12]


def test_what_is_too_long_loses_its_oldest_end() -> None:
    short = layout(tokens=8)
    assert short.tokens_of([sentences(short.vocabulary)], CPU).token.tolist() == [[1, 18, 17, 15, 16, 17, 10, 11]]
    few = layout(sentences=2)
    assert few.tokens_of([sentences(few.vocabulary)], CPU).token.tolist() == [[1, 18, 17, 15, 16, 17, 0, 0]]


@pytest.mark.parametrize("window", [2, 4, 32])
def test_the_length_is_a_multiple_of_the_window(window: int) -> None:
    made = layout(window=window)
    length = made.tokens_of([sentences(made.vocabulary)], CPU).token.shape[1]
    assert length % window == 0
    assert 11 <= length < 11 + window


def test_masking_is_bert_s() -> None:
    made = layout(tokens=2_000)
    long = [sentence_of({"title": f"word{number} other{number}"}, made.vocabulary) for number in range(40)]
    tokens = made.tokens_of([long] * 300, CPU)
    hidden, chosen = masked(tokens, made.vocabulary, torch.Generator().manual_seed(0))
    words = (tokens.kind == KEY) | (tokens.kind == VALUE)
    assert not (chosen & ~words).any()
    assert chosen[words].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (hidden.token == tokens.token)[~chosen].all()
    assert (hidden.token[chosen] == _MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (hidden.token == tokens.token)[chosen].float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (hidden.kind == tokens.kind).all()


def test_one_word_is_masked_at_least_where_there_is_one() -> None:
    made = layout()
    short = made.tokens_of([[sentence_of({"title": "coat"}, made.vocabulary)]], CPU)
    empty = made.tokens_of([[]], CPU)
    for seed in range(20):
        assert masked(short, made.vocabulary, torch.Generator().manual_seed(seed))[1].sum() >= 1
        assert masked(empty, made.vocabulary, torch.Generator().manual_seed(seed))[1].sum() == 0


def test_a_tokenizer_is_learned_from_keys_values_and_queries() -> None:
    assert words_of([{"title": "hat", "brand": "Linje"}, {}], ["coat"]) == ["title", "hat", "brand", "Linje", "coat"]
