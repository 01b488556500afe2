"""Golden cases: raw records with what training itself made of them.

    articles    → Fashion DNA          customers   → style              within 1e-4 of what training's networks computed
    texts       → title embedding      queries     → query embedding    the same, of the generating half
    sessions    → prompt, to the letter and the token                   queries → candidate ids, the very same

Whoever opens a bundle recomputes them through the encoders, graphs and templates that it will serve with. A difference
means that this release reads articles, times, texts or graphs otherwise than training did; the bundle is then refused.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model_store import DNA_SIZE
from model_store.article_features import ArticleEncoder, article_fingerprint, decode_image
from model_store.article_table import load_articles, load_offset
from model_store.bundle import GOLDEN_ARRAYS, GOLDEN_CASES, Bundle
from model_store.errors import InvalidBundle, InvalidRecord
from model_store.generation import LLM, TEXT_SIZE, Generation, QueryMemory, load_titles, open_generation
from model_store.generation_spec import GenerationSpec
from model_store.graphs import Float32, Graphs, Memory, StyleLstm, encode_articles, open_graphs
from model_store.prompts import Prompt, PromptSpec, PromptTooLong, PromptWriter
from model_store.records import Article, Event, EventType, Identifier, ShortText, Timestamp
from model_store.sessions import session_actions, session_events
from model_store.time_features import encode_history
from model_store.tokens import Tokenizer

TOLERANCE = 1e-4
"""Largest difference allowed in any component of Fashion DNA, style or embedding."""
_MARGIN = 1e-3
"""By how much the nearest queries of a golden query must be nearer than the next ones."""


class GoldenArticle(BaseModel):
    """A raw article and the file of its picture (base64 in JSON), or None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    article: Article
    image: Base64Bytes | None = None


class GoldenPurchase(BaseModel):
    """One purchase of a trained article, at Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    article_id: Identifier
    timestamp: Timestamp


class GoldenCustomer(BaseModel):
    """A history, oldest first (perhaps empty), and the time at which the style is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    purchases: tuple[GoldenPurchase, ...]
    read_time: Timestamp


class GoldenEvent(BaseModel):
    """One event of a session, without the ids of event and customer: a search of ``query``, else of ``article_id``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: EventType
    article_id: Identifier | None = None
    query: ShortText | None = None
    timestamp: Timestamp


class GoldenSession(BaseModel):
    """Raw events and article records, candidate ids, and the prompt that they make (``golden_session``).

    ``prompt_sha256`` is of the prompt's text in UTF-8 and, behind it, its ``tokens`` token ids as little-endian int32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    events: tuple[GoldenEvent, ...]
    articles: tuple[Article, ...] = ()
    candidates: tuple[Identifier, ...] = ()
    prompt_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tokens: Annotated[int, Field(ge=1)]


class GoldenText(BaseModel):
    """A title or query as it was written. ``article_id``: the trained article whose title it is, where it is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    article_id: Identifier | None = None


class GoldenQuery(BaseModel):
    """A query, and the ids that the query-product memory gives for it, whatever is in stock (``golden_query``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str
    article_ids: tuple[Identifier, ...]


class GoldenCases(BaseModel):
    """A articles and C customers; ``golden.safetensors`` holds ``dna`` (A, 128) and ``style`` (C, 128).

    A bundle with a generating half has sessions, T texts and perhaps Q queries too, and the arrays ``text`` (T, 128)
    and ``query`` (Q, 128).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    articles: Annotated[tuple[GoldenArticle, ...], Field(min_length=1)]
    customers: Annotated[tuple[GoldenCustomer, ...], Field(min_length=1)]
    sessions: tuple[GoldenSession, ...] = ()
    texts: tuple[GoldenText, ...] = ()
    queries: tuple[GoldenQuery, ...] = ()


def golden_article(name: str, article: Article, image: bytes | None) -> GoldenArticle:
    """A case from a record and its picture's bytes."""
    return GoldenArticle(name=name, article=article, image=None if image is None else base64.b64encode(image))


def golden_session(
    name: str,
    events: Sequence[GoldenEvent],
    articles: Sequence[Article],
    candidates: Sequence[str],
    spec: PromptSpec,
    tokenizer: Tokenizer,
) -> GoldenSession:
    """A case from one customer's events, in any order, the records of their articles, and the candidates' ids."""
    prompt = _prompt(events, articles, candidates, PromptWriter(spec, tokenizer), spec)
    return GoldenSession(
        name=name,
        events=tuple(events),
        articles=tuple(articles),
        candidates=tuple(candidates),
        prompt_sha256=_digest(prompt),
        tokens=len(prompt.token_ids),
    )


def golden_query(query: str, embedding: Float32, memory: QueryMemory, spec: GenerationSpec) -> GoldenQuery | None:
    """A case from a query and its embedding, float32 (128), as the memory's keys are computed.

    None where the last of its nearest queries is hardly nearer than the first that is not among them, or where their
    order is as close: rounding on another machine might then give other candidates.
    """
    cosine = -np.sort(-(memory.keys @ embedding))[: spec.nearest_queries + 1]
    if not len(cosine) or (len(cosine) > 1 and not float(np.diff(-cosine).min()) > _MARGIN):
        return None
    found = memory.candidates(embedding, spec.nearest_queries, spec.top_articles)
    return GoldenQuery(query=query, article_ids=tuple(found))


def write_golden(
    stage: Path,
    cases: GoldenCases,
    dna: Float32,
    style: Float32,
    text: Float32 | None = None,
    query: Float32 | None = None,
) -> None:
    """Write the cases with what they must give: ``dna`` float32 (A, 128) and ``style`` float32 (C, 128).

    Of the generating half ``text`` float32 (T, 128) and ``query`` float32 (Q, 128), each row of length 1.
    """
    (stage / GOLDEN_CASES).write_text(cases.model_dump_json(exclude_defaults=True), encoding="utf-8")
    arrays = {"dna": dna, "style": style, "text": text, "query": query}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    save_file(contiguous, stage / GOLDEN_ARRAYS)


@dataclass(frozen=True)
class _Expected:
    """The arrays of ``golden.safetensors``; ``text`` and ``query`` have no rows where it does not hold them."""

    dna: Float32
    style: Float32
    text: Float32
    query: Float32


@dataclass(frozen=True)
class _Trained:
    """The trained catalogue: row of each article, its fingerprint, Fashion DNA and what that holds beyond records."""

    row_of: dict[str, int]
    fingerprints: list[str]
    dna: Float32
    offset: Float32 | None

    def told(self, row: int) -> Float32:
        """Fashion DNA of one article without its offset, float32 (128)."""
        dna: Float32 = self.dna[row] if self.offset is None else self.dna[row] - self.offset[row]
        return dna


def check(bundle: Bundle, graphs: Graphs | None = None, generation: Generation | None = None) -> None:
    """Recompute every golden case. Raises InvalidBundle that names the first which is not met.

    ``graphs``, ``generation``: the bundle's, where they are open already.
    """
    cases, expected = _load(bundle)
    ids, fingerprints, table = load_articles(bundle)
    row_of = {article_id: row for row, article_id in enumerate(ids)}
    trained = _Trained(row_of, fingerprints, table, load_offset(bundle))
    graphs = graphs or open_graphs(bundle)
    _check_articles(bundle, graphs, cases.articles, expected.dna, trained)
    _check_customers(bundle, graphs.style_lstm, cases.customers, expected.style, trained)
    if bundle.manifest.generation is not None:
        generation = generation or open_generation(bundle.folder, bundle.manifest.generation, ids)
        if not cases.sessions or not cases.texts:
            raise InvalidBundle(f"{bundle.folder}: {GOLDEN_CASES} has no session or no text for the generating half")
        _check_sessions(bundle, generation.spec.prompt, cases.sessions)
        _check_texts(bundle, generation, cases.texts, expected.text, trained)
        _check_queries(bundle, generation, cases.queries, expected.query)


def _load(bundle: Bundle) -> tuple[GoldenCases, _Expected]:
    try:
        cases = GoldenCases.model_validate_json(bundle.path(GOLDEN_CASES).read_bytes())
        arrays = load_file(bundle.path(GOLDEN_ARRAYS))
        none = np.zeros((0, TEXT_SIZE), np.float32)
        expected = _Expected(arrays["dna"], arrays["style"], arrays.get("text", none), arrays.get("query", none))
    except (ValidationError, SafetensorError, KeyError, OSError) as error:
        raise InvalidBundle(f"{bundle.folder}: {GOLDEN_CASES} or {GOLDEN_ARRAYS} cannot be read ({error})") from None
    for array, these, size in (
        (expected.dna, cases.articles, DNA_SIZE),
        (expected.style, cases.customers, DNA_SIZE),
        (expected.text, cases.texts, TEXT_SIZE),
        (expected.query, cases.queries, TEXT_SIZE),
    ):
        if array.shape != (len(these), size):
            raise InvalidBundle(f"{bundle.folder}: {GOLDEN_ARRAYS} does not fit the cases of {GOLDEN_CASES}")
    return cases, expected


def _check_articles(
    bundle: Bundle, graphs: Graphs, cases: Sequence[GoldenArticle], expected: Float32, trained: _Trained
) -> None:
    """Records give the expected Fashion DNA, and so does the trained table where it holds the very same record."""
    spec = bundle.manifest.article_spec
    try:
        images = [None if case.image is None else decode_image(case.image, spec) for case in cases]
    except InvalidRecord as error:
        raise InvalidBundle(f"{bundle.folder}: {GOLDEN_CASES}: {error}") from None
    found = encode_articles(graphs, ArticleEncoder(spec), [case.article for case in cases], images)
    for index, case in enumerate(cases):
        what = f"{bundle.folder}: golden article '{case.name}'"
        _compare(f"{what}: Fashion DNA from its record", found[index], expected[index])
        row = trained.row_of.get(case.article.article_id)
        if row is not None and trained.fingerprints[row] == article_fingerprint(case.article, case.image):
            told = bundle.manifest.told_by_records
            _compare(f"{what}: Fashion DNA in the trained table", trained.told(row)[told], expected[index, told])


def _check_customers(
    bundle: Bundle, graph: StyleLstm, cases: Sequence[GoldenCustomer], expected: Float32, trained: _Trained
) -> None:
    """Histories give the expected style, replayed together in one padded batch and step by step."""
    histories = [_steps(bundle, case, trained) for case in cases]
    replayed = _replay(graph, histories)
    for index, (case, steps) in enumerate(zip(cases, histories, strict=True)):
        what = f"{bundle.folder}: golden customer '{case.name}'"
        _compare(f"{what}: style by replay", replayed[index], expected[index])
        _compare(f"{what}: style step by step", _walk(graph, steps), expected[index])


def _steps(bundle: Bundle, case: GoldenCustomer, trained: _Trained) -> Float32:
    try:
        rows = [trained.row_of[purchase.article_id] for purchase in case.purchases]
    except KeyError as error:
        raise InvalidBundle(
            f"{bundle.folder}: golden customer '{case.name}' bought {error}, which was never trained"
        ) from None
    times = np.asarray([purchase.timestamp for purchase in case.purchases], np.int64)
    return encode_history(bundle.manifest.time_spec, trained.dna[rows].reshape(-1, DNA_SIZE), times, case.read_time)


def _replay(graph: StyleLstm, histories: Sequence[Float32]) -> Float32:
    lengths = np.asarray([len(steps) for steps in histories], np.int32)
    padded = np.zeros((len(histories), lengths.max(), histories[0].shape[1]), np.float32)
    for row, steps in zip(padded, histories, strict=True):
        row[: len(steps)] = steps
    styles, _ = graph.run_steps(padded, lengths, Memory.zeros(len(histories)))
    last: Float32 = styles[np.arange(len(histories)), lengths - 1]
    return last


def _walk(graph: StyleLstm, steps: Float32) -> Float32:
    memory, style = Memory.zeros(1), np.zeros((1, DNA_SIZE), np.float32)
    for step in steps:
        style, memory = graph.step(step[None], memory)
    last: Float32 = style[0]
    return last


def _check_sessions(bundle: Bundle, spec: PromptSpec, cases: Sequence[GoldenSession]) -> None:
    """Raw events and records give the very prompt that training wrote."""
    try:
        writer = PromptWriter(spec, Tokenizer.of_model(bundle.path(LLM)))
    except PromptTooLong as error:
        raise InvalidBundle(f"{bundle.folder}: {error}") from None
    for case in cases:
        prompt = _prompt(case.events, case.articles, case.candidates, writer, spec)
        if (_digest(prompt), len(prompt.token_ids)) != (case.prompt_sha256, case.tokens):
            raise InvalidBundle(
                f"{bundle.folder}: golden session '{case.name}': its prompt differs from what training wrote "
                f"({len(prompt.token_ids)} tokens, {case.tokens} expected)"
            )


def _check_texts(
    bundle: Bundle, generation: Generation, cases: Sequence[GoldenText], expected: Float32, trained: _Trained
) -> None:
    """Texts give the expected embeddings, together and alone, and so does the trained table of titles."""
    together = generation.title_encoder.encode([case.text for case in cases])
    titles = load_titles(bundle.folder, len(trained.row_of))
    for index, case in enumerate(cases):
        what = f"{bundle.folder}: golden text '{case.text}'"
        _compare(f"{what}: title embedding", together[index], expected[index])
        _compare(f"{what}: title embedding alone", generation.title_encoder.encode([case.text])[0], expected[index])
        if case.article_id is None:
            continue
        if case.article_id not in trained.row_of:
            raise InvalidBundle(f"{what} is the title of '{case.article_id}', which was never trained")
        _compare(f"{what}: the trained table of titles", titles[trained.row_of[case.article_id]], expected[index])


def _check_queries(bundle: Bundle, generation: Generation, cases: Sequence[GoldenQuery], expected: Float32) -> None:
    """Queries give the expected embeddings, and those the expected candidates."""
    spec = generation.spec
    found = generation.query_encoder.encode([case.query for case in cases])
    for case, embedding, wanted in zip(cases, found, expected, strict=True):
        what = f"{bundle.folder}: golden query '{case.query}'"
        _compare(f"{what}: query embedding", embedding, wanted)
        candidates = generation.memory.candidates(wanted, spec.nearest_queries, spec.top_articles)
        if candidates != list(case.article_ids):
            raise InvalidBundle(f"{what}: the memory gives other candidates than it gave training")


def _prompt(
    events: Sequence[GoldenEvent],
    articles: Sequence[Article],
    candidates: Sequence[str],
    writer: PromptWriter,
    spec: PromptSpec,
) -> Prompt:
    try:
        full = [
            Event(event_id=f"{number:06}", customer_id="golden", **event.model_dump())
            for number, event in enumerate(events)
        ]
    except ValidationError as error:
        raise InvalidBundle(f"a golden session holds an event that is none ({error})") from None
    records = {article.article_id: article for article in articles}
    return writer.write(session_actions(session_events(full, spec.actions), records.get), candidates)


def _digest(prompt: Prompt) -> str:
    return hashlib.sha256(prompt.text.encode() + np.asarray(prompt.token_ids, "<i4").tobytes()).hexdigest()


def _compare(what: str, found: Float32, expected: Float32) -> None:
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # NaN is a difference too
        raise InvalidBundle(f"{what} differs by {difference:.2g} from what training computed")
