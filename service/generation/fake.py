"""A text generator without a language model: for tests, and for a laptop that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from model_store.language_model import Written
from service.errors import LanguageModelUnavailable
from service.generation.text import Writing

LETTERS_PER_TOKEN = 4
_ANSWER = "{<id>a000001</id>,<title>untitled</title>}"


class FakeTextGenerator:
    """Answers each prompt with ``answer`` of it, be it rubbish, after ``delay`` seconds.

    A ``failure`` is raised instead, before the delay; both may be set at any time. A token counts as four letters.
    ``prompts`` are all that it was asked, ``writing`` the number of those that wait for their answer.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[int]], str] = lambda _: _ANSWER,
        *,
        delay: float = 0.0,
        failure: LanguageModelUnavailable | None = None,
        max_new_tokens: int = Writing.max_new_tokens,
    ):
        self._answer, self._room = answer, max_new_tokens * LETTERS_PER_TOKEN
        self.delay, self.failure = delay, failure
        self.prompts: list[tuple[int, ...]] = []
        self.writing = 0
        self._closed = asyncio.Event()

    async def write(self, prompt: Sequence[int]) -> Written:
        """The answer to a prompt's token ids. Raises ``failure``, and LanguageModelUnavailable once closed."""
        self.prompts.append(tuple(prompt))
        await self.ready()
        self.writing += 1
        try:
            await self._wait()
        finally:
            self.writing -= 1
        text = self._answer(prompt)
        cut_off = len(text) > self._room
        tokens = -(-min(len(text), self._room) // LETTERS_PER_TOKEN)
        return Written(text[: self._room], tokens, cut_off)

    async def ready(self) -> None:
        """Returns where it would answer. Raises ``failure``, and LanguageModelUnavailable once closed."""
        if self.failure is not None:
            raise self.failure
        if self._closed.is_set():
            raise LanguageModelUnavailable("the language model was closed")

    async def aclose(self) -> None:
        """End what is being written as LanguageModelUnavailable."""
        self._closed.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.delay):
                await self._closed.wait()
        except TimeoutError:
            return
        raise LanguageModelUnavailable("the language model was closed")
