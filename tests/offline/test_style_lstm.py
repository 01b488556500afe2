from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_shops import purchases_of
from torch import Tensor

from model_store import DNA_SIZE
from model_store.dataset import Availability
from model_store.errors import TrainingError
from model_store.popularity import POPULARITY, popularity_component
from model_store.time_features import TimeSpec, encode_history
from offline.article_offsets import ArticleOffsets
from offline.config import StyleLstmConfig
from offline.models.style_lstm import LOSSES, StyleLstmNetwork
from offline.negatives import NegativeSampler
from offline.popularity import Popularity, PopularityHistory, RecentSales
from offline.style_lstm import (
    StyleLstmStage,
    StyleLstmTraining,
    length_batches,
    make_sequences,
    shuffle_orders,
    styles_at,
)

SPEC = TimeSpec(reference=0, horizon=10**9)
ARTICLES = 30
DAY = 86_400
CPU = torch.device("cpu")

# (customer, article, timestamp, order): customer 0 has orders of 1, 3 and 2 articles, 1 one of 2, 2 none, 3 one of 1.
PURCHASES = purchases_of(
    [
        (0, 1, 1 * DAY, 0),
        (0, 2, 5 * DAY, 1),
        (0, 3, 5 * DAY, 1),
        (0, 4, 5 * DAY, 1),
        (0, 5, 9 * DAY, 2),
        (0, 6, 9 * DAY, 2),
        (1, 7, 2 * DAY, 3),
        (1, 8, 2 * DAY, 3),
        (3, 9, 3 * DAY, 4),
    ],
    customers=4,
)
FIRST_OF_ORDER = [True, True, False, False, True, False, True, False, True]


def dna(popular: bool = False) -> np.ndarray:
    vectors = np.random.default_rng(5).normal(size=(ARTICLES, DNA_SIZE)).astype(np.float32)
    if popular:
        vectors[:, POPULARITY] = 0.0
    return vectors


def stage(
    max_purchases: int = 100,
    loss: str = "rank",
    negatives: int = 4,
    popular: bool = False,
    offsets: ArticleOffsets | None = None,
) -> StyleLstmStage:
    history = PopularityHistory(
        Popularity(RecentSales(PURCHASES, ARTICLES), Availability.always(ARTICLES), 7.0), 10 * DAY
    )
    return StyleLstmStage(
        StyleLstmNetwork(SPEC.step_size, popularity=popular),
        dna(popular),
        sequences=make_sequences(PURCHASES, max_purchases),
        negatives=NegativeSampler(PURCHASES, Availability.always(ARTICLES)),
        time_spec=SPEC,
        config=StyleLstmConfig(negatives=negatives, loss=loss),
        score=lambda network, offsets: 0.0,
        popularity=history if popular else None,
        offsets=offsets,
    )


def one_batch(training: StyleLstmStage, seed: int = 0) -> tuple[np.ndarray, tuple[Tensor, ...]]:
    """All chunks in one batch, in order of chunk; articles as that epoch shuffled them."""
    rng = np.random.default_rng(seed)
    training.batches(0, rng)
    rows = np.arange(len(training._sequences.start))
    return training._articles, training.batch(rows, rng, CPU)


def test_the_zero_start_is_zero_but_for_the_time_of_the_first_purchase() -> None:
    _, (steps, *_) = one_batch(stage())
    width = SPEC.width
    first = steps[:, 0].numpy()
    assert not first[:, : DNA_SIZE + width].any()  # f_0 and τ(t_0)
    assert not first[:, DNA_SIZE + 2 * width :].any()  # the gap
    assert first[:, DNA_SIZE + width : DNA_SIZE + 2 * width].any()  # τ(t_1)


def test_memory_starts_from_zero() -> None:
    network = StyleLstmNetwork(SPEC.step_size).eval()
    steps = torch.randn(2, 3, SPEC.step_size)
    zero = (torch.zeros(2, 256), torch.zeros(2, 256))
    assert torch.equal(network(steps)[0], network(steps, zero)[0])
    assert not torch.allclose(network(steps)[0], network(steps, (zero[0] + 1, zero[1]))[0])


def test_training_inputs_are_what_serving_computes() -> None:
    articles, (steps, *_) = one_batch(stage())
    vectors = dna()
    for chunk, (low, high) in enumerate([(0, 6), (6, 8), (8, 9)]):
        served = encode_history(SPEC, vectors[articles[low:high]], PURCHASES.timestamp[low:high], 10 * DAY)
        np.testing.assert_array_equal(steps[chunk, : high - low].numpy(), served[:-1])


def test_a_shuffle_moves_articles_within_their_order_alone() -> None:
    sequences = make_sequences(PURCHASES, 100)
    seen = {tuple(shuffle_orders(sequences, np.random.default_rng(seed)).tolist()) for seed in range(200)}
    for articles in seen:
        for low, high in [(0, 1), (1, 4), (4, 6), (6, 8), (8, 9)]:
            assert sorted(articles[low:high]) == PURCHASES.article[low:high].tolist()
    assert len(seen) == 6 * 2 * 2  # every order of every order occurs


def test_each_epoch_shuffles_anew() -> None:
    training = stage()
    epochs = {tuple(one_batch(training, seed)[0].tolist()) for seed in range(20)}
    assert len(epochs) > 5


def test_only_the_first_of_an_order_counts_after_the_shuffle() -> None:
    assert make_sequences(PURCHASES, 100).counts.tolist() == FIRST_OF_ORDER
    articles, (steps, places, bought, *_) = one_batch(stage(), seed=3)
    length = steps.shape[1]
    assert places.tolist() == [0, 1, 4, length, 2 * length]
    assert bought.tolist() == articles[[0, 1, 4, 6, 8]].tolist()


def test_articles_that_do_not_count_have_no_gradient() -> None:
    training = stage(loss="sigmoid")
    _, (steps, places, bought, negatives, popularity) = one_batch(training)
    captured: list[Tensor] = []
    network = training.lstm

    def keep(module: object, inputs: object, output: tuple[Tensor, object]) -> None:
        output[0].retain_grad()
        captured.append(output[0])

    network.register_forward_hook(keep)
    training.network(steps, places, bought, negatives, popularity)[0].backward()
    gradient = captured[0].grad
    assert gradient is not None
    touched = gradient.abs().sum(dim=2).flatten().nonzero().flatten()
    assert touched.tolist() == places.tolist()


def test_an_order_in_two_stretches_counts_once_and_never_mixes_with_the_one_between() -> None:
    split = purchases_of([(0, 1, 10, 0), (0, 2, 11, 0), (0, 3, 12, 1), (0, 4, 13, 0), (0, 5, 14, 0)])
    sequences = make_sequences(split, 100)
    assert sequences.counts.tolist() == [True, False, True, False, False]
    for seed in range(20):
        articles = shuffle_orders(sequences, np.random.default_rng(seed)).tolist()
        assert (sorted(articles[:2]), articles[2], sorted(articles[3:])) == ([1, 2], 3, [4, 5])


def test_a_customer_without_purchases_is_not_in_training() -> None:
    sequences = make_sequences(PURCHASES, 100)
    assert sequences.customer[sequences.start].tolist() == [0, 1, 3]


def test_nothing_to_learn_from_is_an_error() -> None:
    empty = PURCHASES.before(0)
    with pytest.raises(TrainingError, match="no purchase before the validation window"):
        StyleLstmStage(
            StyleLstmNetwork(SPEC.step_size),
            dna(),
            sequences=make_sequences(empty, 100),
            negatives=NegativeSampler(empty, Availability.always(ARTICLES)),
            time_spec=SPEC,
            config=StyleLstmConfig(),
            score=lambda network, offsets: 0.0,
        )


def test_a_long_history_is_cut_and_a_later_chunk_does_not_count_its_first_prediction() -> None:
    sequences = make_sequences(PURCHASES, 4)
    assert sequences.start.tolist() == [0, 4, 6, 8]
    assert sequences.length.tolist() == [4, 2, 2, 1]
    expected = list(FIRST_OF_ORDER)
    expected[4] = False
    assert sequences.counts.tolist() == expected


def test_every_chunk_is_in_one_batch_and_batches_hold_like_lengths() -> None:
    length = np.random.default_rng(0).integers(1, 50, size=1_000)
    batches = length_batches(length, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1_000))
    padded = sum(len(rows) * length[rows].max() for rows in batches)
    assert padded < 1.15 * length.sum()


# --- the losses of equation 2, against formulas of their own ---------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def rank_by_hand(positive: float, negative: np.ndarray) -> float:
    return float(np.mean([sigmoid(np.float64(other - positive)) for other in negative]))


def sigmoid_by_hand(positive: float, negative: np.ndarray) -> float:
    return float(-np.log(sigmoid(np.float64(positive))) - sum(np.log(sigmoid(-other)) for other in negative))


def softmax_by_hand(positive: float, negative: np.ndarray) -> float:
    return float(-np.log(np.exp(positive) / (np.exp(positive) + np.exp(negative).sum())))


BY_HAND = {"rank": rank_by_hand, "sigmoid": sigmoid_by_hand, "softmax": softmax_by_hand}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_equation_2(name: str) -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(size=5), rng.normal(size=(5, 7))
    loss = LOSSES[name](torch.from_numpy(positive), torch.from_numpy(negative)).numpy()
    expected = [BY_HAND[name](*pair) for pair in zip(positive, negative, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


@pytest.mark.parametrize("popular", [False, True])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_training_sums_the_chosen_loss_over_the_predictions(name: str, popular: bool) -> None:
    training = stage(loss=name, popular=popular)
    _, (steps, places, bought, negatives, popularity) = one_batch(training)
    module = training.network
    assert isinstance(module, StyleLstmTraining)
    total, weight = module(steps, places, bought, negatives, popularity)
    with torch.no_grad():
        styles = training.lstm(steps)[0].flatten(0, 1)[places].double().numpy()
    times = [1 * DAY, 5 * DAY, 9 * DAY, 2 * DAY, 3 * DAY]
    expected = 0.0
    for style, one, others, time in zip(styles, bought.numpy(), negatives.numpy(), times, strict=True):
        vectors = dna(popular).astype(np.float64)
        if popular:  # as it was a week after the first sale, or with the first
            reading = 1 * DAY + (time - 1 * DAY) // (7 * DAY) * 7 * DAY
            sold = RecentSales(PURCHASES, ARTICLES).decayed(reading, 7.0)
            vectors = vectors + np.outer(popularity_component(sold), np.eye(DNA_SIZE)[POPULARITY])
        expected += BY_HAND[name](float(style @ vectors[one]), vectors[others] @ style)
    assert float(weight) == 5
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_popularity_is_ranked_by_and_never_read() -> None:
    training = stage(popular=True)
    network, (steps, *rest) = training.lstm, one_batch(training)[1]
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    before = network.project.bias[POPULARITY].item()
    for _ in range(3):
        optimiser.zero_grad()
        training.network(steps, *rest)[0].backward()
        optimiser.step()
    assert network.project.bias[POPULARITY].item() != before
    louder = steps.clone()
    louder[..., POPULARITY] = 9.0
    torch.testing.assert_close(network(louder)[0], network(steps)[0])


def test_affinities_are_float32_under_mixed_precision() -> None:
    class Projection(StyleLstmNetwork):  # the CPU has no LSTM in half precision
        def forward(self, steps: Tensor, memory: object = None) -> tuple[Tensor, object]:
            return self.project(steps[..., :1].expand(-1, -1, 256)), memory

    _, (steps, places, bought, negatives, popularity) = one_batch(stage())
    seen: list[torch.dtype] = []

    def loss(positive: Tensor, negative: Tensor) -> Tensor:
        seen.extend([positive.dtype, negative.dtype])
        return positive

    with torch.autocast("cpu", torch.bfloat16):
        StyleLstmTraining(Projection(SPEC.step_size), dna(), loss)(steps, places, bought, negatives, popularity)
    assert seen == [torch.float32, torch.float32]


# --- offsets of articles -----------------------------------------------------------------------------------------


def some_offsets(penalty: float = 0.0, dropout: float = 0.0) -> ArticleOffsets:
    offsets = ArticleOffsets(ARTICLES, penalty, dropout)
    torch.nn.init.normal_(offsets.offset, generator=torch.Generator().manual_seed(1))
    return offsets


def test_offsets_are_read_and_ranked_by_as_part_of_fashion_dna() -> None:
    offsets = some_offsets()
    articles, (steps, places, bought, negatives, popularity) = one_batch(stage(loss="softmax", offsets=offsets))
    plain = stage(loss="softmax")
    plain._dna = dna() + offsets.table()
    served = encode_history(SPEC, plain._dna[articles[:6]], PURCHASES.timestamp[:6], 10 * DAY)
    np.testing.assert_allclose(steps[0, :6].numpy(), served[:-1], rtol=1e-6)
    with torch.no_grad():
        expected = StyleLstmTraining(plain.lstm, plain._dna, LOSSES["softmax"])
        training = StyleLstmTraining(plain.lstm, dna(), LOSSES["softmax"], offsets.eval())
        batch = (steps, places, bought, negatives, popularity)
        torch.testing.assert_close(training(*batch), expected(*batch))


def test_an_offset_says_nothing_of_sales() -> None:
    assert not some_offsets().table()[:, POPULARITY].any()


def test_offsets_are_drawn_to_zero() -> None:
    offsets = some_offsets(penalty=0.5)
    batch = one_batch(stage())[1]
    network = stage().lstm
    with torch.no_grad():
        without = StyleLstmTraining(network, dna(), LOSSES["rank"], some_offsets())(*batch)[0]
        with_penalty = StyleLstmTraining(network, dna(), LOSSES["rank"], offsets)(*batch)[0]
    lengths = np.square(offsets.table()).sum(axis=1)
    assert float(with_penalty - without) == pytest.approx(5 * 0.5 * lengths.mean(), rel=1e-4)  # 5 predictions


def test_some_articles_go_without_while_training_and_none_afterwards() -> None:
    offsets = some_offsets(dropout=0.5)
    torch.manual_seed(0)
    seen = torch.stack([offsets() for _ in range(50)])
    whole = torch.from_numpy(offsets.table())
    without = (seen == 0).all(dim=-1)
    assert 0.3 < float(without.float().mean()) < 0.7
    assert bool(((seen == whole).all(dim=-1) | without).all())
    torch.testing.assert_close(offsets.eval()(), whole)


def test_an_offset_learns_what_no_record_tells() -> None:
    """Of two articles alike, one is bought by everybody, and the other is not."""
    offsets = ArticleOffsets(ARTICLES, 0.01, 0.0)
    training = stage(loss="softmax", negatives=8, offsets=offsets)
    module = training.network
    assert isinstance(module, StyleLstmTraining)
    alike = dna()
    alike[:] = alike[0]
    module.get_buffer("dna").copy_(torch.from_numpy(alike))
    training._dna = alike
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for seed in range(60):
        _, batch = one_batch(training, seed)
        optimiser.zero_grad()
        module(*batch)[0].backward()
        optimiser.step()
    style = training.lstm.eval()(batch[0])[0].flatten(0, 1)[batch[1]].detach().numpy().mean(axis=0)
    scores = (alike + offsets.table()) @ style
    sold = np.isin(np.arange(ARTICLES), PURCHASES.article)
    assert scores[sold].mean() > scores[~sold].mean() + 0.1


# --- reading styles --------------------------------------------------------------------------------------------


def test_a_style_is_read_from_the_purchases_up_to_its_time() -> None:
    network, vectors = StyleLstmNetwork(SPEC.step_size).eval(), dna()
    customers = np.asarray([0, 0, 1, 2, -1, 3])
    times = np.asarray([9 * DAY - 1, 9 * DAY, 2 * DAY - 1, 4 * DAY, 4 * DAY, 8 * DAY])
    styles = styles_at(network, SPEC, vectors, PURCHASES, customers, times)
    histories = [range(4), range(6), range(0), range(0), range(0), range(8, 9)]
    for style, rows, time in zip(styles, histories, times, strict=True):
        steps = encode_history(SPEC, vectors[PURCHASES.article[rows]], PURCHASES.timestamp[rows], int(time))
        with torch.no_grad():
            alone = network(torch.from_numpy(steps)[None])[0][0, -1].numpy()
        np.testing.assert_allclose(style, alone, atol=1e-6)
    np.testing.assert_array_equal(styles[3], styles[4])  # somebody without purchases is served from d_1


def test_styles_do_not_depend_on_how_customers_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    network, vectors = StyleLstmNetwork(SPEC.step_size).eval(), dna()
    customers, times = np.asarray([0, 1, 2, 3]), np.full(4, 20 * DAY)
    whole = styles_at(network, SPEC, vectors, PURCHASES, customers, times)
    monkeypatch.setattr("offline.style_lstm._READ_STEPS", 1)
    np.testing.assert_allclose(styles_at(network, SPEC, vectors, PURCHASES, customers, times), whole, atol=1e-6)


def test_the_network_keeps_to_the_papers_size() -> None:
    weights = sum(parameter.numel() for parameter in StyleLstmNetwork(SPEC.step_size).parameters())
    assert weights < 1_000_000
