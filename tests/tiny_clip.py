"""A tiny CLIP text model with random weights, as a Hugging Face directory with a tokenizer of CLIP's own kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from offline.language_models import quiet_transformers

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tiny_clip(folder: Path, *, projection: int = 160, places: int = 77) -> tuple[Any, Tokenizer]:
    """Write one into ``folder``; gives the model and the tokenizer as they are. ``places``: tokens that it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    end = tokenizer.token_to_id(END)
    config = CLIPTextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=places,
        projection_dim=projection,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=end,
        pad_token_id=end,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPTextModelWithProjection(config).eval()
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model, tokenizer


def _tokenizer() -> Tokenizer:
    """Byte-level BPE that marks the ends of words, as CLIP's; its special tokens are the last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "re", "red</w>", BEGIN, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    model = models.BPE(
        vocab=vocab, merges=[("r", "e"), ("re", "d</w>")], end_of_word_suffix="</w>", unk_token=END, fuse_unk=False
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([BEGIN, END])
    frame = ((END, tokenizer.token_to_id(END)), (BEGIN, tokenizer.token_to_id(BEGIN)))
    tokenizer.post_processor = processors.RobertaProcessing(*frame, trim_offsets=False, add_prefix_space=False)
    return tokenizer
