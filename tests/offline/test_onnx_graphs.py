from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import sample_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.article_features import ArticleFeatures
from model_store.graphs import FashionDna, ImageEncoder, Memory, StyleLstm
from offline.bundling import Networks
from offline.models.fashion_dna import FashionDnaNetwork
from offline.models.style_lstm import StyleLstmNetwork
from offline.onnx_graphs import write_fashion_dna, write_image_encoder, write_style_lstm

TOLERANCE = 1e-4
SEEDS = st.integers(0, 2**32 - 1)
STEP = 139


@pytest.fixture(scope="module")
def networks() -> Networks:
    return sample_contents().networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_image_encoder(folder / "image_encoder.onnx", networks.residual, 24, 16)
    for norm in (False, True):
        write_fashion_dna(folder / f"dna_{norm}.onnx", fashion_dna(unit_norm=norm), 6, 16)
    write_style_lstm(folder / "style_lstm.onnx", style_lstm())
    return folder


def fashion_dna(*, unit_norm: bool) -> FashionDnaNetwork:
    """In training mode and with every kind of dropout, as training leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return FashionDnaNetwork(50, 6, 16, hidden=32, dropout=0.5, tag_dropout=0.5, unit_norm=unit_norm)


def style_lstm() -> StyleLstmNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return StyleLstmNetwork(STEP, dropout=0.5).eval()


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 9))
def test_pictures_any_number_at_once(folder: Path, networks: Networks, seed: int, batch: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (batch, 24, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = networks.residual(torch.from_numpy(images)).numpy()
    encoder = ImageEncoder(folder / "image_encoder.onnx")
    assert encoder.size == expected.shape[1]
    np.testing.assert_allclose(encoder.encode(images), expected, atol=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_articles_with_any_number_of_tags(folder: Path, seed: int, batch: int, tags: int, norm: bool) -> None:
    rng = np.random.default_rng(seed)
    features = ArticleFeatures(rng.integers(0, 51, (batch, tags)), random(rng, batch, 6))
    image = random(rng, batch, 16)
    with torch.no_grad():
        inputs = (torch.from_numpy(value) for value in (*features, image))
        expected = fashion_dna(unit_norm=norm).eval()(*inputs).numpy()
    found = FashionDna(folder / f"dna_{norm}.onnx").encode(features, image)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_padding_changes_nothing(folder: Path) -> None:
    rng = np.random.default_rng(0)
    tag_ids, numeric, image = rng.integers(1, 51, (3, 4)), random(rng, 3, 6), random(rng, 3, 16)
    graph = FashionDna(folder / "dna_False.onnx")
    padded = np.concatenate([tag_ids, np.zeros((3, 5), np.int64)], axis=1)
    plain = graph.encode(ArticleFeatures(tag_ids, numeric), image)
    np.testing.assert_allclose(graph.encode(ArticleFeatures(padded, numeric), image), plain, atol=1e-6)


def test_export_leaves_a_networks_mode_alone(folder: Path, tmp_path: Path) -> None:
    network = fashion_dna(unit_norm=False).train()
    write_fashion_dna(tmp_path / "x.onnx", network, 6, 16)
    assert network.training


# --- style LSTM --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 24), min_size=1, max_size=7), st.integers(0, 3))
def test_histories_of_any_lengths_in_one_batch(folder: Path, seed: int, lengths: list[int], extra: int) -> None:
    """Padded replay from any memory equals torch, one customer at a time and without padding."""
    rng, network = np.random.default_rng(seed), style_lstm()
    steps = random(rng, len(lengths), max(lengths) + extra, STEP)
    memory = Memory(random(rng, len(lengths), 256), random(rng, len(lengths), 256))
    graph = StyleLstm(folder / "style_lstm.onnx")
    styles, after = graph.run_steps(steps, np.array(lengths, np.int32), memory)
    for row, length in enumerate(lengths):
        own = torch.from_numpy(steps[row : row + 1, :length])
        state = tuple(torch.from_numpy(part[row : row + 1]) for part in memory)
        with torch.no_grad():
            expected, (hidden, cell) = network(own, state)
        np.testing.assert_allclose(styles[row, :length], expected[0].numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(after.hidden[row], hidden[0].numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(after.cell[row], cell[0].numpy(), atol=TOLERANCE)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 5), st.integers(1, 20))
def test_single_steps_equal_a_replay(folder: Path, seed: int, batch: int, time: int) -> None:
    steps = random(np.random.default_rng(seed), batch, time, STEP)
    graph = StyleLstm(folder / "style_lstm.onnx")
    styles, replayed = graph.run_steps(steps, np.full(batch, time, np.int32), Memory.zeros(batch))
    memory = Memory.zeros(batch)
    for now in range(time):
        style, memory = graph.step(steps[:, now], memory)
        np.testing.assert_allclose(style, styles[:, now], atol=1e-5)
    np.testing.assert_allclose(memory.hidden, replayed.hidden, atol=1e-5)
    np.testing.assert_allclose(memory.cell, replayed.cell, atol=1e-5)


def test_what_lies_past_a_length_does_not_count(folder: Path) -> None:
    rng, lengths = np.random.default_rng(1), np.array([2, 5], np.int32)
    steps = random(rng, 2, 5, STEP)
    other = steps.copy()
    other[0, 2:] = np.nan
    graph = StyleLstm(folder / "style_lstm.onnx")
    (one, after), (two, after_other) = (graph.run_steps(value, lengths, Memory.zeros(2)) for value in (steps, other))
    np.testing.assert_array_equal(one[0, :2], two[0, :2])
    np.testing.assert_array_equal(after.hidden, after_other.hidden)


def test_a_replay_can_be_cut_anywhere(folder: Path) -> None:
    steps = random(np.random.default_rng(2), 1, 12, STEP)
    graph = StyleLstm(folder / "style_lstm.onnx")
    whole, _ = graph.run_steps(steps, np.array([12], np.int32), Memory.zeros(1))
    for cut in range(1, 12):
        _, memory = graph.run_steps(steps[:, :cut], np.array([cut], np.int32), Memory.zeros(1))
        rest, _ = graph.run_steps(steps[:, cut:], np.array([12 - cut], np.int32), memory)
        np.testing.assert_allclose(rest, whole[:, cut:], atol=1e-5)


# --- files -------------------------------------------------------------------------------------------------------


def axes(values: list) -> dict[str, list]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def test_graphs_declare_the_shapes_they_take_and_give(folder: Path) -> None:
    style = onnx.load(folder / "style_lstm.onnx").graph
    assert axes(style.input) == {"steps": ["B", "T", STEP], "lengths": ["B"], "hidden": ["B", 256], "cell": ["B", 256]}
    assert axes(style.output) == {"style": ["B", "T", 128], "hidden_out": ["B", 256], "cell_out": ["B", 256]}
    image = onnx.load(folder / "image_encoder.onnx").graph
    assert axes(image.input) == {"image": ["batch", 24, 16, 3]}
    assert axes(image.output) == {"embedding": ["batch", 16]}
    dna = onnx.load(folder / "dna_True.onnx").graph
    assert axes(dna.input) == {"tag_ids": ["batch", "tags"], "numeric": ["batch", 6], "image_embedding": ["batch", 16]}
    assert axes(dna.output) == {"dna": ["batch", 128]}


def test_running_them_warns_of_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Onnxruntime writes to stderr where a shape is not as declared."""
    rng = np.random.default_rng(0)
    graph = StyleLstm(folder / "style_lstm.onnx")
    for batch, time in ((1, 1), (3, 7), (2, 50)):
        graph.run_steps(random(rng, batch, time, STEP), np.full(batch, time, np.int32), Memory.zeros(batch))
    encoder = ImageEncoder(folder / "image_encoder.onnx")
    for batch in (1, 5):
        encoder.encode(np.zeros((batch, 24, 16, 3), np.uint8))
    assert capfd.readouterr().err == ""


def test_graphs_do_not_tell_of_the_machine_that_wrote_them(folder: Path) -> None:
    here = str(Path(torch.__file__).parents[2]).encode()
    for path in folder.glob("*.onnx"):
        assert here not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()
