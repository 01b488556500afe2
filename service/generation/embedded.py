"""The bundle's embedded language model in a process of its own, which ``service.generation.embedded_process`` is.

A process, not a thread: onnxruntime-genai holds Python's lock while it computes (a prompt of 957 tokens stopped all
other threads for 220 ms, with 5 million weights), and what goes wrong in native code takes only this process with it.
It starts with the first need, and again where it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from model_store.language_model import Written
from service.breaker import Breaker
from service.errors import LanguageModelUnavailable, PromptRefused
from service.generation.text import Turns, Writing

log = logging.getLogger(__name__)

START_LIMIT = 120.0  # seconds until the process must have its model loaded; of billions of weights
STOP_LIMIT = 5.0  # seconds for it to stop writing, or to end, when asked to
_LINE_LIMIT = 1 << 20  # bytes of an answer
_Answer = asyncio.Future[dict[str, Any]]
_MODULE = "service.generation.embedded_process"


class EmbeddedTextGenerator:
    """The language model in ``folder`` (a bundle's ``llm_embedded``), one generation at a time, on ``threads`` threads.

    ``llm`` is the bundle's folder of that name, which holds its tokenizer. ``timeout``: seconds that one generation may
    take, and seconds that one may wait for its turn.
    """

    def __init__(
        self,
        folder: Path,
        llm: Path,
        writing: Writing,
        *,
        threads: int = 1,
        timeout: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._command = [sys.executable, "-m", _MODULE, str(folder), str(llm), str(threads), str(os.getpid())]
        self._writing, self._timeout = writing, timeout
        self._turns = Turns(1, timeout)
        self._starting = asyncio.Lock()
        self._starts = Breaker(monotonic)
        self._child: _Child | None = None
        self._refusal: str | None = None  # why no process can ever write here

    @property
    def pid(self) -> int | None:
        """The process of the language model, where it runs."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    async def write(self, prompt: Sequence[int]) -> Written:
        """The response to a prompt's token ids. Raises LanguageModelUnavailable."""
        async with self._turns.turn():
            child = await self._running()
            return await child.write(prompt, self._writing, self._timeout)

    async def ready(self) -> None:
        """Returns where the language model is loaded. Raises LanguageModelUnavailable."""
        await self._running()

    async def aclose(self) -> None:
        """End the process; what is being written ends unfinished."""
        self._refusal = "the language model was closed"
        async with self._starting:
            if self._child is not None:
                await self._child.end()

    async def _running(self) -> _Child:
        async with self._starting:
            if self._child is not None and self._child.alive:
                return self._child
            if self._refusal is not None:
                raise LanguageModelUnavailable(self._refusal)
            if not self._starts.may_try():
                raise LanguageModelUnavailable("the language model's process ended a moment ago; it is started again")
            self._child = await self._start()
            return self._child

    async def _start(self) -> _Child:
        child = await _Child.start(self._command)
        try:
            answer = await child.load()
        except BaseException:
            self._starts.failed()
            await child.end()
            raise
        if "unusable" in answer:
            await child.end()
            self._refusal = answer["unusable"]
            raise LanguageModelUnavailable(self._refusal)
        self._starts.succeeded()
        return child


class _Child:
    """One process, spoken to in lines of JSON; its answers come in the order of what it was asked."""

    def __init__(self, process: Process):
        self.process = process
        self._loaded: _Answer = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, _Answer] = {0: self._loaded}
        self._asked = 0
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Child:
        try:
            return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=_LINE_LIMIT))
        except OSError as error:
            raise LanguageModelUnavailable(f"the language model's process cannot be started ({error})") from None

    @property
    def alive(self) -> bool:
        return not self._listening.done()

    async def load(self) -> dict[str, Any]:
        """What it says once its model is loaded, or cannot be."""
        try:
            async with asyncio.timeout(START_LIMIT):
                return await self._loaded
        except TimeoutError:
            raise LanguageModelUnavailable(f"the language model did not load within {START_LIMIT:g} s") from None

    async def write(self, prompt: Sequence[int], writing: Writing, most: float) -> Written:
        self._asked += 1
        number = self._asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._say(
            {
                "number": number,
                "prompt": [int(each) for each in prompt],
                "max_new_tokens": writing.max_new_tokens,
                "temperature": writing.temperature,
                "top_p": writing.top_p,
                "regex": writing.regex,
            }
        )
        try:
            done, _ = await asyncio.wait([answer], timeout=most)
        except asyncio.CancelledError:
            self._say({"stop": number})
            raise
        if not done:
            await self._stop(number, answer)
            raise LanguageModelUnavailable(f"the language model took longer than {most:g} s")
        return _written(answer.result())

    async def end(self) -> None:
        """Ask the process to end, and make it where it does not."""
        assert self.process.stdin is not None
        self._fail("the language model was closed")
        self.process.stdin.close()
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await self.process.wait()
        except TimeoutError:
            self._kill()
        await self._listening

    async def _stop(self, number: int, answer: _Answer) -> None:
        """Make it stop writing; where it does not even do that, it hangs."""
        self._say({"stop": number})
        done, _ = await asyncio.wait([answer], timeout=STOP_LIMIT)
        if done:
            return
        log.error("the language model's process hangs; it is killed")
        self._kill()
        await self._listening

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():  # else it ends, and what waits for it is told so
            self.process.stdin.write(orjson.dumps(message) + b"\n")

    def _kill(self) -> None:
        # Not process.kill(): before Python 3.13 that asks after the process first, and where it has just ended takes
        # its status away from who waits for it, who then reports 255 (python/cpython#87744).
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    async def _listen(self) -> None:
        """Give each answer to who waits for it, until the process ends."""
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # a line longer than any answer
            async for line in self.process.stdout:
                self._hear(line)
        self._kill()
        self._fail(f"the language model's process ended with status {await self.process.wait()}")

    def _fail(self, reason: str) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LanguageModelUnavailable(reason))
                answer.exception()  # looked at: nobody may be left who waits for it

    def _hear(self, line: bytes) -> None:
        message: dict[str, Any] = orjson.loads(line)
        answer = self._waiting.pop(message["number"])
        if not answer.done():
            answer.set_result(message)


def _written(answer: dict[str, Any]) -> Written:
    match answer:
        case {"refused": str(reason)}:
            raise PromptRefused(reason)
        case {"unusable": str(reason)}:
            raise LanguageModelUnavailable(reason)
        case _:
            return Written(answer["text"], answer["tokens"], answer["cut_off"])
