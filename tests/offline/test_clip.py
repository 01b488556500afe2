from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from searching_shops import at, write_searching_shop
from tiny_clip import END, tiny_clip
from tokenizers import Tokenizer

from model_store.errors import InvalidConfig
from model_store.generation import QUERY_ENCODER, QUERY_TOKENIZER, TextEncoder
from offline.clip import fit_projection, load_clip, write_clip_encoder
from offline.config import QueryMemoryConfig
from offline.query_memory import build_memory

QUERIES = ["navy jacket", "red coat", "red", "striped dress", "8 inch heels", "платье", "coat in red"]


def own_embeddings(folder: Path, texts: list[str], **options: int) -> np.ndarray:
    """As transformers computes them, one text at a time, of length 1."""
    model, tokenizer = tiny_clip(folder, **options)
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([tokenizer.encode(text).ids])).text_embeds[0] for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1).numpy()


@pytest.mark.parametrize("projection", [160, 128, 24])
def test_cosines_of_the_shops_queries_are_clips_own(tmp_path: Path, projection: int) -> None:
    expected = own_embeddings(tmp_path, QUERIES, projection=projection)
    found = load_clip(tmp_path, QUERIES).encode(QUERIES)
    assert found.shape == (len(QUERIES), 128)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert (expected @ expected.T).min() < 0.9  # or the check above would say little


def test_a_text_is_the_same_alone_and_among_others_and_when_cut_off(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    encoder = load_clip(tmp_path, QUERIES)
    texts = [*QUERIES, "", END, "x" * 500, "x" * 48]
    together = encoder.encode(texts)
    np.testing.assert_allclose(together, np.concatenate([encoder.encode([text]) for text in texts]), atol=1e-6)
    assert np.abs(together[-1] - together[-2]).max() > 1e-3  # 48 letters end a word, 500 do not
    assert len(np.unique(together.round(5), axis=0)) == len(texts)


@given(st.integers(0, 2**32 - 1), st.integers(129, 140), st.integers(1, 300))
def test_the_projection_is_orthogonal_and_no_other_keeps_more(seed: int, size: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    embedding = (rng.normal(size=(number, size)) * np.exp(-np.arange(size) / 20)).astype(np.float32)
    projection = fit_projection(embedding)
    np.testing.assert_allclose(projection.T @ projection, np.eye(128), atol=1e-5)
    kept = np.linalg.svd(embedding, compute_uv=False)[:128]
    assert np.square(embedding @ projection).sum() == pytest.approx(np.square(kept).sum(), rel=1e-4)


def test_a_memory_with_clips_keys_is_served_as_it_was_built(tmp_path: Path) -> None:
    tiny_clip(tmp_path / "clip")
    steps = [("search", "x", query, hour) for hour, query in enumerate(QUERIES)]
    results = [(query, "a", 1, 1.0) for query in QUERIES[:5]] + [("never searched by then", "a", 1, 9.0)]
    data = write_searching_shop(tmp_path / "shop", {"a": "coat", "b": "hat"}, steps, results)
    config = QueryMemoryConfig(clip=str(tmp_path / "clip"))
    out = tmp_path / "generation"
    out.mkdir()
    write_clip_encoder(config, out, data, known_at=at(5))
    served = TextEncoder(out / QUERY_ENCODER, out / QUERY_TOKENIZER)
    encoder = load_clip(tmp_path / "clip", sorted(QUERIES[:5]))
    np.testing.assert_allclose(served.encode(QUERIES), encoder.encode(QUERIES), atol=1e-5)
    memory = build_memory(data, served.encode, config, known_at=at(5))
    np.testing.assert_allclose(memory.keys, encoder.encode(memory.queries), atol=1e-5)


def test_a_model_that_reads_too_little_is_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path, places=32)
    with pytest.raises(InvalidConfig, match="reads 32 tokens; a query encoder must read 50"):
        load_clip(tmp_path, QUERIES)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(InvalidConfig, match="no CLIP text model"):
        load_clip(tmp_path, QUERIES)


def test_a_tokenizer_that_frames_no_text_is_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    Tokenizer(tokenizer.model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidConfig, match="puts no tokens around a text"):
        load_clip(tmp_path, QUERIES)
