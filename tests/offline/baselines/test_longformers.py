"""What Recformer begins with: small networks from scratch, or those of a checkpoint, and the sum of its embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_longformer import SPECIAL, tiny_longformer
from torch import Tensor

from model_store.errors import InvalidConfig
from offline.baselines.longformers import SMALL, Start, from_checkpoint, from_scratch
from offline.baselines.sentences import Layout, sentence_of
from offline.baselines.tuning import Settings
from offline.models.recformer import CLS, KEY, PADDING, VALUE, RecformerNetwork, Tokens

WORDS = ["title", "red dress", "brand", "linje", "query", "wool coat"]
CPU = torch.device("cpu")
DRESS = {"title": "red dress", "brand": "linje"}


def read(start: Start, settings: Settings) -> tuple[RecformerNetwork, Layout]:
    torch.manual_seed(0)
    network, vocabulary = start.open(settings, WORDS)
    sizes = (int(settings[name]) for name in ("tokens", "sentences", "window"))
    return network.eval(), Layout(vocabulary, *sizes)


@pytest.fixture
def small() -> tuple[RecformerNetwork, Layout]:
    return read(from_scratch(), {**SMALL, "learning_rate": 1e-3})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_longformer(tmp_path / "tiny-longformer")
    return tmp_path / "tiny-longformer"


def three(layout: Layout) -> Tokens:
    """A dress; a dress and then a search; nothing."""
    dress, search = (sentence_of(each, layout.vocabulary) for each in (DRESS, {"query": "wool coat"}))
    return layout.tokens_of([[dress], [dress, search], []], CPU)


def test_what_is_read_is_the_normalised_sum_of_four_embeddings(small: tuple[RecformerNetwork, Layout]) -> None:
    """Equation 2, from the tables by hand: token, position, kind, place of the sentence."""
    network, layout = small
    tokens, tables = three(layout), network.longformer.longformer.embeddings
    for row in range(2):
        for place in range(tokens.token.shape[1]):
            kind = int(tokens.kind[row, place])
            if kind == PADDING:
                continue
            total = (
                tables.word_embeddings.weight[tokens.token[row, place]]
                + tables.position_embeddings.weight[layout.vocabulary.padding + 1 + place]
                + tables.token_type_embeddings.weight[kind]
                + network.sentence.weight[tokens.sentence[row, place]]
            )
            scaled = (total - total.mean()) / (total.var(unbiased=False) + 1e-12).sqrt()
            assert torch.allclose(network.embedded(tokens)[row, place], scaled, atol=1e-5)


def test_cls_alone_attends_to_all(small: tuple[RecformerNetwork, Layout], monkeypatch: pytest.MonkeyPatch) -> None:
    network, layout = small
    tokens = three(layout)
    seen: dict[str, Tensor] = {}
    body = network.longformer.longformer
    forward = body.forward

    def noted(**arguments: Tensor) -> object:
        seen.update(arguments)
        return forward(**arguments)

    monkeypatch.setattr(body, "forward", noted)
    network(tokens)
    assert seen["global_attention_mask"].tolist() == (tokens.kind == CLS).long().tolist()
    assert seen["global_attention_mask"].sum() == 3
    assert seen["attention_mask"].tolist() == (tokens.kind != PADDING).long().tolist()


def test_padding_and_company_change_nothing(small: tuple[RecformerNetwork, Layout]) -> None:
    network, layout = small
    dress, search = (sentence_of(each, layout.vocabulary) for each in (DRESS, {"query": "wool coat"}))
    sequences = [[dress], [dress, search] * 8, []]
    with torch.inference_mode():
        together = network(layout.tokens_of(sequences, CPU))
        for row, sequence in zip(together, sequences, strict=True):
            assert torch.allclose(row, network(layout.tokens_of([sequence], CPU))[0], atol=1e-5)
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("other", ["kind", "sentence", "token"])
def test_each_embedding_counts(small: tuple[RecformerNetwork, Layout], other: str) -> None:
    network, layout = small
    tokens = three(layout)
    changed = getattr(tokens, other).clone()
    changed[1, 2] = KEY + VALUE - changed[1, 2] if other == "kind" else changed[1, 2] + 1
    with torch.inference_mode():
        assert not torch.allclose(network(tokens)[1], network(tokens._replace(**{other: changed}))[1], atol=1e-4)


def test_words_that_no_tokenizer_has_seen_are_read(small: tuple[RecformerNetwork, Layout]) -> None:
    network, layout = small
    unknown = sentence_of({"Größe": "été 靴"}, layout.vocabulary)
    assert len(unknown.token) > 2
    assert max(unknown.token) < layout.vocabulary.cls
    with torch.inference_mode():
        assert torch.isfinite(network(layout.tokens_of([[unknown]], CPU))).all()


def test_from_scratch_says_so() -> None:
    assert from_scratch().name.startswith("from scratch, transformers ")
    assert {settings["learning_rate"] for settings in from_scratch().grid} == {1e-3, 3e-3}


def test_the_weights_of_a_checkpoint_are_used(checkpoint: Path) -> None:
    saved = tiny_longformer(checkpoint).state_dict()
    start = from_checkpoint(checkpoint)
    network, layout = read(start, start.grid[0])
    opened = network.longformer.state_dict()
    new = "longformer.embeddings.token_type_embeddings.weight"
    assert opened.keys() == saved.keys()
    for name, weight in saved.items():
        assert (name == new) or torch.equal(weight, opened[name])
    assert opened[new].shape == (4, 16)
    assert network.longformer.config.attention_window == [64, 64]
    assert (layout.vocabulary.cls, layout.vocabulary.padding, layout.vocabulary.mask) == (0, 1, 4)
    assert network.positions(three(layout))[0, :3].tolist() == [2, 3, 4]
    with torch.inference_mode():
        assert torch.isfinite(network(three(layout))).all()


def test_the_name_of_a_checkpoint_tells_which_it_was(checkpoint: Path) -> None:
    name = from_checkpoint(checkpoint).name
    assert name.startswith("checkpoint tiny-longformer, SHA-256 ")
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert from_checkpoint(checkpoint).name != name


def test_settings_of_a_checkpoint_are_the_papers_as_far_as_it_reads(checkpoint: Path) -> None:
    [first, _] = from_checkpoint(checkpoint).grid
    assert (first["tokens"], first["sentences"], first["window"]) == (64, 50, 64)  # of 98 a multiple of the window


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def without_mask(folder: Path) -> None:
    tiny_longformer(folder, special=SPECIAL[:-1])


def of_few_tokens(folder: Path) -> None:
    tiny_longformer(folder, places=40)


def of_another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))


def of_fewer_words(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_weights, "has no safetensors; save its weights once with transformers' save_pretrained"),
        (without_tokenizer, "is not a tokenizer"),
        (without_mask, r"tokenizer.json: has neither the token <mask> nor \[MASK\]"),
        (of_few_tokens, "reads 38 tokens; a Longformer must read 64"),
        (of_another_kind, "is a roberta, not a longformer"),
        (of_fewer_words, "has 261 tokens, the model only 7"),
    ],
)
def test_what_is_no_checkpoint_is_refused(checkpoint: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(checkpoint)
    with pytest.raises(InvalidConfig, match=message):
        from_checkpoint(checkpoint)


def test_a_checkpoint_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"--checkpoint: .* is no directory; save a Longformer there"):
        from_checkpoint(tmp_path / "nowhere")


def test_damaged_weights_are_told_in_one_line(checkpoint: Path) -> None:
    start = from_checkpoint(checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InvalidConfig, match="is no Longformer that transformers reads"):
        start.open(start.grid[0], WORDS)
