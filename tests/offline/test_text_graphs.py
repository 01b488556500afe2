from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_store.generation import TextEncoder, pad_tokens
from offline.models.title_encoder import TitleEncoderNetwork
from offline.text_graphs import TOLERANCE, parity, write_text_encoder
from offline.title_encoder import TitleEncoder, encode_tokens, read_tokenizer_text, train_tokenizer

TEXTS = ["red coat", "", "a green hat with a very long name", "платье", "coat " * 100]
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def encoder() -> TitleEncoder:
    """In training mode and with dropout, as training leaves it."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["red coat", "blue coat", "green hat"] * 3, 400)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = TitleEncoderNetwork(read_tokenizer_text(tokenizer).get_vocab_size(), 20, 36, dropout=0.5)
    return TitleEncoder(tokenizer, network.train(), [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder: TitleEncoder) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "tokenizer.json").write_text(encoder.tokenizer, encoding="utf-8")
    write_text_encoder(folder / "encoder.onnx", encoder.network)
    return folder


@pytest.fixture(scope="module")
def graph(folder: Path) -> TextEncoder:
    return TextEncoder(folder / "encoder.onnx", folder / "tokenizer.json")


@given(SEEDS, st.lists(st.integers(1, 48), min_size=1, max_size=9), st.integers(0, 3))
def test_texts_of_any_lengths_in_one_padded_batch(
    graph: TextEncoder, encoder: TitleEncoder, seed: int, lengths: list[int], extra: int
) -> None:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, 270, length).tolist() for length in lengths]
    inputs = pad_tokens([*tokens, [1] * (max(lengths) + extra)])
    found = graph.run(inputs)[0]
    alone = np.concatenate([encode_tokens(encoder.network, [one]) for one in tokens])
    np.testing.assert_allclose(found[:-1], alone, atol=TOLERANCE)


def test_what_lies_behind_a_text_does_not_count(graph: TextEncoder) -> None:
    inputs = pad_tokens([[5, 6], [7, 8, 9, 10]])
    other = {**inputs, "token_ids": inputs["token_ids"].copy()}
    other["token_ids"][0, 2:] = 269
    np.testing.assert_array_equal(graph.run(inputs)[0], graph.run(other)[0])


def test_the_graph_gives_what_torch_gives(folder: Path, encoder: TitleEncoder) -> None:
    assert parity(folder / "encoder.onnx", folder / "tokenizer.json", encoder, TEXTS) <= TOLERANCE
    assert parity(folder / "encoder.onnx", folder / "tokenizer.json", encoder, []) == 0


def test_parity_tells_another_network(folder: Path, encoder: TitleEncoder, tmp_path: Path) -> None:
    other = TitleEncoderNetwork(encoder.network.embedding.num_embeddings, 20, 36)
    other.load_state_dict(encoder.network.state_dict())
    with torch.no_grad():
        other.lstm.get_parameter("weight_hh_l0")[40:60] *= 1.1  # the forget gates
    write_text_encoder(tmp_path / "other.onnx", other)
    assert parity(tmp_path / "other.onnx", folder / "tokenizer.json", encoder, TEXTS) > 10 * TOLERANCE
