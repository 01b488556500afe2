"""Torch modules → ONNX graphs, with the inputs and outputs that ``model_store.graphs`` runs.

The two article networks go through torch's exporter. The style LSTM is put together by hand from its weights: the
exporter can neither express that each customer's sequence has its own length nor declare a free time axis that the
runtime believes (it warns at every call).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model_store import DNA_SIZE, MEMORY_SIZE
from offline.models.fashion_dna import FashionDnaNetwork
from offline.models.residual import ResidualNetwork
from offline.models.style_lstm import StyleLstmNetwork

Arrays = Mapping[str, NDArray[Any]]
OPSET = 18
_IR_VERSION = 10  # what onnxruntime ≥ 1.20 reads
_OUTPUT = "output_of_the_whole_graph"
_EXAMPLES, _EXAMPLE_TAGS = 2, 3  # axes that stay free need an example size other than 0 and 1


def write_image_encoder(path: Path, network: ResidualNetwork, height: int, width: int) -> None:
    """``image`` uint8 (B, height, width, 3) → ``embedding`` float32 (B, E); pixels are scaled inside the graph."""
    image = torch.zeros(_EXAMPLES, height, width, 3, dtype=torch.uint8)
    export_network(path, network, {"image": image}, "embedding", {"image": {0: torch.export.Dim("batch")}})


def write_fashion_dna(path: Path, network: FashionDnaNetwork, numeric: int, image: int) -> None:
    """``tag_ids`` int64 (B, L), ``numeric`` float32 (B, M), ``image_embedding`` float32 (B, E) → ``dna`` (B, 128)."""
    batch, tags = torch.export.Dim("batch"), torch.export.Dim("tags")
    inputs = {
        "tag_ids": torch.zeros(_EXAMPLES, _EXAMPLE_TAGS, dtype=torch.int64),
        "numeric": torch.zeros(_EXAMPLES, numeric),
        "image_embedding": torch.zeros(_EXAMPLES, image),
    }
    free = {"tag_ids": {0: batch, 1: tags}, "numeric": {0: batch}, "image_embedding": {0: batch}}
    export_network(path, network, inputs, "dna", free)


def export_network(
    path: Path, network: nn.Module, inputs: Mapping[str, Tensor], output: str, free: Mapping[str, dict[int, Any]]
) -> None:
    """Through torch's exporter: example ``inputs`` by name in the order of ``forward``, and their ``free`` axes."""
    with _in_eval_mode(network), _quiet_exporter():
        program = torch.onnx.export(
            network,
            tuple(value.to(_device(network)) for value in inputs.values()),
            input_names=list(inputs),
            output_names=[_OUTPUT],
            dynamic_shapes=tuple(free.values()),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _rename(model.graph, {output: f"{output}_inside", _OUTPUT: output})
    _save(path, model)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Call values otherwise; the exporter takes inner names from the network, where the output's may be one."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for part in (*graph.output, *graph.value_info, *graph.initializer):
        part.name = names.get(part.name, part.name)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Dropout and batch normalisation as in serving, whatever state the caller's module is in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about its own libraries, not about our graphs; parity is what decides about those."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def write_style_lstm(path: Path, network: StyleLstmNetwork) -> None:
    """``steps`` (B, T, D), ``lengths`` int32 (B), ``hidden``, ``cell`` (B, 256) → ``style`` (B, T, 128) and both after.

    ``hidden_out`` and ``cell_out`` are the memory after the last of each customer's own steps.
    """
    step_size = network.lstm.input_size
    nodes = [
        helper.make_node("Transpose", ["steps"], ["steps_by_time"], perm=[1, 0, 2]),  # (T, B, D)
        helper.make_node("Unsqueeze", ["hidden", "axis_0"], ["hidden_in"]),  # (1, B, 256)
        helper.make_node("Unsqueeze", ["cell", "axis_0"], ["cell_in"]),
        helper.make_node(
            "LSTM",
            ["steps_by_time", "weight", "recurrence", "bias", "lengths", "hidden_in", "cell_in"],
            ["outputs", "last_hidden", "last_cell"],  # (T, 1, B, 256), (1, B, 256), (1, B, 256)
            hidden_size=MEMORY_SIZE,
        ),
        helper.make_node("Squeeze", ["outputs", "axis_1"], ["outputs_by_time"]),  # (T, B, 256)
        helper.make_node("Transpose", ["outputs_by_time"], ["outputs_by_customer"], perm=[1, 0, 2]),  # (B, T, 256)
        helper.make_node("MatMul", ["outputs_by_customer", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "projection_bias"], ["style"]),
        helper.make_node("Squeeze", ["last_hidden", "axis_0"], ["hidden_out"]),
        helper.make_node("Squeeze", ["last_cell", "axis_0"], ["cell_out"]),
    ]
    inputs = [
        declare("steps", "B", "T", step_size),
        declare("lengths", "B", kind=TensorProto.INT32),
        declare("hidden", "B", MEMORY_SIZE),
        declare("cell", "B", MEMORY_SIZE),
    ]
    outputs = [
        declare("style", "B", "T", DNA_SIZE),
        declare("hidden_out", "B", MEMORY_SIZE),
        declare("cell_out", "B", MEMORY_SIZE),
    ]
    save_graph(path, "style_lstm", nodes, inputs, outputs, _lstm_weights(network))


def save_graph(
    path: Path, name: str, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Arrays
) -> None:
    """Write a graph put together by hand; ``weights`` by the names that its nodes take them under."""
    initialisers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initialisers)
    opset = helper.make_opsetid("", OPSET)
    _save(path, helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="modiste"))


def declare(name: str, *shape: str | int, kind: int = TensorProto.FLOAT) -> Any:
    """An input or output of a graph; axes with a name are free."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def _lstm_weights(network: StyleLstmNetwork) -> Arrays:
    weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
    biases = [onnx_gate_order(weights[f"lstm.bias_{part}_l0"]) for part in ("ih", "hh")]
    return {
        "weight": onnx_gate_order(weights["lstm.weight_ih_l0"])[None],  # (1, 4 · 256, D)
        "recurrence": onnx_gate_order(weights["lstm.weight_hh_l0"])[None],  # (1, 4 · 256, 256)
        "bias": np.concatenate(biases)[None],  # (1, 8 · 256)
        "projection": np.ascontiguousarray(weights["project.weight"].T),  # (256, 128)
        "projection_bias": weights["project.bias"],
        "axis_0": np.asarray([0], np.int64),
        "axis_1": np.asarray([1], np.int64),
    }


def onnx_gate_order(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Torch stacks the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    into, forget, cell, out = np.split(rows, 4)
    return np.concatenate([into, out, forget, cell])


def _save(path: Path, model: Any) -> None:
    """Check and write a model, without the exporter's notes: they name files of the machine that trained it."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
