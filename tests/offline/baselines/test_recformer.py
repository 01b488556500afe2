"""Recformer as a learner: what its stages keep and renew, what ties, what is refused; and that it learns from words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from baseline_learners import ABOUT
from tiny_longformer import tiny_longformer
from torch import Tensor

from model_store.errors import TrainingError
from offline.baselines.longformers import Start, from_checkpoint, from_scratch
from offline.baselines.questions import Int64, Sequences, Validation
from offline.baselines.recformer import RecformerLearner, maker
from offline.baselines.texts import Attributes, TextQuestions
from offline.baselines.tuning import Answering, Settings

COLOURS, KINDS = ("red", "blue", "green", "black"), ("dress", "coat", "hat")
ARTICLES: list[Attributes] = [{"title": f"{colour} {kind}", "color": colour} for colour in COLOURS for kind in KINDS]
TINY: Settings = {"learning_rate": 3e-3, "train_batch_size": 32, "tokens": 32, "sentences": 4, "window": 32}
NOTHING = Sequences.of([])


def told(sequences: Sequences, articles: Sequence[Attributes] = ARTICLES, queries: Sequence[str] = ()) -> TextQuestions:
    validation = Validation(NOTHING, *(np.zeros(0, np.int64) for _ in range(3)))
    return TextQuestions(ABOUT, sequences, sequences, validation, [], articles, queries)


def learner(
    sequences: Sequences,
    articles: Sequence[Attributes] = ARTICLES,
    queries: Sequence[str] = (),
    start: Start | None = None,
    seed: int = 0,
) -> RecformerLearner:
    start = start or from_scratch()
    found = maker(start, told(sequences, articles, queries))({**start.grid[0], **TINY}, sequences, seed)
    assert isinstance(found, RecformerLearner)
    return found


def of_one_colour(customers: int, length: int = 4) -> Sequences:
    """Customers who buy one colour alone, each another kind."""
    rng = np.random.default_rng(0)
    return Sequences.of(
        [rng.integers(len(COLOURS)) * len(KINDS) + rng.integers(len(KINDS), size=length) for _ in range(customers)]
    )


def epoch(made: RecformerLearner) -> float:
    batches: list[int] = []
    loss = made.train_epoch(batches.append)
    assert sum(batches) == made.batches
    return loss


HISTORIES = [np.array([0]), np.array([3, 4, 5, 3, 4, 5]), np.array([11])]


def share_right(made: RecformerLearner, histories: Sequence[Int64], right: Int64) -> float:
    """How many of the best articles are among the ``right`` ones, int64 (B, n), as far as a few epochs teach it."""
    found = 0.0
    for _ in range(10):
        epoch(made)
        best = np.argsort(-made.scores(histories), axis=1)[:, : right.shape[1]]
        found = max(found, float((best[:, :, None] == right[:, None]).any(axis=2).mean()))
        if found > 0.9:
            break
    return found


EACH = np.arange(len(ARTICLES))


def test_words_tell_what_is_bought_next() -> None:
    same_colour = EACH[:, None] // len(KINDS) * len(KINDS) + np.arange(len(KINDS))
    assert share_right(learner(of_one_colour(60)), [*EACH[:, None]], same_colour) > 0.9


def test_searches_tell_it_where_purchases_do_not() -> None:
    """Any article is bought, right after a search for its colour."""
    rng = np.random.default_rng(0)
    bought = rng.integers(len(ARTICLES), size=(50, 3))
    steps = Sequences.of([np.stack([~(row // len(KINDS)), row], axis=1).ravel() for row in bought])
    colour = (EACH + 5) // len(KINDS) % len(COLOURS)
    histories = [np.array([article, ~searched]) for article, searched in zip(EACH, colour, strict=True)]
    of_colour = colour[:, None] * len(KINDS) + np.arange(len(KINDS))
    assert share_right(learner(steps, queries=COLOURS), histories, of_colour) > 0.9


def test_the_same_seed_gives_the_same_scores() -> None:
    found = []
    for seed in (0, 0, 1):
        made = learner(of_one_colour(10), seed=seed)
        torch.rand(3)  # whatever is drawn elsewhere
        for stage in range(3):
            if stage:
                made.next_stage()
            epoch(made)
        found.append(made.scores(HISTORIES))
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_scores_are_cosines_whoever_asks_beside() -> None:
    made = learner(of_one_colour(10))
    together = made.scores(HISTORIES)
    assert together.dtype == np.float32
    assert np.abs(together).max() <= 1 + 1e-5
    alone = np.concatenate([made.scores([history]) for history in HISTORIES])
    assert np.abs(together - alone).max() < 1e-5


def test_of_a_long_history_the_latest_counts() -> None:
    made = learner(of_one_colour(10))
    long = made.scores([np.array([7, 8, 9, 0, 1, 2, 3])])
    assert np.abs(long - made.scores([np.array([5, 0, 1, 2, 3])])).max() < 1e-6
    assert np.abs(long - made.scores([np.array([1, 2, 3, 0])])).max() > 1e-6


def weights(made: RecformerLearner) -> list[Tensor]:
    return [weight.clone() for weight in made.network.state_dict().values()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_stages_begin_where_validation_was_best() -> None:
    made = learner(of_one_colour(10))
    epoch(made)
    scores, best = made.scores(HISTORIES), weights(made)
    made.keep()
    epoch(made)
    assert not same(weights(made), best)
    made.next_stage()
    assert same(weights(made), best)
    assert (made.scores(HISTORIES) == scores).all()


def articles_by(made: RecformerLearner, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Notes among which representations the right article is to be found."""
    seen: list[Tensor] = []
    found = made._found

    def noted(wanted: Tensor, among: Tensor, right: Tensor) -> Tensor:
        seen.append(among.detach().clone())
        return found(wanted, among, right)

    monkeypatch.setattr(made, "_found", noted)
    return seen


def test_stage_1_encodes_articles_anew_and_stage_2_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(Sequences.of([EACH, EACH[::-1]]))  # one batch an epoch, in which each article is sought
    seen = articles_by(made, monkeypatch)
    epoch(made)
    assert made.batches == 1
    made.next_stage()
    epoch(made)
    epoch(made)
    assert [len(each) for each in seen[1:]] == [12, 12]
    assert not torch.equal(seen[1], seen[2])
    made.keep()
    epoch(made)
    assert not torch.equal(seen[2], seen[3])
    made.next_stage()
    epoch(made)
    epoch(made)
    assert torch.equal(seen[4], seen[2])  # those of the epoch that was best
    assert torch.equal(seen[5], seen[2])


def test_articles_that_never_sold_are_ranked_and_no_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    sold = Sequences.of([[0, 3, 5], [3, 5, 0]])
    made = learner(sold)
    seen = articles_by(made, monkeypatch)
    made.next_stage()
    epoch(made)
    assert len(seen[0]) == 3
    assert made.article.tolist() == list(range(12))
    assert made.scores([np.array([3])]).shape == (1, 12)


def test_articles_of_one_text_tie_and_one_of_none_has_a_score() -> None:
    articles: list[Attributes] = [*ARTICLES, dict(ARTICLES[0]), {}, {"unheard of": "靴"}]
    made = learner(of_one_colour(10), articles)
    scores = made.scores([np.array([13]), *HISTORIES])
    assert np.isfinite(scores).all()
    assert (scores[:, 0] == scores[:, 12]).all()
    assert (scores[:, 1] != scores[:, 13]).all()


def test_who_bought_nothing_gets_what_sold_unless_they_searched() -> None:
    sequences = Sequences.of([[0, 3, 5, ~0, 3], [3, 3, 5]])
    made = learner(sequences, queries=["red hat"])
    scores = Answering(made, sequences).scores([np.zeros(0, np.int64), np.array([~0])])
    assert scores[0, :6].tolist() == [1, 0, 0, 4, 0, 2]
    assert (scores[1] == made.scores([np.array([~0])])[0]).all()


def test_a_shop_without_words_is_trained_on_and_all_of_it_ties() -> None:
    made = learner(of_one_colour(4), [{}] * len(ARTICLES))
    assert np.isfinite(epoch(made))
    assert len(np.unique(made.scores(HISTORIES)[0])) == 1


@pytest.mark.parametrize("groups", [[[0], [3]], [[0, ~0]], []])
def test_where_nothing_comes_before_a_purchase_nothing_is_learned(groups: list[list[int]]) -> None:
    with pytest.raises(TrainingError, match="nothing comes before any purchase in training: there is no sequence"):
        learner(Sequences.of(groups), queries=["hat"])


def test_a_search_before_a_first_purchase_is_an_example() -> None:
    made = learner(Sequences.of([[~0, 3], [0]]), queries=["black hat"])
    assert made.batches == 1
    assert np.isfinite(epoch(made))


def test_a_checkpoint_is_trained_on(tmp_path: Path) -> None:
    tiny_longformer(tmp_path / "tiny")
    start = from_checkpoint(tmp_path / "tiny")
    made = learner(of_one_colour(10), start=replace(start, grid=[{**start.grid[0], "window": 32}]))
    begun = weights(made)
    assert made.scores(HISTORIES).shape == (3, 12)
    assert np.isfinite(epoch(made))
    assert not same(weights(made), begun)
