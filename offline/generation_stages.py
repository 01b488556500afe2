"""The stages of the generating half: title encoder, CORE, memory, base model, language model (Amazon 2024).

Their results lie in the run's folder ``generation`` just as a bundle holds them (``model_store.generation``), so what a
later stage, the blend, the evaluation and the service read is one and the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import TrainingError
from model_store.generation import (
    LLM,
    LLM_EMBEDDED,
    QUERY_ENCODER,
    QUERY_TOKENIZER,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    TextEncoder,
    load_ids,
    load_memory,
    load_titles,
    write_ids,
    write_memory,
    write_titles,
)
from model_store.generation_spec import GenerationSpec, LanguageModelCard
from model_store.prompts import Generated, PromptSpec, UnparseableGeneration, parse_response
from model_store.tokens import Tokenizer
from offline.clip import write_clip_encoder
from offline.context import Context
from offline.core import train_core
from offline.embedded_llm import export_embedded
from offline.fine_tuning import fine_tune
from offline.greedy import greedy_answers
from offline.language_models import base_directory, open_model, read_config
from offline.lora import merge
from offline.mixup import MixupRetrieval
from offline.query_memory import build_memory
from offline.responses import perplexities
from offline.run import FOLDER
from offline.sequences import Example, Prompts, Tokenised, find_examples
from offline.stand_in import train_stand_in
from offline.text_graphs import parity, write_text_encoder
from offline.title_encoder import encode_titles, train_title_encoder
from offline.training import Curve, derive

BASE, BASE_SOURCE = "base", "source.json"
PARITY_TOLERANCE = 1e-4
_PARITY_TEXTS = ("", "dress", "Breezy striped jacket in navy", "платье", "a very long title that goes on and on " * 8)
_RECALL_AT = 10


def train_titles(context: Context) -> None:
    """The encoder of queries and titles (§4.4), its graph, and every title's embedding."""
    split, config = context.split, context.config
    encoder = train_title_encoder(
        context.data,
        config.generation.title_encoder,
        until=split.validation_from,
        held_out_until=split.cutoff,
        seed=config.seed,
        checkpoint=context.keeper.checkpoint("title_encoder"),
        recipe=context.keeper.text("title_encoder"),
        world=context.world,
        precision=config.precision,
        progress=context.progress,
    )
    if not context.world.first:
        return
    context.keeper.replace("title_encoder")
    folder = _folder(context)
    write_text_encoder(folder / TITLE_ENCODER, encoder.network)
    (folder / TITLE_TOKENIZER).write_text(encoder.tokenizer, encoding="utf-8")
    write_titles(folder, encode_titles(encoder, context.data))
    found = parity(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER, encoder, _PARITY_TEXTS)
    if not found <= PARITY_TOLERANCE:  # NaN is a difference too
        raise TrainingError(f"title_encoder: torch and ONNX differ by {found:.2g}, over {PARITY_TOLERANCE:g}")
    context.keeper.commit("title_encoder", encoder.curve)


def train_ids(context: Context) -> None:
    """CORE's article table (§4.4)."""
    split, config = context.split, context.config
    table = train_core(
        context.data,
        config.generation.id_embeddings,
        until=split.validation_from,
        held_out_until=split.cutoff,
        seed=config.seed,
        checkpoint=context.keeper.checkpoint("id_embeddings"),
        recipe=context.keeper.text("id_embeddings"),
        world=context.world,
        precision=config.precision,
        progress=context.progress,
    )
    if not context.world.first:
        return
    context.keeper.replace("id_embeddings")
    write_ids(_folder(context), table.embedding, table.rows, table.cold)
    context.keeper.commit("id_embeddings", table.curve)


def build_query_memory(context: Context) -> None:
    """The query-product memory (§4.2), with the title encoder or CLIP for its keys."""
    if not context.world.first:
        return
    config, folder = context.config.generation.query_memory, _folder(context)
    context.keeper.replace("query_memory")
    if config.clip:
        write_clip_encoder(
            config, folder, context.data, known_at=context.split.validation_from, progress=context.progress
        )
    memory = build_memory(context.data, _query_encoder(context).encode, config, known_at=context.split.validation_from)
    write_memory(folder, memory)
    context.progress.say(f"query_memory: {len(memory.queries):,} queries")
    context.keeper.commit("query_memory", [])


def train_base(context: Context) -> None:
    """The base model: a directory or hub id that is named, else the stand-in."""
    config = context.config.generation
    model = config.language_model
    out = context.run.folder / BASE
    curve: Curve = []
    if context.world.first:
        context.keeper.replace("base_model")
    if not model.base:
        curve = train_stand_in(
            context.data,
            load_memory(_folder(context)),
            model.stand_in,
            known_at=context.split.validation_from,
            seed=context.config.seed,
            out=out,
            checkpoint=context.keeper.checkpoint("base_model"),
            recipe=context.keeper.text("base_model"),
            world=context.world,
            precision=context.config.precision,
            progress=context.progress,
            prompt=_prompt_spec(context),
            nearest=config.query_memory.nearest_queries,
            top=config.query_memory.top_articles,
        )
    if not context.world.first:
        return
    base_directory(model.base or out)  # tells now what is wrong with it
    context.run.save_json(f"{BASE}/{BASE_SOURCE.removesuffix('.json')}", {"base": model.base})
    context.keeper.commit("base_model", curve)


def train_language_model(context: Context) -> None:
    """LoRA on the shop's sequences (§4.3), merged, and exported for both ways of serving."""
    config, split, run = context.config, context.split, context.run
    folder, base = _folder(context), _base(context)
    spec = _spec(context, base)
    tokenizer = Tokenizer.of_model(base)
    sessions = config.generation.sessions
    training = _examples(context, 0, split.validation_from, sessions.examples, "training")
    held_out = _examples(
        context, split.validation_from, split.cutoff, config.generation.language_model.probes, "probes"
    )
    prompts = Prompts(context.data, spec, tokenizer, load_memory(folder), _query_encoder(context).encode)
    context.progress.say(f"language_model: {len(training):,} sequences to learn from, {len(held_out):,} held out")
    probe = Probe(context, tokenizer, held_out, prompts.tokenise(held_out))
    aside = context.keeper.checkpoint("language_model").with_name("language_model_adapter")
    curve = fine_tune(
        base,
        prompts.tokenise(training, context.progress),
        config.generation.language_model.lora,
        adapter=aside,
        checkpoint=context.keeper.checkpoint("language_model"),
        seed=config.seed,
        recipe=context.keeper.text("language_model"),
        progress=context.progress,
        on_stage=probe.measure,
        world=context.world,
        precision=config.precision,
    )
    if not context.world.first:
        return
    context.keeper.replace("language_model")
    aside.rename(run.folder / "adapter")
    merge(base, run.folder / "adapter", folder / LLM)
    export_embedded(folder / LLM, folder / LLM_EMBEDDED, context.progress)
    run.save_json("effects", [row for row in curve if "perplexity" in row])
    run.save_json(f"{FOLDER}/spec", spec)
    context.keeper.commit("language_model", curve)


class Probe:
    """What a stage of fine-tuning does to held-out sessions: perplexity, format errors, Recall@10."""

    def __init__(
        self, context: Context, tokenizer: Tokenizer, examples: Sequence[Example], tokenised: Sequence[Tokenised]
    ):
        self._tokenizer, self._examples, self._tokenised = tokenizer, examples, tokenised
        self._data, self._progress = context.data, context.progress
        self._most = context.config.generation.language_model.response_tokens
        self._retrieval = mixup_retrieval(
            context.run.folder / FOLDER, context.data.article_ids, context.config.generation.mixup
        )

    def measure(self, stage: str, model: Any) -> Mapping[str, float]:
        """The figures after ``stage``; a response that does not parse finds nothing."""
        if not self._tokenised:
            return {}
        perplexity = float(np.exp(np.mean(np.log(perplexities(model, self._tokenised, 32)))))
        answers = greedy_answers(model, [one.prompt for one in self._tokenised], self._most, self._tokenizer.end)
        generated = [self._parse(answer) for answer in answers]
        in_stock = self._data.availability.in_stock_at
        lists = self._retrieval.lists(
            generated, lambda index: np.flatnonzero(in_stock(self._examples[index].time)), _RECALL_AT
        )
        found = [example.target in rows for example, rows in zip(self._examples, lists, strict=True)]
        figures = {
            "perplexity": perplexity,
            "format_errors": float(np.mean([one is None for one in generated])),
            "recall_10": float(np.mean(found)),
        }
        self._progress.say(
            f"language_model, {stage}: held-out perplexity {perplexity:.3g}, format errors "
            f"{figures['format_errors']:.1%}, Recall@10 {figures['recall_10']:.3f} ({len(found)} sessions)"
        )
        return figures

    def _parse(self, answer: Sequence[int]) -> Generated | None:
        try:
            return parse_response(self._tokenizer.decode(answer), cut_off=self._tokenizer.end not in answer)
        except UnparseableGeneration:
            return None


def mixup_retrieval(folder: Path, article_ids: Sequence[str], n: int) -> MixupRetrieval:
    """Retrieval over the tables in ``folder``."""
    encoder = TextEncoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER)
    titles = load_titles(folder, len(article_ids))
    return MixupRetrieval(article_ids, titles, load_ids(folder, article_ids), encoder.encode, n)


def _folder(context: Context) -> Path:
    folder = context.run.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _base(context: Context) -> Path:
    return base_directory(context.config.generation.language_model.base or context.run.folder / BASE)


def _query_encoder(context: Context) -> TextEncoder:
    folder = _folder(context)
    if context.config.generation.query_memory.clip:
        return TextEncoder(folder / QUERY_ENCODER, folder / QUERY_TOKENIZER)
    return TextEncoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER)


def _prompt_spec(context: Context) -> PromptSpec:
    config = context.config.generation
    return PromptSpec(
        max_tokens=config.language_model.max_tokens,
        response_tokens=config.language_model.response_tokens,
        actions=config.sessions.actions,
        attributes=config.prompts.attributes,
    )


def _spec(context: Context, base: Path) -> GenerationSpec:
    config = context.config.generation
    model = config.language_model
    return GenerationSpec(
        prompt=_prompt_spec(context),
        language_model=LanguageModelCard(
            base=Path(model.base).name if model.base else "a stand-in, trained on the shop's own titles and attributes",
            stand_in=not model.base,
            architecture=str((read_config(base).architectures or ["unknown"])[0]),
            parameters=sum(weight.numel() for weight in open_model(base).parameters()),
            temperature=model.temperature,
            top_p=model.top_p,
        ),
        query_encoder="clip" if config.query_memory.clip else "title",
        nearest_queries=config.query_memory.nearest_queries,
        top_articles=config.query_memory.top_articles,
        mixup=config.mixup,
    )


def _examples(context: Context, since: int, until: int, most: int, name: str) -> list[Example]:
    actions = context.config.generation.sessions.actions
    rng = derive(context.config.seed, "sessions", name)
    return find_examples(context.data, since, until, actions=actions, most=most, rng=rng)
