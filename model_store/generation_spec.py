"""What a manifest says of the generating half of its bundle (Amazon 2024)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.prompts import PromptSpec
from model_store.tokens import TOKENIZER

TITLE_ENCODER, TITLE_TOKENIZER = "title_encoder.onnx", "title_tokenizer.json"
QUERY_ENCODER, QUERY_TOKENIZER = "query_encoder.onnx", "query_tokenizer.json"
TITLES, IDS = "titles.safetensors", "ids.safetensors"
QUERY_MEMORY, QUERY_KEYS = "query_memory.json", "query_memory.safetensors"
LLM, LLM_EMBEDDED = "llm", "llm_embedded"

MIXUP_LENGTH = 200
"""K: articles of the mixup list that the blended ranking takes in."""


class LanguageModelCard(BaseModel):
    """Which language model a bundle holds. ``base``: the directory or hub id that it was fine-tuned from, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    stand_in: bool
    """Whether the base is the small model that the pipeline trained itself on the shop's own texts."""
    architecture: str
    parameters: int
    temperature: Annotated[float, Field(ge=0)] = 0.05
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95


class GenerationSpec(BaseModel):
    """How a bundle generates.

    The memory gives ``nearest_queries`` × ``top_articles`` candidates at most (§4.2: Q, V), none where that is 0; of
    the id list the first ``mixup`` count (§4.4: N).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: PromptSpec
    language_model: LanguageModelCard
    query_encoder: Literal["title", "clip"] = "title"
    nearest_queries: Annotated[int, Field(ge=1, le=100)] = 3
    top_articles: Annotated[int, Field(ge=0, le=100)] = 5
    mixup: Annotated[int, Field(ge=0, le=200)] = 1

    def files(self) -> tuple[str, ...]:
        """Files that a bundle with this half holds besides the language model's weights, which may be several."""
        query_encoder = (QUERY_ENCODER, QUERY_TOKENIZER) if self.query_encoder != "title" else ()
        return (
            *(TITLE_ENCODER, TITLE_TOKENIZER, *query_encoder, TITLES, IDS, QUERY_MEMORY, QUERY_KEYS),
            *(f"{LLM}/config.json", f"{LLM}/{TOKENIZER}"),
            *(f"{LLM_EMBEDDED}/genai_config.json", f"{LLM_EMBEDDED}/model.onnx"),
        )
