from __future__ import annotations

from itertools import pairwise
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interruptions import StopAfter, Stopped
from searching_shops import HOUR, Step, at, write_searching_shop

import offline.models.core
from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.generation import load_ids, write_ids
from offline.config import IdEmbeddingsConfig
from offline.core import (
    Actions,
    CoreStage,
    CoreTable,
    HeldOut,
    cut_sequences,
    held_out_ranks,
    hold_out,
    popularity_ranks,
    read_actions,
    train_core,
)
from offline.models.core import CoreNetwork, CoreTraining, cosine_cross_entropy
from offline.progress import Progress

CPU = torch.device("cpu")
SMALL = IdEmbeddingsConfig(
    layers=1, inner=32, dropout=0.0, item_dropout=0.1, max_actions=8, batch=32, epochs=5, lr=0.01, cold_share=0.1
)


# --- the equations of Hou et al. 2022, computed again in numpy ---------------------------------------------------

SEQUENCE = [2, 0, 3, 1]
TEMPERATURE = 0.07


def network(variant: str = "trm", **options: object) -> CoreNetwork:
    """Four known articles, every weight random, in evaluation mode."""
    config = IdEmbeddingsConfig(variant=variant, layers=2, heads=2, inner=24, max_actions=6, **options)
    made = CoreNetwork(4, config).eval()
    for weight in made.parameters():
        weight.data = torch.randn_like(weight) * 0.3
    if variant == "trm":
        made.weights.get_submodule("read").get_parameter("weight").data *= 20  # weights that clearly differ
    return made


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def norm(rows: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    scaled = (rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(rows: np.ndarray, weights: dict[str, np.ndarray], name: str, heads: int) -> np.ndarray:
    """Every action looks at itself and those before it."""
    projected = rows @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    query, key, value = np.split(projected, 3, axis=1)
    size = rows.shape[1] // heads
    mixed = np.zeros_like(rows)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for now in range(len(rows)):
            share = softmax(key[: now + 1, part] @ query[now, part] / sqrt(size))
            mixed[now, part] = share @ value[: now + 1, part]
    return mixed @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))


def alpha_by_hand(core: CoreNetwork, rows: np.ndarray) -> np.ndarray:
    """α of one session (equations 3 to 5): the softmax over its positions of what is read from the transformer."""
    weights = {name: value.double().numpy() for name, value in core.weights.state_dict().items()}
    hidden = norm(rows + weights["position.weight"][: len(rows)], weights, "norm")
    for layer in range(2):
        name = f"layers.layers.{layer}"
        hidden = norm(hidden + attention(hidden, weights, f"{name}.self_attn", 2), weights, f"{name}.norm1")
        inner = gelu(hidden @ weights[f"{name}.linear1.weight"].T + weights[f"{name}.linear1.bias"])
        outer = inner @ weights[f"{name}.linear2.weight"].T + weights[f"{name}.linear2.bias"]
        hidden = norm(hidden + outer, weights, f"{name}.norm2")
    return softmax(hidden @ weights["read.weight"][0])


def session_by_hand(core: CoreNetwork, sequence: list[int]) -> np.ndarray:
    """h_s / |h_s| (equation 1)."""
    rows = core.table.weight.detach().double().numpy()[sequence]
    alpha = alpha_by_hand(core, rows) if core.weights.state_dict() else np.full(len(sequence), 1 / len(sequence))
    session = alpha @ rows
    return session / np.linalg.norm(session)


def loss_by_hand(core: CoreNetwork, sequence: list[int], target: int) -> float:
    """Equation 6 over the known articles."""
    table = core.table.weight.detach().double().numpy()[:4]
    cosine = np.array([row @ session_by_hand(core, sequence) / np.linalg.norm(row) for row in table])
    return float(-np.log(softmax(cosine / TEMPERATURE)[target]))


@pytest.mark.parametrize("variant", ["trm", "ave"])
def test_sessions_and_their_weights_follow_the_equations(variant: str) -> None:
    core = network(variant)
    with torch.no_grad():
        found = core(torch.tensor([SEQUENCE]))[0].numpy()
        alpha = core.weights(core.table(torch.tensor([SEQUENCE])))[0].numpy()
    for length in range(1, len(SEQUENCE) + 1):
        np.testing.assert_allclose(found[length - 1], session_by_hand(core, SEQUENCE[:length]), atol=2e-5)
    if variant == "trm":
        rows = core.table.weight.detach().double().numpy()[SEQUENCE]
        np.testing.assert_allclose(alpha[-1], alpha_by_hand(core, rows), atol=2e-5)
        assert alpha[-1].std() > 0.1  # or the check above would say little
    np.testing.assert_allclose(alpha.sum(axis=1), 1, atol=1e-6)
    assert not np.triu(alpha, 1).any()


@pytest.mark.parametrize("variant", ["trm", "ave"])
def test_the_loss_follows_the_equations(variant: str) -> None:
    core = network(variant)
    training = CoreTraining(core, TEMPERATURE).eval()
    articles = torch.tensor([SEQUENCE, [1, 1, 4, 4]])  # the second: two actions, and padding behind them
    places, targets = torch.tensor([1, 3, 5]), torch.tensor([3, 0, 2])
    loss, number = training(articles, places, targets)
    expected = [loss_by_hand(core, SEQUENCE[:2], 3), loss_by_hand(core, SEQUENCE, 0), loss_by_hand(core, [1, 1], 2)]
    assert loss.item() == pytest.approx(sum(expected), rel=1e-4)
    assert number.item() == 3


def test_the_length_of_an_embedding_does_not_change_the_loss() -> None:
    core = network("ave")
    places, targets = torch.tensor([0]), torch.tensor([3])
    before = CoreTraining(core, TEMPERATURE).eval()(torch.tensor([[2]]), places, targets)[0].item()
    core.table.weight.data *= torch.tensor([1.0, 5.0, 0.1, 3.0, 1.0])[:, None]
    after = CoreTraining(core, TEMPERATURE).eval()(torch.tensor([[2]]), places, targets)[0].item()
    assert after == pytest.approx(before, rel=1e-4)


def test_a_large_catalogue_is_scored_in_parts_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for logits in (1 << 25, 8):  # all at once; two predictions at a time
        monkeypatch.setattr(offline.models.core, "_LOGITS", logits)
        torch.manual_seed(1)
        core = network()
        loss, _ = CoreTraining(core, TEMPERATURE)(torch.tensor([SEQUENCE]), torch.arange(4), torch.tensor([0, 1, 2, 3]))
        loss.backward()
        gradients.append((loss.item(), core.table.weight.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-5)


def test_item_dropout_is_on_sessions_and_articles_while_training_alone() -> None:
    core = network("ave", item_dropout=0.5)
    articles = torch.tensor([SEQUENCE])
    assert torch.equal(core(articles), core(articles))
    assert torch.equal(core.known(), core.known())
    core.train()
    assert not torch.equal(core(articles), core(articles))
    assert (core.known() == 0).float().mean() > 0.3


def test_the_cross_entropy_is_over_all_known_articles() -> None:
    rng = np.random.default_rng(0)
    sessions, known = rng.normal(size=(3, 4)), rng.normal(size=(6, 4))
    expected = sum(-np.log(softmax(known @ sessions[row] / 0.5)[row]) for row in range(3))
    found = cosine_cross_entropy(torch.from_numpy(sessions), torch.from_numpy(known), torch.arange(3), 0.5)
    assert found.item() == pytest.approx(expected)


# --- sequences ---------------------------------------------------------------------------------------------------

TITLES = {name: f"thing {name}" for name in "abcdef"}


def actions_of(folder: Path, steps: list[Step], until: float = 1_000) -> list[list[tuple[str, float, bool]]]:
    """(article, hours, bought) of each customer."""
    data = write_searching_shop(folder / "shop", TITLES, steps)
    actions = read_actions(data, at(until))
    rows = [
        (data.article_ids[article], (time - at(0)) / HOUR, bool(bought))
        for article, time, bought in zip(actions.article, actions.time, actions.bought, strict=True)
    ]
    return [rows[low:high] for low, high in zip(actions.offsets[:-1], actions.offsets[1:], strict=True)]


def test_a_sequence_is_clicks_and_kept_purchases_in_time_order(tmp_path: Path) -> None:
    steps: list[Step] = [
        *[("purchase", "y", "d", 1.0), ("click", "y", "e", 2.0)],
        *[
            ("click", "x", "b", 2.0),
            ("purchase", "x", "a", 1.0),
            ("search", "x", "coat", 2.5),
            ("click", "x", "c", 3.0),
        ],
        *[("purchase", "x", "f", 4.0), ("return", "x", "f", 5.0)],
        *[("click", "z", "a", 1.0)],  # never bought anything
    ]
    x = [("a", 1.0, True), ("b", 2.0, False), ("c", 3.0, False)]
    assert actions_of(tmp_path, steps) == [x, [("d", 1.0, True), ("e", 2.0, False)]]


def test_clicks_on_what_is_bought_are_left_out_and_equal_clicks_in_a_row_count_once(tmp_path: Path) -> None:
    clicks = [("a", 1.0), ("b", 2.0), ("b", 2.5), ("c", 3.0), ("b", 3.5), ("a", 9.0)]
    steps: list[Step] = [("click", "x", article, hours) for article, hours in clicks]
    steps += [("purchase", "x", "a", 4.0), ("purchase", "x", "a", 5.0)]
    expected = [("b", 2.0, False), ("c", 3.0, False), ("b", 3.5, False), ("a", 4.0, True), ("a", 5.0, True)]
    assert actions_of(tmp_path, steps) == [expected]


def test_nothing_at_or_after_the_end_is_read(tmp_path: Path) -> None:
    steps: list[Step] = [("click", "x", "a", 1.0), ("purchase", "x", "b", 2.0), ("purchase", "x", "a", 3.0)]
    assert actions_of(tmp_path, steps, until=3.0) == [[("a", 1.0, False), ("b", 2.0, True)]]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 9))
def test_every_action_that_another_follows_is_an_input_once(seed: int, lengths: list[int], size: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    start, length = cut_sequences(offsets, size, np.random.default_rng(seed))
    covered = [place for low, number in zip(start, length, strict=True) for place in range(low, low + number)]
    last = {int(end) - 1 for low, end in pairwise(offsets) if end > low}
    assert sorted(covered) == [place for place in range(int(offsets[-1])) if place not in last]
    assert all(1 <= number <= size for number in length)
    customer = np.repeat(np.arange(len(lengths)), lengths)
    for low, number in zip(start, length, strict=True):
        assert len(set(customer[low : low + number + 1])) == 1


def test_sequences_are_cut_anew_each_epoch() -> None:
    offsets = np.array([0, 50], np.int64)
    cuts = {tuple(cut_sequences(offsets, 8, np.random.default_rng(seed))[0]) for seed in range(30)}
    assert len(cuts) == 8


ACTIONS = Actions(
    np.array([0, 5, 7]),
    np.array([0, 1, 2, 3, 4, 5, 1]),
    np.arange(7),
    np.array([False, True, False, True, True, True, False]),
)


def core_stage(place: np.ndarray, known: int, **changes: object) -> CoreStage:
    config = SMALL.model_copy(update={"cold_share": 0.0, "batch": 1, **changes})
    nothing = HeldOut([], np.zeros(0, np.int64), np.ones(known, dtype=bool))
    return CoreStage(CoreNetwork(known, config), ACTIONS, place, held_out=nothing, config=config)


def test_purchases_are_foretold_from_what_comes_before_them() -> None:
    stage = core_stage(np.arange(6), 6)
    (rows,) = stage.batches(0, np.random.default_rng(0))  # the second customer buys nothing after another action
    articles, places, targets = stage.batch(rows, np.random.default_rng(0), CPU)
    assert articles.tolist() == [[0, 1, 2, 3]]
    assert (places.tolist(), targets.tolist()) == ([0, 2, 3], [1, 3, 4])


def test_clicks_are_foretold_too_where_asked_for() -> None:
    stage = core_stage(np.arange(6), 6, predict="actions")
    batches = [stage.batch(rows, np.random.default_rng(0), CPU) for rows in stage.batches(0, np.random.default_rng(0))]
    assert sorted(target for _, _, targets in batches for target in targets.tolist()) == [1, 1, 2, 3, 4]


def test_unknown_articles_are_cold_inputs_and_never_answers() -> None:
    place = np.array([0, 3, 1, 2, 3, 3])  # articles 1, 4 and 5 are not known
    stage = core_stage(place, 3)
    (rows,) = stage.batches(0, np.random.default_rng(0))
    articles, places, targets = stage.batch(rows, np.random.default_rng(0), CPU)
    assert articles.tolist() == [[0, 3, 1, 2]]
    assert (places.tolist(), targets.tolist()) == ([2], [2])


def test_known_articles_are_made_cold_now_and_then_as_inputs_alone() -> None:
    stage = core_stage(np.arange(6), 6, cold_share=0.5)
    rng = np.random.default_rng(0)
    (rows,) = stage.batches(0, rng)
    drawn = [stage.batch(rows, rng, CPU) for _ in range(400)]
    cold = torch.stack([articles[0] == 6 for articles, *_ in drawn]).float().mean(dim=0)
    assert ((cold > 0.4) & (cold < 0.6)).all()
    assert all(targets.tolist() == [1, 3, 4] for *_, targets in drawn)


def test_an_epoch_draws_at_most_so_many_sequences() -> None:
    stage = core_stage(np.arange(6), 6, max_actions=1, predict="actions")
    assert len(stage.batches(0, np.random.default_rng(0))) == 5
    stage = core_stage(np.arange(6), 6, max_actions=1, predict="actions", max_sequences=2)
    assert len(stage.batches(0, np.random.default_rng(0))) == 2


# --- what is held out --------------------------------------------------------------------------------------------


def test_held_out_purchases_are_foretold_from_what_is_strictly_before_them() -> None:
    actions = Actions(
        np.array([0, 5, 6]),
        np.array([0, 1, 2, 3, 4, 5]),
        np.array([1, 2, 5, 9, 9, 9]),
        np.array([False, True, False, True, True, True]),
    )
    allowed = np.array([True, True, True, True, False])
    held_out = hold_out(actions, np.array([0, 1, 2, 3, 5, 4]), 3, 2, allowed, np.random.default_rng(0))
    assert [sequence.tolist() for sequence in held_out.sequences] == [[1, 2], [1, 2]]  # the latest two
    assert held_out.target.tolist() == [3, -1]  # the second is not known; who did nothing before is not asked


def test_ranks_are_among_what_is_in_stock_and_what_cannot_be_shown_is_missed() -> None:
    core = network("ave")
    sequences = [np.array([0, 1]), np.array([2]), np.array([3]), np.array([4])]
    held_out = HeldOut(sequences, np.array([3, 2, -1, 0]), np.array([True, True, False, True]))
    table = core.table.weight.detach().double().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    expected = [np.inf] * 4
    for row in (0, 3):
        score = table @ session_by_hand(core, sequences[row].tolist())
        shown = [0, 1, 3]
        expected[row] = 1 + sum(score[other] > score[held_out.target[row]] for other in shown)
    found = held_out_ranks(core, held_out)
    assert found.tolist() == expected


def test_popularity_ranks_by_what_was_bought_in_training() -> None:
    held_out = HeldOut([np.array([0])] * 3, np.array([0, 2, -1]), np.array([True, False, True, True]))
    actions = Actions(np.array([0, 5]), np.array([0, 1, 2, 2, 3]), np.arange(5), np.array([True] * 5))
    # sold 1, -, 2, 1: the second is out of stock
    assert popularity_ranks(actions, np.arange(4), held_out).tolist() == [2.5, 1.0, np.inf]


# --- known answers -----------------------------------------------------------------------------------------------

ARTICLES, DAYS = 60, 60


def chain_shop(folder: Path, *, planted: bool = True) -> DataSet:
    """Each purchase is of the article behind the customer's last one on a ring; else of any article."""
    rng = np.random.default_rng(0)
    ring = rng.permutation(ARTICLES)
    steps: list[Step] = []
    for customer in range(60):
        place = int(rng.integers(ARTICLES))
        for day in range(0, DAYS, 2):
            place = place + 1 if planted else int(rng.integers(ARTICLES))
            steps.append(("purchase", f"c{customer:02d}", f"a{ring[place % ARTICLES]:02d}", day * 24.0 + customer / 9))
    return write_searching_shop(folder, {f"a{number:02d}": "thing" for number in range(ARTICLES + 1)}, steps)


def train(
    data: DataSet, folder: Path, config: IdEmbeddingsConfig = SMALL, progress: Progress | None = None
) -> CoreTable:
    return train_core(
        data,
        config,
        until=at((DAYS - 10) * 24),
        held_out_until=at(DAYS * 24),
        seed=0,
        checkpoint=folder / "id_embeddings.pt",
        recipe="r",
        progress=progress,
    )


def test_a_planted_chain_is_found(tmp_path: Path) -> None:
    assert max(row["score"] for row in train(chain_shop(tmp_path / "shop"), tmp_path).curve) > 0.9


def test_in_purchases_at_random_nothing_is_found(tmp_path: Path) -> None:
    table = train(chain_shop(tmp_path / "shop", planted=False), tmp_path)
    assert max(row["score"] for row in table.curve) < 1.5 * 10 / ARTICLES


def test_neighbours_on_the_chain_are_neighbours_in_the_table(tmp_path: Path) -> None:
    data = chain_shop(tmp_path / "shop")
    table = train(data, tmp_path)
    ring = np.random.default_rng(0).permutation(ARTICLES)
    cosine = table.embedding @ table.embedding.T
    assert cosine[ring, np.roll(ring, -1)].mean() > cosine.mean() + 0.3


def test_the_table_is_what_a_bundle_keeps_and_the_cold_embedding_is_trained(tmp_path: Path) -> None:
    data = chain_shop(tmp_path / "shop")
    short = SMALL.model_copy(update={"epochs": 1})
    table = train(data, tmp_path, short)
    assert table.rows.tolist() == list(range(ARTICLES))  # the last article was never seen
    np.testing.assert_allclose(np.linalg.norm(table.embedding, axis=1), 1, atol=1e-5)
    write_ids(tmp_path, table.embedding, table.rows, table.cold)
    ids = load_ids(tmp_path, data.article_ids)
    np.testing.assert_array_equal(ids.of([f"a{ARTICLES}", "nothing at all"]), [table.cold, table.cold])
    np.testing.assert_array_equal(ids.of(["a07"])[0], table.embedding[7])
    untrained = train(data, tmp_path / "other", short.model_copy(update={"cold_share": 0.0}))
    assert table.cold @ untrained.cold < 0.99  # nothing moves it but standing in for others


def test_articles_with_few_actions_share_the_cold_embedding(tmp_path: Path) -> None:
    steps: list[Step] = [("purchase", "x", article, hour) for hour, article in enumerate("abcabcab" + "d")]
    data = write_searching_shop(tmp_path / "shop", TITLES, steps)
    config = SMALL.model_copy(update={"min_actions": 2, "epochs": 1})
    assert train(data, tmp_path, config).rows.tolist() == [0, 1, 2]


def test_data_without_anything_to_foretell_are_an_error(tmp_path: Path) -> None:
    data = write_searching_shop(tmp_path / "shop", TITLES, [("purchase", "x", "a", 1.0)])
    with pytest.raises(TrainingError, match="nobody bought anything after another action"):
        train(data, tmp_path)


@pytest.mark.parametrize("variant", ["trm", "ave"])
def test_a_training_that_was_stopped_goes_on_where_it_was(tmp_path: Path, variant: str) -> None:
    data = chain_shop(tmp_path / "shop")
    config = SMALL.model_copy(update={"epochs": 2, "checkpoint_steps": 1, "dropout": 0.2, "variant": variant})
    with pytest.raises(Stopped):
        train(data, tmp_path / "stopped", config, progress=StopAfter(8))
    resumed, whole = train(data, tmp_path / "stopped", config), train(data, tmp_path / "whole", config)
    np.testing.assert_array_equal(resumed.embedding, whole.embedding)
    np.testing.assert_array_equal(resumed.cold, whole.cold)
