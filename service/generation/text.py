"""Letting a language model write: the protocol of every backend. One contract suite holds all of them to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from model_store.generation_spec import GenerationSpec
from model_store.language_model import Written
from model_store.prompts import RESPONSE_REGEX
from service.errors import LanguageModelUnavailable

__all__ = ["TextGenerator", "Turns", "Writing", "Written"]


class TextGenerator(Protocol):
    """One language model, asked with token ids, so that every backend sees the very same prompt.

    ``write`` may be called by many at once; cancelling one frees the language model for the next.
    """

    async def write(self, prompt: Sequence[int]) -> Written:
        """The response to a prompt's token ids.

        Raises LanguageModelUnavailable; of these PromptRefused where the same prompt would be refused again.
        """
        ...

    async def ready(self) -> None:
        """Returns where the language model can write. Raises LanguageModelUnavailable."""
        ...

    async def aclose(self) -> None:
        """Free what it holds; what is being written ends unfinished, as LanguageModelUnavailable."""
        ...


@dataclass(frozen=True)
class Writing:
    """How one language model is to write: every backend asks for the same.

    ``max_new_tokens`` of a response at most; ``temperature`` 0 is always the likeliest token; ``top_p`` in (0, 1];
    ``regex`` must match, None: anything goes.
    """

    max_new_tokens: int = 64
    temperature: float = 0.05
    top_p: float = 0.95
    regex: str | None = RESPONSE_REGEX

    @classmethod
    def of(cls, spec: GenerationSpec) -> Writing:
        """As the bundle's manifest says."""
        model = spec.language_model
        return cls(spec.prompt.response_tokens, model.temperature, model.top_p)


class Turns:
    """At most ``places`` write at once; who waits longer than ``patience`` seconds for a place is turned away."""

    def __init__(self, places: int, patience: float):
        self._places, self._patience = asyncio.Semaphore(places), patience

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place, for as long as the context is open. Raises LanguageModelUnavailable."""
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise LanguageModelUnavailable(
                f"the language model was busy with others for {self._patience:g} s; let fewer ask it at once"
            ) from None
        try:
            yield
        finally:
            self._places.release()
