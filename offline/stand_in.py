"""The stand-in: the small language model that the pipeline makes itself where no other is named (design §4, LLM).

A Llama of a few million weights with a tokenizer of its own (``offline.stand_in_tokenizer``), trained from what the
catalogue says (``offline.stand_in_weights``) on documents that are made up of it and of the result lists
(``offline.stand_in_documents``). It takes the place of a pre-trained model, so that
the whole of the generating half runs where no hub can be reached and no GPU is there; what it knows of language is what
the shop's titles say. Fine-tuning treats it as any other base model.

The result is a Hugging Face directory: ``config.json``, ``generation_config.json``, ``model.safetensors``,
``tokenizer.json``, ``tokenizer_config.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from model_store.dataset import DataSet
from model_store.generation import QueryMemory
from model_store.prompts import INSTRUCTION, PromptSpec
from model_store.tokens import Tokenizer
from offline.config import StandInConfig
from offline.progress import Progress
from offline.sequences import Tokenised
from offline.stand_in_documents import Document, Documents
from offline.stand_in_tokenizer import END_ID, train_tokenizer, write_tokenizer
from offline.stand_in_weights import begin
from offline.style_lstm import length_batches
from offline.training import Curve, Rows, derive, fit, seed_torch
from offline.world import World

_HELD_OUT = 256  # documents that the score is measured on


def train_stand_in(
    data: DataSet,
    memory: QueryMemory,
    config: StandInConfig,
    *,
    known_at: int,
    seed: int,
    out: Path,
    checkpoint: Path,
    recipe: str,
    world: World,
    precision: str,
    progress: Progress,
    prompt: PromptSpec | None = None,
    nearest: int = 3,
    top: int = 5,
) -> Curve:
    """Train a stand-in on what was known before ``known_at`` (Unix seconds), and write it into the folder ``out``.

    ``prompt``, ``nearest`` and ``top`` (Q and V of the memory) say what prompts it will have to read. The score of the
    curve is minus the held-out loss per token of a response, in nats. Only the first process writes. Raises
    TrainingError where no article was known.
    """
    spec = prompt or PromptSpec()
    documents = Documents(data, memory, known_at=known_at, prompt=spec, nearest=nearest, top=top)
    texts = documents.draw(config.documents, derive(seed, "stand_in", "tokenizer"))
    progress.say(f"stand_in: learning from {len(documents.known):,} articles and {len(memory.queries):,} queries")
    names = [data.article_ids[row] for row in documents.known]
    raw = train_tokenizer(_without_instruction(texts), names, config.vocabulary)
    tokenizer = Tokenizer(raw, END_ID)
    seed_torch(derive(seed, "stand_in", "weights"))
    model = LlamaForCausalLM(llama_config(config, raw.get_vocab_size()))
    begin(model, _texts_of_tokens(raw), documents.articles, derive(seed, "stand_in", "begin"))
    stage = StandInStage(model, documents, tokenizer, config, seed=seed, dtype=cpu_precision(precision, world.device))
    fitted = fit(
        stage,
        config,
        seed=seed,
        checkpoint=checkpoint,
        recipe=recipe,
        world=world,
        precision=precision,
        progress=progress,
    )
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        model.generation_config = GenerationConfig(bos_token_id=END_ID, eos_token_id=END_ID, pad_token_id=END_ID)
        model.cpu().save_pretrained(out)
        write_tokenizer(raw, out, config.tokens)
    return fitted.curve


def llama_config(config: StandInConfig, vocabulary: int) -> LlamaConfig:
    """The architecture: one table for reading and writing tokens, all heads with keys of their own."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.tokens,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
    )


def cpu_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where a CPU computes in it (twice as fast there), None for what the loop itself does."""
    if device.type != "cpu" or precision not in {"auto", "bf16"}:
        return None
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else None


class StandInTraining(nn.Module):
    """A causal language model below its loss. ``forward`` gives (loss summed, weight)."""

    def __init__(self, model: Any, dtype: torch.dtype | None):
        super().__init__()
        self.model, self._dtype = model, dtype

    def forward(self, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens`` int64 (B, T), padded at the end; ``weight`` float32 (B, T) of each as something to foretell."""
        with self._autocast(tokens.device):
            hidden = self.model.model(input_ids=tokens[:, :-1]).last_hidden_state  # (B, T - 1, H)
            counts = weight[:, 1:] > 0
            logits = self.model.lm_head(hidden[counts]).float()  # (S, V): only where something counts
        weights = weight[:, 1:][counts]
        loss = functional.cross_entropy(logits, tokens[:, 1:][counts], reduction="none")
        return (loss * weights).sum(), weights.sum()

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self._dtype is None else torch.autocast(device.type, self._dtype)


class StandInStage:
    """Training of the stand-in: new documents every epoch; its score is minus the loss of held-out responses."""

    name = "stand_in"

    def __init__(
        self,
        model: Any,
        documents: Documents,
        tokenizer: Tokenizer,
        config: StandInConfig,
        *,
        seed: int,
        dtype: torch.dtype | None,
    ):
        self.network: nn.Module = StandInTraining(model, dtype)
        self._documents, self._tokenizer, self._config = documents, tokenizer, config
        self._read: list[Tokenised] = []
        self._held_out = self._tokenise(documents.draw(_HELD_OUT, derive(seed, self.name, "held out")))

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        """New documents, those of like length together."""
        del epoch
        self._read = self._tokenise(self._documents.draw(self._config.documents, rng))
        length = np.asarray([len(one.prompt) + len(one.response) for one in self._read], dtype=np.int64)
        return length_batches(length, self._config.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        del rng
        return _batch([self._read[row] for row in rows.tolist()], self._config.prompt_weight, device)

    def validate(self) -> float:
        device = next(self.network.parameters()).device
        loss = weight = 0.0
        for start in range(0, len(self._held_out), self._config.batch):
            batch = _batch(self._held_out[start : start + self._config.batch], 0.0, device)
            losses, weights = self.network(*batch)
            loss, weight = loss + float(losses), weight + float(weights)
        return -loss / weight

    def _tokenise(self, documents: Sequence[Document]) -> list[Tokenised]:
        """Token ids; of what is longer than the model reads, the beginning falls away."""
        encode, end = self._tokenizer.encode, self._tokenizer.end
        tokenised = []
        for document in documents:
            response = (*encode(document.response), end)
            prompt = tuple(self._tokenizer.encode_prompt(document.prompt))
            tokenised.append(Tokenised(prompt[-max(self._config.tokens - len(response), 1) :], response))
        return tokenised


def _batch(examples: Sequence[Tokenised], prompt_weight: float, device: torch.device) -> tuple[Tensor, ...]:
    """``tokens`` int64 (B, T) and ``weight`` float32 (B, T) of prompts (``prompt_weight``) and responses (1)."""
    longest = max(len(one.prompt) + len(one.response) for one in examples)
    tokens = np.full((len(examples), longest), END_ID, dtype=np.int64)
    weight = np.zeros((len(examples), longest), dtype=np.float32)
    for row, one in enumerate(examples):
        end = len(one.prompt) + len(one.response)
        tokens[row, :end] = one.prompt + one.response
        weight[row, : len(one.prompt)] = prompt_weight
        weight[row, len(one.prompt) : end] = 1.0
    return torch.from_numpy(tokens).to(device), torch.from_numpy(weight).to(device)


def _without_instruction(documents: Sequence[Document]) -> list[str]:
    """The documents' texts, but for the instruction, which is one token anyway."""
    return [document.prompt.removeprefix(f"{INSTRUCTION}User ") + document.response for document in documents]


def _texts_of_tokens(tokenizer: Any) -> list[str]:
    """What each token reads, by number."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in range(tokenizer.get_vocab_size())]
