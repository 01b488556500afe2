"""The language model for onnxruntime-genai: what the service runs itself where no vLLM is named.

Weights of all matrices become int8 in blocks of 32; norms and what flows between layers stay float32. Falcon, the
paper's family, goes through its equal in Phi, since the builder does not know it.
"""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.errors import InvalidConfig, TrainingError
from model_store.prompts import PromptSpec, prompt_text
from model_store.tokens import Tokenizer
from offline.falcon_as_phi import falcon_as_phi
from offline.folders import written_aside
from offline.language_models import (
    copy_tokenizer,
    open_model,
    quiet_transformers,
    read_config,
    write_neutral_sampling,
)
from offline.progress import Progress, Silent

Precision = Literal["int8", "fp32"]


_LEAST_CORRELATION = 0.97  # int8 keeps above 0.99 in every family tried; what is built wrongly is far below


@dataclass(frozen=True)
class Agreement:
    """How an embedded model agrees with what it was made from, over all places of a prompt.

    ``correlation`` of their logits, the mean over places; ``likeliest``: the share of places with the same likeliest
    token.
    """

    correlation: float
    likeliest: float


def export_embedded(
    llm: Path, out: Path, progress: Progress | None = None, *, precision: Precision = "int8"
) -> Agreement:
    """Write the model in ``llm`` (a Hugging Face directory) to ``out`` as onnxruntime-genai reads it, for the CPU.

    Nothing is downloaded. ``precision`` fp32 is for comparing. Gives how far both agree; nothing is left at ``out``
    where they do not. Raises InvalidConfig for a family that the builder does not know (vLLM may serve it all the
    same), TrainingError where it fails.
    """
    progress = progress or Silent()
    progress.say(f"language model: making its embedded form ({precision})")
    with tempfile.TemporaryDirectory(prefix="modiste-llm-") as scratch, written_aside(out) as aside:
        source = _as_the_builder_knows_it(llm, Path(scratch) / "phi")
        _build(source, aside, Path(scratch) / "cache", precision, read_config(llm).model_type)
        copy_tokenizer(llm, aside)
        agreement = compare(llm, aside)
        if agreement.correlation < _LEAST_CORRELATION:
            raise TrainingError(
                f"{llm}: its embedded form computes something else (correlation {agreement.correlation:.3f}); vLLM may "
                "serve it: set MODISTE_LLM_URL, or choose another language_model.base"
            )
    progress.say(
        f"language model: embedded and original agree on {agreement.likeliest:.1%} of a prompt's likeliest tokens "
        f"(correlation of logits {agreement.correlation:.4f})"
    )
    return agreement


def compare(llm: Path, embedded: Path) -> Agreement:
    """Read the start of a prompt with both."""
    ids = Tokenizer.of_model(llm).encode_prompt(prompt_text((), (), PromptSpec()))
    ours, theirs = embedded_logits(embedded, ids), _logits(llm, ids)
    centred = [rows - rows.mean(1, keepdims=True) for rows in (ours, theirs)]
    lengths = np.linalg.norm(centred[0], axis=1) * np.linalg.norm(centred[1], axis=1)
    correlation = (centred[0] * centred[1]).sum(1) / np.maximum(lengths, 1e-30)
    return Agreement(float(correlation.mean()), float((ours.argmax(1) == theirs.argmax(1)).mean()))


def embedded_logits(embedded: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits of an embedded model after each token of ``ids``, float32 (T, V)."""
    import onnxruntime_genai  # noqa: PLC0415 (as in _builder)

    model = onnxruntime_genai.Model(str(embedded))
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + 1)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(np.array([ids], np.int32))
    logits: NDArray[np.float32] = generator.get_output("logits")[0]
    return logits.astype(np.float32)


def _logits(llm: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = open_model(llm)(torch.tensor([list(ids)])).logits[0].float().numpy()
    return logits


def _as_the_builder_knows_it(llm: Path, phi: Path) -> Path:
    if read_config(llm).model_type != "falcon":
        return llm
    model = falcon_as_phi(open_model(llm))
    with quiet_transformers():
        model.save_pretrained(phi)
    copy_tokenizer(llm, phi)
    write_neutral_sampling(phi, model.config)
    return phi


def _build(source: Path, out: Path, cache: Path, precision: Precision, family: str) -> None:
    said = io.StringIO()
    try:
        with _quietly(said):
            builder = _builder()
            places = "", str(source), str(out), precision, "cpu", str(cache)
            # Tied embeddings stay apart: in 8 bits the builder cannot look rows of a shared matrix up.
            options = builder.parse_extra_options(*places, ["hf_token=false", "shared_embeddings=false"])
            builder.create_model(*places, **options)
    except NotImplementedError as error:
        raise InvalidConfig(
            f"onnxruntime-genai cannot run a language model of the family '{family}' ({error}); vLLM may: serve the "
            "bundle's llm/ with it and set MODISTE_LLM_URL, or choose another language_model.base"
        ) from None
    except Exception as error:  # the builder documents none of what it raises
        last = (said.getvalue().strip().splitlines() or ["nothing"])[-1]
        raise TrainingError(
            f"{source}: onnxruntime-genai's builder failed ({type(error).__name__}: {error}; it last said: {last})"
        ) from error
    if not (out / "genai_config.json").is_file():
        raise TrainingError(f"{source}: onnxruntime-genai's builder wrote no genai_config.json")


def _builder() -> Any:
    """The builder, which imports its own parts from a folder that it puts on the path; that is undone."""
    path = list(sys.path)
    try:
        from onnxruntime_genai.models import builder  # noqa: PLC0415 (seconds, and only exporting needs it)
    except ImportError as error:
        raise InvalidConfig(f"the embedded language model needs onnxruntime-genai and onnx-ir ({error})") from None
    finally:
        sys.path[:] = path
    return builder


@contextmanager
def _quietly(said: io.StringIO) -> Iterator[None]:
    """With what the builder prints kept for its errors."""
    with quiet_transformers(), warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
