"""Tiny causal language models with random weights, as Hugging Face directories: real architectures, small enough for
tests. Each has a byte-level tokenizer of its own that was trained on prompts, and heads of 32 components, which every
backend's attention takes.

As a script it writes one: python tiny_language_models.py ARCHITECTURE FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from model_store.prompts import Action, PromptSpec, prompt_text, response_text
from model_store.records import Article, EventType

Architecture = Literal["falcon", "falcon-new", "llama", "qwen", "qwen3"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
"""The paper's family as it used it (Falcon 7B: parallel attention, one key for all heads) and as it went on (40B:
grouped keys, two norms); Llama with grouped keys; Qwen 2, whose keys have biases; Qwen 3, which norms its keys."""

END = "<|endoftext|>"
VOCABULARY = 480  # unlike any other size: onnxruntime-genai takes any matrix with as many rows for the head
_SIZE, _HEADS, _LAYERS, _PLACES = 128, 4, 2, 1_024
_SPREAD = 0.15  # of the random weights: wide enough that one token is clearly the likeliest


def tiny_language_model(folder: Path, architecture: Architecture, *, seed: int = 0) -> Path:
    """Write a model of ``architecture`` (about 0.4 million weights, float32) into ``folder``, and give it back."""
    tokenizer = _tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(architecture, tokenizer.token_to_id(END)))
        _widen(model)
    end = tokenizer.token_to_id(END)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END, model_max_length=_PLACES)
    fast.save_pretrained(folder)
    _name_tokenizer_class(folder / "tokenizer_config.json")
    return folder


def tiny_articles(count: int = 40) -> list[Article]:
    """Articles whose texts the tokenizer knows."""
    colours, things = ("navy", "red", "striped", "white", "green"), ("jacket", "dress", "coat", "shirt")
    return [
        Article(
            article_id=f"a{number:03d}",
            title=f"{colours[number % 5]} {things[number % 4]} {number}",
            category=things[number % 4],
            colour=colours[number % 5],
            brand=f"brand {number % 3}",
        )
        for number in range(count)
    ]


def tiny_prompt(article: Article, actions: int = 2) -> str:
    """The text of a prompt whose session searched for the colour, and looked at and bought the article."""
    steps = [Action(EventType.SEARCH, query=f"{article.colour} {article.category}")]
    steps += [Action(EventType.CLICK, article=article), Action(EventType.PURCHASE, article=article)]
    return prompt_text((steps * actions)[-actions:], [article.article_id], PromptSpec())


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text for article in tiny_articles() for text in (tiny_prompt(article), response_text(article))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _name_tokenizer_class(path: Path) -> None:
    """By the name that transformers 4 knows too, on which vLLM may stand."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2))


def _config(architecture: Architecture, end: int) -> PreTrainedConfig:
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": _SIZE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "max_position_embeddings": _PLACES,
        "initializer_range": _SPREAD,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    grouped = {"num_key_value_heads": 2, "intermediate_size": 256, "head_dim": _SIZE // _HEADS}
    match architecture:
        case "falcon":
            return FalconConfig(**shared, multi_query=True, parallel_attn=True, bias=False, alibi=False)
        case "falcon-new":
            return FalconConfig(**shared, new_decoder_architecture=True, num_kv_heads=2, bias=False, alibi=False)
        case "llama":
            return LlamaConfig(**shared, **grouped, tie_word_embeddings=True)
        case "qwen":
            del grouped["head_dim"]
            return Qwen2Config(**shared, **grouped, tie_word_embeddings=False)
        case "qwen3":
            return Qwen3Config(**shared, **grouped, tie_word_embeddings=True)


def _widen(model: Any) -> None:
    """Biases and norms begin as zeros and ones, which would hide that a backend forgets them."""
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data += 0.1 * torch.randn_like(weight)


if __name__ == "__main__":
    tiny_language_model(Path(sys.argv[2]), sys.argv[1])  # type: ignore[arg-type]
