"""Running a bundle's ONNX graphs: numpy in, numpy out, one class per graph.

Both the service and the exporter's parity check go through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_store import DNA_SIZE, MEMORY_SIZE
from model_store.article_features import ArticleEncoder, ArticleFeatures, Image8
from model_store.bundle import FASHION_DNA, IMAGE_ENCODER, STYLE_LSTM, Bundle
from model_store.errors import InvalidBundle, InvalidConfig
from model_store.records import Article

Float32 = NDArray[np.float32]


_VARIANTS = (
    ("onnxruntime", "onnxruntime-gpu"),
    ("onnxruntime-genai", "onnxruntime-genai-cuda"),
    ("faiss-cpu", "faiss-gpu-cu12"),
)
"""Distributions for the CPU and for the GPU that provide the same module."""


class Memory(NamedTuple):
    """The LSTM's memory m of B customers: ``hidden`` and ``cell``, each float32 (B, 256)."""

    hidden: Float32
    cell: Float32

    @classmethod
    def zeros(cls, batch: int) -> Memory:
        """m_0 of ``batch`` customers."""
        return cls(np.zeros((batch, MEMORY_SIZE), np.float32), np.zeros((batch, MEMORY_SIZE), np.float32))


def check_runtime() -> None:
    """Refuse an environment in which the CPU and the GPU variant of a library overwrite each other's files."""
    for cpu, gpu in _VARIANTS:
        if _installed(cpu) and _installed(gpu):
            raise InvalidConfig(f"{cpu} and {gpu} are both installed and exclude each other: uninstall one of them")


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


class Graph:
    """One ONNX session on the best provider there is, with its threads set explicitly.

    Raises InvalidBundle where the file is no graph, or not this one.
    """

    INPUTS: ClassVar[tuple[str, ...]]
    OUTPUTS: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, threads: int = 1):
        self._name = path.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An arena keeps what the largest batch ever took, twice over; without one these graphs are as fast.
        options.enable_cpu_mem_arena = False
        available = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [provider for provider in wanted if provider in available]
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise InvalidBundle(f"{path.name} is not a graph that onnxruntime can load: {error}") from error
        inputs = tuple(value.name for value in self._session.get_inputs())
        outputs = tuple(value.name for value in self._session.get_outputs())
        if (inputs, outputs) != (self.INPUTS, self.OUTPUTS):
            raise InvalidBundle(
                f"{path.name} turns {', '.join(inputs)} into {', '.join(outputs)}; "
                f"expected {', '.join(self.INPUTS)} into {', '.join(self.OUTPUTS)}"
            )

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        """All outputs, in the graph's order. Raises InvalidBundle where the graph cannot take these inputs."""
        try:
            outputs: list[Any] = self._session.run(self.OUTPUTS, inputs)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise InvalidBundle(f"{self._name} cannot compute: {error}") from error
        return outputs


class ImageEncoder(Graph):
    """Residual network: pictures → embeddings. Graph input ``image``, output ``embedding``."""

    INPUTS = ("image",)
    OUTPUTS = ("embedding",)

    def encode(self, images: NDArray[np.uint8]) -> Float32:
        """float32 (B, E) from uint8 (B, height, width, 3)."""
        embedding: Float32 = self.run({"image": images})[0]
        return embedding

    @property
    def size(self) -> int:
        """E."""
        return int(self._session.get_outputs()[0].shape[1])


class FashionDna(Graph):
    """Article features and image embedding → Fashion DNA f (Zalando 2017, §2.2).

    Graph inputs ``tag_ids``, ``numeric``, ``image_embedding``; output ``dna``.
    """

    INPUTS = ("tag_ids", "numeric", "image_embedding")
    OUTPUTS = ("dna",)

    def encode(self, features: ArticleFeatures, image_embedding: Float32) -> Float32:
        """float32 (B, 128). ``image_embedding`` float32 (B, E), rows of zeros where there is no picture."""
        inputs = {"tag_ids": features.tag_ids, "numeric": features.numeric, "image_embedding": image_embedding}
        dna: Float32 = self.run(inputs)[0]
        return dna


class StyleLstm(Graph):
    """Purchases → style d (Zalando 2017, §2.3). One graph for single steps, bulk replay and parity.

    Graph inputs ``steps`` (B, T, D), ``lengths`` int32 (B), ``hidden`` and ``cell`` (B, 256); outputs ``style``
    (B, T, 128), ``hidden_out`` and ``cell_out`` (B, 256).
    """

    INPUTS = ("steps", "lengths", "hidden", "cell")
    OUTPUTS = ("style", "hidden_out", "cell_out")

    def run_steps(self, steps: Float32, lengths: NDArray[np.int32], memory: Memory) -> tuple[Float32, Memory]:
        """(styles float32 (B, T, 128), memory after the last of each customer's own steps).

        ``steps`` float32 (B, T, D), padded at the end; ``lengths`` int32 (B), 1 ≤ length ≤ T. Styles past a length are
        meaningless.
        """
        style, hidden, cell = self.run(
            {"steps": steps, "lengths": lengths, "hidden": memory.hidden, "cell": memory.cell}
        )
        return style, Memory(hidden, cell)

    def step(self, step: Float32, memory: Memory) -> tuple[Float32, Memory]:
        """One step of B customers: (style float32 (B, 128), memory after it). ``step`` float32 (B, D)."""
        style, after = self.run_steps(step[:, None, :], np.ones(len(step), np.int32), memory)
        return style[:, 0, :].reshape(-1, DNA_SIZE), after


class Graphs(NamedTuple):
    """The three graphs of one bundle."""

    image_encoder: ImageEncoder
    fashion_dna: FashionDna
    style_lstm: StyleLstm


def open_graphs(bundle: Bundle, threads: int = 1) -> Graphs:
    """Load a bundle's graphs, each with ``threads`` threads. Raises InvalidBundle where one cannot be used."""
    return Graphs(
        ImageEncoder(bundle.path(IMAGE_ENCODER), threads),
        FashionDna(bundle.path(FASHION_DNA), threads),
        StyleLstm(bundle.path(STYLE_LSTM), threads),
    )


def encode_articles(
    graphs: Graphs, encoder: ArticleEncoder, articles: Sequence[Article], images: Sequence[Image8 | None]
) -> Float32:
    """Fashion DNA, float32 (B, 128), of B raw articles; ``images`` (B) as ``decode_image`` gives them, or None."""
    has_image = [image is not None for image in images]
    embedding = np.zeros((len(articles), graphs.image_encoder.size), np.float32)
    if any(has_image):
        embedding[has_image] = graphs.image_encoder.encode(np.stack([image for image in images if image is not None]))
    return graphs.fashion_dna.encode(encoder.encode(articles, has_image), embedding)
