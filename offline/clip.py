"""CLIP's text encoder as query encoder of the query-product memory (Amazon 2024, §4.2; Radford et al. 2021).

Any ``transformers`` CLIP directory, or hub id, whose text model reads at least 50 tokens. What differs from CLIP's own
use, so that its graph takes and gives what ``model_store.generation.TextEncoder`` runs:

- The tokens that begin and end a text are put around it inside the network: ``text_tokens`` adds none.
- Texts are neutralised and cut to 48 tokens first, as all texts are.
- Keys are 128 wide. From CLIP's usual 512 or more they are projected onto the 128 directions that keep most of the
  shop's own queries: the leading eigenvectors of Xᵀ X, with X the queries' embeddings. Of all orthogonal projections
  that one changes their dot products least (Eckart and Young). Narrower ones are padded with zeros, which changes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, TrainingError
from model_store.generation import MAX_TEXT_TOKENS, QUERY_ENCODER, QUERY_TOKENIZER, TEXT_SIZE, text_tokens
from model_store.tokens import TOKENIZER
from offline.config import QueryMemoryConfig
from offline.language_models import base_directory, quiet_transformers
from offline.progress import Progress, Silent
from offline.query_memory import query_lists
from offline.text_graphs import parity, write_clip_text_encoder
from offline.title_encoder import TorchEncoder, encode_tokens, read_tokenizer_text

Float32 = NDArray[np.float32]
_TOLERANCE, _PARITY_QUERIES = 1e-4, 32  # a dozen layers round more than one


class ClipTextNetwork(nn.Module):
    """Token ids int64 (B, T), padded at the end, and lengths int (B) → embeddings (B, 128), of length 1.

    ``begin`` and ``end``: ids of the tokens around a text. CLIP looks only backwards and is read at the end token, so
    what lies behind it does not count. ``projection`` (P, 128) comes behind CLIP's own, of P components.
    """

    def __init__(self, model: Any, begin: int, end: int, projection: Tensor):
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self._begin, self._end = begin, end
        self.register_buffer("projection", projection)

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        return F.normalize(self.project(token_ids, lengths) @ self.get_buffer("projection"), dim=-1)

    def project(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """CLIP's own embeddings (B, P), of length 1."""
        begin = torch.full_like(token_ids[:, :1], self._begin)
        framed = torch.cat([begin, token_ids, torch.zeros_like(begin)], dim=1)  # (B, T + 2)
        last = lengths.long()[:, None] + 1  # place of the end token (B, 1)
        places = torch.arange(framed.shape[1], device=framed.device)[None]
        framed = torch.where(places < last, framed, self._end)
        hidden = self.text_model(input_ids=framed).last_hidden_state  # (B, T + 2, H)
        pooled = hidden.gather(1, last[:, :, None].expand(-1, -1, hidden.shape[2]))[:, 0]
        embedding: Tensor = F.normalize(self.text_projection(pooled), dim=-1)
        return embedding


def load_clip(source: str | Path, queries: Sequence[str]) -> TorchEncoder[ClipTextNetwork]:
    """The query encoder in a CLIP directory, or under a hub id, projected to 128 components by the shop's ``queries``.

    Raises InvalidConfig where there is none, or it reads fewer tokens than a text may have.
    """
    folder = base_directory(source)
    model = _open(folder)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    places = int(model.config.max_position_embeddings)
    if places < MAX_TEXT_TOKENS + 2:
        raise InvalidConfig(f"{source}: reads {places} tokens; a query encoder must read {MAX_TEXT_TOKENS + 2}")
    begin, end = _frame(tokenizer, source)
    text = _plain(tokenizer)
    network = ClipTextNetwork(model, begin, end, torch.eye(int(model.config.projection_dim)))
    network.register_buffer(
        "projection", torch.from_numpy(_fit_projection(network, read_tokenizer_text(text), queries))
    )
    return TorchEncoder(text, network.eval())


def write_clip_encoder(
    config: QueryMemoryConfig, folder: Path, data: DataSet, *, known_at: int, progress: Progress | None = None
) -> None:
    """Write ``query_encoder.onnx`` and ``query_tokenizer.json`` into ``folder``, from the CLIP that ``config`` names.

    The projection is fitted on the queries of the memory as it is known at ``known_at``. Raises InvalidConfig, and
    TrainingError where the graph does not compute what torch does.
    """
    queries = list(query_lists(data, config, known_at=known_at))
    encoder = load_clip(config.clip, queries)
    (folder / QUERY_TOKENIZER).write_text(encoder.tokenizer, encoding="utf-8")
    write_clip_text_encoder(folder / QUERY_ENCODER, encoder.network)
    found = parity(folder / QUERY_ENCODER, folder / QUERY_TOKENIZER, encoder, ["", *queries[:_PARITY_QUERIES]])
    if not found <= _TOLERANCE:  # NaN is a difference too
        raise TrainingError(f"query_memory: CLIP in torch and in ONNX differ by {found:.2g}, over {_TOLERANCE:g}")
    (progress or Silent()).say(
        f"query_memory: keys by CLIP ({Path(config.clip).name}), fitted on {len(queries):,} queries"
    )


def fit_projection(embedding: Float32) -> Float32:
    """The orthogonal projection float32 (P, 128) that keeps most of ``embedding`` float32 (B, P); zeros behind P."""
    size = embedding.shape[1]
    _, vectors = np.linalg.eigh(embedding.astype(np.float64).T @ embedding)  # smallest first
    projection = np.zeros((size, TEXT_SIZE), np.float32)
    kept = vectors[:, ::-1][:, :TEXT_SIZE] if size > TEXT_SIZE else np.eye(size)
    projection[:, : kept.shape[1]] = kept
    return projection


def _fit_projection(network: ClipTextNetwork, reader: Any, queries: Sequence[str]) -> Float32:
    tokens = [text_tokens(reader, query) for query in queries]
    own = _Own(network)
    return fit_projection(encode_tokens(own, tokens, network.get_buffer("projection").shape[0]))


class _Own(nn.Module):
    """CLIP as it is, before the projection."""

    def __init__(self, network: ClipTextNetwork):
        super().__init__()
        self.network = network

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        return self.network.project(token_ids, lengths)


def _open(folder: Path) -> Any:
    try:
        with quiet_transformers():
            return CLIPTextModelWithProjection.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            ).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidConfig(f"{folder}: is no CLIP text model that transformers reads ({reason})") from None


def _frame(tokenizer: Any, source: str | Path) -> tuple[int, int]:
    """Ids of the tokens that CLIP's own tokenizer puts before and behind a text."""
    tokenizer.no_padding()
    ids = tokenizer.encode("a").ids
    if len(ids) < 3:
        raise InvalidConfig(f"{source}: its {TOKENIZER} puts no tokens around a text, as CLIP's does")
    return ids[0], ids[-1]


def _plain(tokenizer: Any) -> str:
    """The tokenizer without padding and truncation: its ``tokenizer.json``."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text: str = tokenizer.to_str()
    return text
