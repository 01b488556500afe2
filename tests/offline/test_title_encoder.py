from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interruptions import StopAfter, Stopped
from searching_shops import HOUR, KINDS, MEANINGS, at, synonym_shop, write_searching_shop

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.generation import MAX_TEXT_TOKENS
from offline.config import TitleEncoderConfig
from offline.models.title_encoder import TitleEncoderNetwork, triplet_loss
from offline.progress import Progress, Silent
from offline.search_pairs import Pairs, find_pairs
from offline.title_encoder import (
    Positives,
    TitleEncoder,
    TitleEncoderStage,
    catalogue_titles,
    encode_titles,
    mean_reciprocal_rank,
    read_tokenizer_text,
    train_title_encoder,
    train_tokenizer,
)

CPU = torch.device("cpu")
SMALL = TitleEncoderConfig(vocabulary=600, embedding=24, hidden=24, dropout=0.0, batch=64, epochs=8, lr=0.01)
UNTIL, END = 700.0, 900.0


def train(
    data: DataSet, folder: Path, config: TitleEncoderConfig = SMALL, progress: Progress | None = None, seed: int = 0
) -> TitleEncoder:
    return train_title_encoder(
        data,
        config,
        until=at(UNTIL),
        held_out_until=at(END),
        seed=seed,
        checkpoint=folder / "title_encoder.pt",
        recipe="r",
        progress=progress,
    )


# --- known answers -----------------------------------------------------------------------------------------------


def test_what_a_query_means_is_found_though_it_shares_no_word_with_the_title(tmp_path: Path) -> None:
    encoder = train(synonym_shop(tmp_path / "shop"), tmp_path)
    best = max(row["score"] for row in encoder.curve)
    assert best > 0.55  # (1 + 1/2 + 1/3) / 3 = 0.61 is the most that can be known of three equal titles


def test_from_purchases_at_random_nothing_is_learned(tmp_path: Path) -> None:
    encoder = train(synonym_shop(tmp_path / "shop", planted=False), tmp_path)
    number = MEANINGS * KINDS
    chance = float(np.mean(1 / np.arange(1, number + 1)))
    assert max(row["score"] for row in encoder.curve) < 1.6 * chance


@pytest.mark.parametrize(("lr", "together"), [(0.01, False), (1e-9, True)])
def test_it_is_told_where_all_texts_lie_together(tmp_path: Path, lr: float, together: bool) -> None:
    """As they do before training."""
    said: list[str] = []

    class Lines(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    train(synonym_shop(tmp_path / "shop"), tmp_path, SMALL.model_copy(update={"lr": lr, "epochs": 3}), Lines())
    assert any("twice the margin" in line for line in said) is together


def test_embeddings_do_not_fall_together(tmp_path: Path) -> None:
    data = synonym_shop(tmp_path / "shop")
    titles = encode_titles(train(data, tmp_path), data)
    cosine = titles @ titles.T
    meaning = np.arange(MEANINGS * KINDS) // KINDS
    same = (meaning[:, None] == meaning) & ~np.eye(len(titles), dtype=bool)
    assert cosine[same].mean() > cosine[meaning[:, None] != meaning].mean() + 0.4


# --- the loss, against one computed pair by pair -----------------------------------------------------------------


def loss_by_hand(
    queries: np.ndarray, titles: np.ndarray, pairs: list[tuple[int, int]], wrong: np.ndarray, margin: float
) -> list[float]:
    losses = []
    for query, title in pairs:
        right = float(queries[query] @ titles[title])
        hard_titles = [float(queries[query] @ titles[other]) for other in range(len(titles)) if wrong[query, other]]
        hard_queries = [float(queries[other] @ titles[title]) for other in range(len(queries)) if wrong[other, title]]
        parts = [max(0.0, margin - right + max(hard)) for hard in (hard_titles, hard_queries) if hard]
        losses.append(sum(parts))
    return losses


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 7), st.floats(0.05, 1.5))
def test_the_loss_mines_both_hard_negatives(seed: int, numbers: int, others: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    queries, titles = rng.normal(size=(numbers, 5)), rng.normal(size=(others, 5))
    titles[-1] = titles[0]  # a tie
    pairs = list({(int(rng.integers(numbers)), int(rng.integers(others))) for _ in range(5)})
    wrong = rng.random((numbers, others)) < 0.7
    for query, title in pairs:
        wrong[query, title] = False
    query, title = (torch.tensor(column) for column in zip(*pairs, strict=True))
    found = triplet_loss(
        torch.from_numpy(queries), torch.from_numpy(titles), query, title, torch.from_numpy(wrong), margin
    )
    np.testing.assert_allclose(found.numpy(), loss_by_hand(queries, titles, pairs, wrong, margin), atol=1e-9)


def test_without_any_negative_there_is_neither_loss_nor_gradient() -> None:
    queries, titles = (torch.randn(2, 3).requires_grad_() for _ in range(2))
    none = torch.zeros(2, 2, dtype=torch.bool)
    loss = triplet_loss(queries, titles, torch.tensor([0, 1]), torch.tensor([1, 0]), none, 0.2).sum()
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert not queries.grad.any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_wrong_are_the_titles_never_bought_from_a_query(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    query, title = rng.integers(0, 6, number), rng.integers(0, 9, number)
    positives = Positives(query, title, 9)
    queries = np.unique(rng.choice(query, 3))
    titles = rng.permutation(9)[:5]
    bought = set(zip(query.tolist(), title.tolist(), strict=True))
    for _ in range(2):  # it leaves nothing behind
        wrong = positives.wrong(queries, titles)
        assert wrong.tolist() == [[(one, other) not in bought for other in titles.tolist()] for one in queries.tolist()]


# --- what a batch holds ------------------------------------------------------------------------------------------


def stage(data: DataSet) -> TitleEncoderStage:
    titles, title_of = catalogue_titles(data)
    tokenizer = read_tokenizer_text(train_tokenizer(titles, 400))
    pairs = find_pairs(data, at(1_000))
    return TitleEncoderStage(
        TitleEncoderNetwork(400, 8, 8),
        tokenizer,
        pairs=pairs,
        held_out=pairs,
        titles=titles,
        title_of=title_of,
        config=SMALL,
        rng=np.random.default_rng(0),
    )


def test_articles_of_one_title_are_one_text_and_no_negatives_of_each_other(tmp_path: Path) -> None:
    visits = [("x", "coat", "a"), ("y", "coat", "b"), ("z", "hat", "c"), ("x", "hat", "c")]
    steps = [
        step
        for hour, (who, query, article) in enumerate(visits)
        for step in [("search", who, query, hour), ("click", who, article, hour), ("purchase", who, article, hour)]
    ]
    data = write_searching_shop(tmp_path / "shop", {"a": "Red coat", "b": "red  COAT", "c": "hat"}, steps)
    assert catalogue_titles(data)[1].tolist() == [0, 0, 1]
    queries, _, titles, _, query, title, wrong = stage(data).batch(np.arange(4), np.random.default_rng(0), CPU)
    assert (len(queries), len(titles)) == (2, 2)
    assert wrong.tolist() == [[False, True], [True, False]]  # coat, hat × red coat, hat
    assert sorted(zip(query.tolist(), title.tolist(), strict=True)) == [(0, 0), (0, 0), (1, 1), (1, 1)]


def test_an_epoch_draws_at_most_so_many_pairs(tmp_path: Path) -> None:
    training = stage(synonym_shop(tmp_path / "shop", visits=50))
    assert len(np.unique(np.concatenate(training.batches(0, np.random.default_rng(0))))) == 50
    training._config = SMALL.model_copy(update={"max_pairs": 20, "batch": 8})
    assert [len(rows) for rows in training.batches(0, np.random.default_rng(0))] == [8, 8, 4]


def test_data_without_pairs_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    data = write_searching_shop(tmp_path / "shop", {"a": "coat"}, [("purchase", "x", "a", 1.0)])
    with pytest.raises(TrainingError, match=r"within a day of a search.*generation\.enabled"):
        train(data, tmp_path)


def test_nothing_after_the_validation_window_changes_the_encoder(tmp_path: Path) -> None:
    short = SMALL.model_copy(update={"epochs": 1})
    early = train(synonym_shop(tmp_path / "early", visits=900), tmp_path / "1", short)
    later = train(synonym_shop(tmp_path / "later", visits=1_000), tmp_path / "2", short)
    assert early.tokenizer == later.tokenizer
    np.testing.assert_array_equal(early.encode(["coat"]), later.encode(["coat"]))


def test_without_held_out_pairs_all_epochs_are_trained(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"epochs": 4, "patience": 1})
    assert len(train(synonym_shop(tmp_path / "shop", visits=100), tmp_path, config).curve) == 4


def test_a_training_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    data = synonym_shop(tmp_path / "shop", visits=300)
    config = SMALL.model_copy(update={"epochs": 2, "checkpoint_steps": 1, "dropout": 0.2})
    with pytest.raises(Stopped):
        train(data, tmp_path / "stopped", config, progress=StopAfter(3))
    resumed, whole = train(data, tmp_path / "stopped", config), train(data, tmp_path / "whole", config)
    texts = [article.title for article in data.articles()]
    np.testing.assert_array_equal(resumed.encode(texts), whole.encode(texts))
    assert not np.array_equal(whole.encode(texts), train(data, tmp_path / "other", config, seed=1).encode(texts))


# --- reading embeddings ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> TitleEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tokenizer = train_tokenizer(["red coat", "blue coat", "green hat"] * 3, 400)
        vocabulary = read_tokenizer_text(tokenizer).get_vocab_size()
        return TitleEncoder(tokenizer, TitleEncoderNetwork(vocabulary, 16, 16, dropout=0.5), [])


TEXTS = ["red coat", "", "a hat", "платье в полоску", "[PAD] [PAD]", "x" * 500, "coat " * 100]


def test_one_text_alone_is_the_same_as_among_others(encoder: TitleEncoder) -> None:
    together = encoder.encode(TEXTS)
    np.testing.assert_allclose(together, np.concatenate([encoder.encode([text]) for text in TEXTS]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert len(np.unique(together.round(5), axis=0)) == len(TEXTS)


def test_no_texts_give_no_embeddings(encoder: TitleEncoder) -> None:
    assert encoder.encode([]).shape == (0, 128)


def test_upper_case_and_white_space_do_not_count(encoder: TitleEncoder) -> None:
    plain, other = encoder.encode(["red coat", "  RED \t coat"])
    np.testing.assert_array_equal(plain, other)


def test_padding_has_a_token_of_its_own_that_no_text_can_write(encoder: TitleEncoder) -> None:
    reader = read_tokenizer_text(encoder.tokenizer)
    assert reader.token_to_id("[PAD]") == 0
    assert 0 not in reader.encode("[pad] [PAD]").ids
    assert reader.encode(" ".join(["coat"] * 5)).ids == reader.encode("coat").ids * 5  # first word as any other


def test_what_is_behind_the_last_token_that_is_read_does_not_count(encoder: TitleEncoder) -> None:
    long = "coat " * MAX_TEXT_TOKENS
    np.testing.assert_array_equal(encoder.encode([long])[0], encoder.encode([long + "hat"])[0])


def test_every_article_has_its_titles_embedding(encoder: TitleEncoder, tmp_path: Path) -> None:
    data = write_searching_shop(
        tmp_path / "shop", {"a": "Red coat", "b": "green hat", "c": "red coat"}, [("search", "x", "hat", 1.0)]
    )
    np.testing.assert_allclose(
        encode_titles(encoder, data), encoder.encode(["red coat", "green hat", "red coat"]), atol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_mean_reciprocal_rank_against_sorting(seed: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    queries, titles = rng.integers(-2, 3, (5, 3)) * 1.0, rng.integers(-2, 3, (8, 3)) * 1.0  # exact, with ties
    query, title = rng.integers(0, 5, pairs), rng.integers(0, 8, pairs)
    expected = []
    for one, other in zip(query, title, strict=True):
        scores = titles @ queries[one]
        places = np.flatnonzero(np.sort(scores)[::-1] == scores[other]) + 1
        expected.append(1 / places.mean())
    found = mean_reciprocal_rank(queries, titles, query, title)
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


def test_held_out_pairs_are_a_window_over_the_same_queries(tmp_path: Path) -> None:
    pairs = find_pairs(synonym_shop(tmp_path / "shop", visits=40), at(1_000))
    before, after = pairs.between(0, at(20)), pairs.between(at(20), at(40) + HOUR)
    assert isinstance(before, Pairs)
    assert before.queries == after.queries
    assert len(before) + len(after) == len(pairs)
