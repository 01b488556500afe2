"""Prompts for a customer's session, as one bundle writes them: articles and stock as the catalogue has them now.

The rules are those of training (``offline.sequences``), by the same code: ``model_store.sessions`` chooses the actions,
the query-product memory names the candidates, ``model_store.prompts`` writes the text. No customer's id comes near it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_store.bundle import Bundle
from model_store.errors import InvalidBundle
from model_store.generation import (
    LLM,
    QUERY_ENCODER,
    QUERY_TOKENIZER,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    QueryMemory,
    TextEncoder,
    load_memory,
)
from model_store.generation_spec import GenerationSpec
from model_store.prompts import Prompt, PromptTooLong, PromptWriter
from model_store.records import LATEST_TIMESTAMP, Article, Event, EventType
from model_store.sessions import latest_query, session_actions, session_events
from model_store.tokens import Tokenizer
from service.catalogue.store import CatalogueStore
from service.engine.style import bundle_stamp
from service.state.codec import stored_event

_NO_DNA = ""  # of no bundle: the catalogue is asked for records and stock alone


@dataclass(frozen=True)
class Reading:
    """What the language model reads: a session, oldest first, the memory's candidates, and the prompt of both."""

    session: Sequence[Event]
    candidates: Sequence[str] = ()
    prompt: Prompt | None = None


@dataclass(frozen=True, eq=False)
class Prompting:
    """What one bundle makes prompts with. ``bundle``: its stamp, by which generations name it."""

    bundle: str
    spec: GenerationSpec
    tokenizer: Tokenizer
    writer: PromptWriter
    query_encoder: TextEncoder
    memory: QueryMemory

    async def prompt(self, events: Sequence[Event], query: str | None, catalogue: CatalogueStore) -> Prompt | None:
        """The prompt of one customer's events of any type; None where they did nothing that it could tell.

        ``query``: what the customer searches now, on top of it. Raises StoreUnavailable.
        """
        return (await self.read(events, query, catalogue)).prompt

    async def read(self, events: Sequence[Event], query: str | None, catalogue: CatalogueStore) -> Reading:
        """``prompt``, and what it is made of."""
        if query is not None:
            events = [*events, _search_now(query)]
        session = session_events(events, self.spec.prompt.actions)
        articles = await _articles(session, catalogue)
        actions = session_actions(session, articles.get)
        if not actions:
            return Reading(session)
        searched = latest_query(actions)
        candidates = [] if searched is None else await self._candidates(searched, catalogue)
        prompt = await asyncio.to_thread(self.writer.write, actions, candidates)  # tokenising takes milliseconds
        return Reading(session, candidates, prompt)

    async def _candidates(self, query: str, catalogue: CatalogueStore) -> list[str]:
        """What the memory gives for ``query`` out of what is in stock.

        First it is asked as if everything were, and only where that is not so about all that the nearest queries list.
        """
        (key,) = self.query_encoder.encode([query])
        nearest, top = self.spec.nearest_queries, self.spec.top_articles
        in_stock: dict[str, bool] = {}

        def is_candidate(article_id: str) -> bool:
            return in_stock.get(article_id, True)

        found: list[str] = []
        for looked_at in (top, sys.maxsize):
            unknown = [each for each in self.memory.candidates(key, nearest, looked_at) if each not in in_stock]
            entries = await catalogue.read(unknown, _NO_DNA)
            in_stock |= {
                each: entry is not None and entry.in_stock for each, entry in zip(unknown, entries, strict=True)
            }
            found = self.memory.candidates(key, nearest, top, is_candidate)
            if in_stock.keys() >= set(found):
                break
        return found


def open_prompting(bundle: Bundle) -> Prompting:
    """What ``bundle`` makes prompts with. Raises InvalidBundle, also where it has no generating half."""
    spec, folder = bundle.manifest.generation, bundle.folder
    if spec is None:
        raise InvalidBundle(f"{folder}: has no language model")
    encoder, texts = TITLE_ENCODER, TITLE_TOKENIZER
    if spec.query_encoder != "title":
        encoder, texts = QUERY_ENCODER, QUERY_TOKENIZER
    tokenizer = Tokenizer.of_model(folder / LLM)
    try:
        writer = PromptWriter(spec.prompt, tokenizer)
    except PromptTooLong as error:
        raise InvalidBundle(f"{folder}: {error}") from None
    query_encoder = TextEncoder(folder / encoder, folder / texts)
    return Prompting(bundle_stamp(bundle.manifest), spec, tokenizer, writer, query_encoder, load_memory(folder))


async def _articles(session: Iterable[Event], catalogue: CatalogueStore) -> dict[str, Article]:
    """Records of the session's articles, deleted ones included: what was looked at stays what it was."""
    names = list(dict.fromkeys(event.article_id for event in session if event.article_id is not None))
    entries = await catalogue.read(names, _NO_DNA) if names else []
    return {name: entry.article for name, entry in zip(names, entries, strict=True) if entry is not None}


def _search_now(query: str) -> Event:
    """A search after everything else. Only a prompt is made of it: it is stored nowhere."""
    return stored_event("", LATEST_TIMESTAMP, "", EventType.SEARCH, None, query, None, None)
