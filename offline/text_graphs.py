"""Text encoders → ONNX graphs, with the inputs and output that ``model_store.generation.TextEncoder`` runs.

The LSTM is put together by hand, as in ``offline.onnx_graphs``: the runtime's own ``sequence_lens`` gives each text the
state at its own end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import nn

from model_store.generation import TEXT_SIZE, TextEncoder
from offline.models.title_encoder import TitleEncoderNetwork
from offline.onnx_graphs import Arrays, declare, export_network, onnx_gate_order, save_graph
from offline.title_encoder import TorchEncoder

TOLERANCE = 1e-5
"""Largest difference between torch's and ONNX's embeddings, of length 1, that rounding may make."""


def write_text_encoder(path: Path, network: TitleEncoderNetwork) -> None:
    """``token_ids`` int64 (B, T), ``lengths`` int32 (B) → ``embedding`` float32 (B, 128), of length 1."""
    nodes = [
        helper.make_node("Transpose", ["token_ids"], ["by_time"], perm=[1, 0]),  # (T, B)
        helper.make_node("Gather", ["table", "by_time"], ["steps"]),  # (T, B, E)
        helper.make_node(
            "LSTM",
            ["steps", "weight", "recurrence", "bias", "lengths"],
            ["", "last_hidden"],  # (1, B, H)
            hidden_size=network.lstm.hidden_size,
        ),
        helper.make_node("Squeeze", ["last_hidden", "axis_0"], ["last"]),  # (B, H)
        helper.make_node("MatMul", ["last", "projection"], ["linear"]),
        helper.make_node("Add", ["linear", "projection_bias"], ["projected"]),  # (B, 128)
        helper.make_node("ReduceL2", ["projected", "axis_1"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "least"], ["positive_length"]),
        helper.make_node("Div", ["projected", "positive_length"], ["embedding"]),
    ]
    inputs = [
        declare("token_ids", "B", "T", kind=TensorProto.INT64),
        declare("lengths", "B", kind=TensorProto.INT32),
    ]
    save_graph(path, "title_encoder", nodes, inputs, [declare("embedding", "B", TEXT_SIZE)], _weights(network))


def _weights(network: TitleEncoderNetwork) -> Arrays:
    weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
    biases = [onnx_gate_order(weights[f"lstm.bias_{part}_l0"]) for part in ("ih", "hh")]
    return {
        "table": weights["embedding.weight"],  # (tokens, E)
        "weight": onnx_gate_order(weights["lstm.weight_ih_l0"])[None],  # (1, 4 · H, E)
        "recurrence": onnx_gate_order(weights["lstm.weight_hh_l0"])[None],  # (1, 4 · H, H)
        "bias": np.concatenate(biases)[None],  # (1, 8 · H)
        "projection": np.ascontiguousarray(weights["project.weight"].T),  # (H, 128)
        "projection_bias": weights["project.bias"],
        "least": np.asarray(1e-12, np.float32),
        "axis_0": np.asarray([0], np.int64),
        "axis_1": np.asarray([1], np.int64),
    }


def write_clip_text_encoder(path: Path, network: nn.Module) -> None:
    """A graph with the same inputs and output, of a network of attention, which torch's own exporter can express."""
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", max=1_024)
    device = next(network.parameters()).device
    inputs = {
        "token_ids": torch.ones(2, 3, dtype=torch.int64, device=device),
        "lengths": torch.tensor([3, 2], dtype=torch.int32, device=device),
    }
    export_network(path, network, inputs, "embedding", {"token_ids": {0: batch, 1: time}, "lengths": {0: batch}})


def parity(path: Path, tokenizer: Path, encoder: TorchEncoder[Any], texts: Sequence[str]) -> float:
    """Largest difference between what the graph at ``path`` and ``encoder`` give for ``texts``, together and alone."""
    graph, expected = TextEncoder(path, tokenizer), encoder.encode(texts)
    together = graph.encode(texts)
    alone = np.concatenate([graph.encode([text]) for text in texts]) if texts else together
    return float(max(np.abs(found - expected).max(initial=0) for found in (together, alone)))
