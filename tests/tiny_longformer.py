"""A tiny Longformer with random weights, as a Hugging Face directory with a tokenizer of RoBERTa's special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LongformerConfig, LongformerForMaskedLM

from offline.language_models import quiet_transformers

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def tiny_longformer(folder: Path, *, places: int = 100, special: tuple[str, ...] = SPECIAL) -> Any:
    """Write one into ``folder``; gives the model as it is. ``places``: token positions, two of which no token has."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = LongformerConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attention_window=[4, 4],
        max_position_embeddings=places,
        type_vocab_size=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(7)
        model = LongformerForMaskedLM(config).eval()
        model.save_pretrained(folder)
    return model
