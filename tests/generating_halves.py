"""A small generating half for the bundles of tests: real graphs, tables and prompts around a language model of random
weights. Titles and queries that share words lie near each other; that is all that its title encoder knows.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_language_models import tiny_language_model
from tokenizers import Tokenizer, models, pre_tokenizers

from model_store.generation import (
    LLM,
    LLM_EMBEDDED,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    QueryMemory,
    TextEncoder,
    write_ids,
    write_memory,
    write_titles,
)
from model_store.generation_spec import GenerationSpec, LanguageModelCard
from model_store.golden import GoldenEvent, GoldenText, golden_query, golden_session
from model_store.prompts import PromptSpec
from model_store.records import Article, EventType
from model_store.tokens import Tokenizer as PromptTokenizer
from offline.generation_bundling import GeneratingHalf

UNTRAINED = 10
"""Every so many articles were never seen by CORE, and have the cold id embedding."""


def generating_half(folder: Path, articles: Sequence[Article], *, seed: int = 0) -> GeneratingHalf:
    """Write the files of a generating half over ``articles``, as ``model_store.generation`` lays them out.

    ``llm_embedded`` holds place-holders: who runs a language model brings its own.
    """
    rng = np.random.default_rng(seed)
    write_title_encoder(folder, [word for article in articles for word in article.title.casefold().split()], rng)
    encoder = TextEncoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER)
    titles = encoder.encode([article.title for article in articles])
    write_titles(folder, titles)
    trained = np.array([row for row in range(len(articles)) if row % UNTRAINED != UNTRAINED - 1], np.int64)
    vectors = unit_rows(rng.standard_normal((len(trained) + 1, 128)))
    write_ids(folder, vectors[:-1], trained, vectors[-1])
    memory = _memory(articles, encoder)
    write_memory(folder, memory)
    _copy(_language_model(), folder / LLM)
    (folder / LLM_EMBEDDED).mkdir()
    for name in ("genai_config.json", "model.onnx"):
        (folder / LLM_EMBEDDED / name).write_bytes(b"{}")
    return _with_golden_cases(folder, articles, titles, memory, encoder)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """float32 (N, 128), each of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_title_encoder(folder: Path, words: Sequence[str], rng: np.random.Generator) -> None:
    """A tokenizer that knows ``words``, and a graph that adds up a random vector for each word of a text."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / TITLE_TOKENIZER))
    weights = {
        "words": rng.standard_normal((len(vocabulary), 128)).astype(np.float32),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "second": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["token_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["size"]),
        helper.make_node("Range", ["zero", "size", "one"], ["places"]),
        helper.make_node("Cast", ["lengths"], ["lengths_64"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["lengths_64", "second"], ["ends"]),
        helper.make_node("Less", ["places", "ends"], ["inside"]),
        helper.make_node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "minus_one"], ["wide_mask"]),
        helper.make_node("Gather", ["words", "token_ids"], ["vectors"]),
        helper.make_node("Mul", ["vectors", "wide_mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "second"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2),
    ]
    weights["minus_one"] = np.array([-1], np.int64)
    graph = helper.make_graph(
        nodes,
        "words",
        [
            helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 128])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / TITLE_ENCODER))


def _memory(articles: Sequence[Article], encoder: TextEncoder) -> QueryMemory:
    """Colour and category as a query, answered by the articles that are so."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for article in articles:
        found[f"{article.colour} {article.category}"].append(article.article_id)
    queries = sorted(found)
    return QueryMemory(queries, encoder.encode(queries), [found[query] for query in queries])


@cache
def _language_model() -> dict[str, bytes]:
    """The files of a Llama of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_language_model(Path(folder), "llama")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _copy(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _with_golden_cases(
    folder: Path, articles: Sequence[Article], titles: np.ndarray, memory: QueryMemory, encoder: TextEncoder
) -> GeneratingHalf:
    card = LanguageModelCard(base="random weights", stand_in=True, architecture="LlamaForCausalLM", parameters=400_000)
    spec = GenerationSpec(prompt=PromptSpec(), language_model=card)
    tokenizer, first = PromptTokenizer.of_model(folder / LLM), articles[0]
    events = (
        GoldenEvent(type=EventType.SEARCH, query=f"{first.colour} {first.category}", timestamp=1),
        GoldenEvent(type=EventType.CLICK, article_id=first.article_id, timestamp=2),
    )
    keys = [
        (golden_query(query, key, memory, spec), key) for query, key in zip(memory.queries, memory.keys, strict=True)
    ]
    queries = [(case, key) for case, key in keys if case is not None][:2]
    return GeneratingHalf(
        folder,
        spec,
        (
            golden_session("nothing yet", (), (), (), spec.prompt, tokenizer),
            golden_session("a search and a click", events, [first], [first.article_id], spec.prompt, tokenizer),
        ),
        tuple(GoldenText(text=article.title, article_id=article.article_id) for article in articles[:3]),
        titles[:3],
        tuple(case for case, _ in queries),
        np.stack([key for _, key in queries]) if queries else titles[:0],
    )
