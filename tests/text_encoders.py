"""A text encoder written by hand, whose every embedding can be computed without it: an independent reference.

Unlike the one of ``generating_halves``, the order of a text's tokens counts, so that faults of padding and order show.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from model_store.generation import TEXT_SIZE, text_tokens

_VOCABULARY = 300


def write_text_encoder(graph: Path, tokenizer: Path, *, width: int = TEXT_SIZE) -> None:
    """A graph that adds up the vectors of a text's tokens, each divided by its place, and a tokenizer for it."""
    _tokenizer().save(str(tokenizer))
    nodes = [
        helper.make_node("Gather", ["table", "token_ids"], ["vectors"]),  # (B, T, 128)
        helper.make_node("Shape", ["token_ids"], ["width"], start=1, end=2),
        helper.make_node("Squeeze", ["width"], ["end"]),
        helper.make_node("Range", ["zero", "end", "one"], ["place"]),  # (T)
        helper.make_node("Cast", ["lengths"], ["counts"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["counts", "last"], ["column"]),  # (B, 1)
        helper.make_node("Less", ["place", "column"], ["inside"]),  # (B, T)
        helper.make_node("Add", ["place", "one"], ["rank"]),
        helper.make_node("Cast", ["rank"], ["rank32"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["inside"], ["inside32"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["inside32", "rank32"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "last"], ["weights"]),  # (B, T, 1)
        helper.make_node("Mul", ["vectors", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "second"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2),
    ]
    constants = {
        "table": _table(width),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "last": np.array([-1], np.int64),
        "second": np.array([1], np.int64),
    }
    inputs = [
        helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["batch", "time"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])]
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_graph(nodes, "text_encoder", inputs, outputs, initial)
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), graph)


def reference_embedding(texts: list[str]) -> np.ndarray:
    """What that graph must give, float32 (B, 128), one text at a time."""
    rows = []
    for text in texts:
        ids = text_tokens(_tokenizer(), text)
        total = (_table(TEXT_SIZE)[ids].astype(np.float64) / np.arange(1, len(ids) + 1)[:, None]).sum(axis=0)
        rows.append(total / np.linalg.norm(total))
    return np.array(rows, np.float32)


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["black dress", "red jeans", "blue sneaker", "green coat"], trainer)
    return tokenizer


@cache
def _table(width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(_VOCABULARY, width)).astype(np.float32)
