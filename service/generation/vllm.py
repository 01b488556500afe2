"""A language model behind the OpenAI-compatible API of a vLLM server, which serves the bundle's ``llm`` folder.

Best started with ``--structured-outputs-config '{"backend": "guidance"}'``: the engine of the embedded language model,
so that both write the same. vLLM's default reads the same regex, but leaves the model other tokens for the same text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError

from model_store.language_model import Written
from model_store.prompts import INSTRUCTION
from model_store.tokens import Tokenizer
from service.breaker import Breaker
from service.errors import LanguageModelUnavailable, PromptRefused
from service.generation.text import Turns, Writing

CONNECT_LIMIT = 2.0  # seconds to reach the server, of those that a call may take
MAX_ANSWER = 1 << 20  # bytes
_PARTIAL = "\N{REPLACEMENT CHARACTER}"
_REFUSED = {400, 413, 422}  # statuses of a completion: this prompt cannot be taken
_NO_ENTRY, _NOT_OFFERED = {401, 403}, {404, 405}
HTTPX_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, httpx2.CookieConflict)
"""All that httpx2 raises."""

Answer = TypeVar("Answer", bound=BaseModel)
_LOOKS, _BETWEEN_LOOKS = 400, 0.005  # for requests to end when all is closed; seconds


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: Annotated[list[_Model], Field(min_length=1)]


class _Text(BaseModel):
    prompt: str


class _Choice(BaseModel):
    text: str
    finish_reason: Literal["stop", "length"]


class _Usage(BaseModel):
    completion_tokens: int


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1)]
    usage: _Usage


class VllmTextGenerator:
    """The model that the vLLM at ``url`` serves, asked at most ``concurrency`` times at once.

    ``url`` may end in ``/v1`` or not. ``tokenizer`` is that of the bundle's ``llm`` folder: as prompts go as token ids,
    ``ready`` makes sure that the server reads the same text in them. ``timeout``: seconds that one generation may take,
    and seconds that one may wait for its turn. Nothing is tried again here. While the server does not answer, one call
    per half a second finds out whether it does again, and others fail at once. ``transport`` is for tests.
    """

    def __init__(
        self,
        url: str,
        writing: Writing,
        tokenizer: Tokenizer,
        *,
        api_key: str | None = None,
        timeout: float = 15.0,
        concurrency: int = 8,
        max_tokens: int = 1024,
        transport: httpx2.AsyncBaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._url, self._writing, self._timeout = url.rstrip("/").removesuffix("/v1"), writing, timeout
        self._probe, self._max_tokens = tokenizer.encode_prompt(INSTRUCTION), max_tokens
        self._turns, self._breaker = Turns(concurrency, timeout), Breaker(monotonic)
        self._model: _Model | None = None
        self._limits: set[asyncio.Timeout] = set()  # of the calls that run
        self._closed = False
        self._client = httpx2.AsyncClient(
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_LIMIT)),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            transport=transport,
        )

    async def write(self, prompt: Sequence[int]) -> Written:
        """The response to a prompt's token ids. Raises LanguageModelUnavailable, of these PromptRefused."""
        async with self._turns.turn(), self._guarded():
            completion = await self._complete(self._model or await self._look(), prompt)
        choice = completion.choices[0]
        cut_off = choice.finish_reason == "length"
        text = choice.text.rstrip(_PARTIAL) if cut_off else choice.text
        return Written(text, completion.usage.completion_tokens, cut_off)

    async def ready(self) -> None:
        """Returns where the server serves a model that reads the bundle's prompts. Raises LanguageModelUnavailable."""
        async with self._guarded():
            await self._look()

    async def aclose(self) -> None:
        """Close all connections, upon which vLLM stops writing."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            limit.reschedule(now)
        # A connection that is closed under a request fails in ways of its own; one that timed out has let go of it.
        for _ in range(_LOOKS):
            if not self._limits:
                break
            await asyncio.sleep(_BETWEEN_LOOKS)
        await self._client.aclose()

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        """Around calls of the server: bounded in time, translated in what they raise, and counted by the breaker."""
        self._refuse_if_closed()
        if not self._breaker.may_try():
            raise LanguageModelUnavailable(f"{self._url} did not answer a moment ago; it is asked again soon")
        try:
            async with asyncio.timeout(self._timeout) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except PromptRefused:
            self._breaker.succeeded()
            raise
        except (TimeoutError, LanguageModelUnavailable, *HTTPX_ERRORS) as error:
            self._refuse_if_closed()
            self._breaker.failed()
            raise self._translated(error) from None
        except RuntimeError:  # what httpx2 raises where its client was closed meanwhile
            self._refuse_if_closed()
            raise
        self._refuse_if_closed()  # an answer that came all the same: a request may be past where it can be cancelled
        self._breaker.succeeded()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LanguageModelUnavailable("the language model was closed")

    def _translated(self, error: Exception) -> LanguageModelUnavailable:
        match error:
            case LanguageModelUnavailable():
                return error
            case TimeoutError() | httpx2.TimeoutException():
                return LanguageModelUnavailable(f"{self._url} did not answer within {self._timeout:g} s")
            case _:
                return LanguageModelUnavailable(
                    f"{self._url} cannot be reached ({str(error) or type(error).__name__}); does a vLLM run there?"
                )

    async def _look(self) -> _Model:
        """The model that is served, once it is known to be the bundle's."""
        model = self._parsed(_Models, *await self._call("GET", "/v1/models")).data[0]
        if model.max_model_len is not None and model.max_model_len < self._max_tokens:
            raise LanguageModelUnavailable(
                f"{self._url} takes {model.max_model_len} tokens, and the bundle's prompts need {self._max_tokens}: "
                f"start vLLM with --max-model-len {self._max_tokens}"
            )
        status, body = await self._call("POST", "/detokenize", {"model": model.id, "tokens": self._probe})
        if status not in _NOT_OFFERED and INSTRUCTION not in self._parsed(_Text, status, body).prompt:
            raise LanguageModelUnavailable(
                f"{self._url} serves another model than the bundle's: it reads other text in the same tokens; "
                "start vLLM on the llm folder of the bundle"
            )
        self._model = model
        return model

    async def _complete(self, model: _Model, prompt: Sequence[int]) -> _Completion:
        most, context = self._writing.max_new_tokens, model.max_model_len
        if context is not None and len(prompt) + most > context:  # vLLM would write less than that, without a word
            raise PromptRefused(f"the prompt's {len(prompt)} tokens and {most} of the response are more than {context}")
        status, body = await self._call("POST", "/v1/completions", self._request(model.id, prompt))
        if status in _REFUSED:  # why, its own log says; its words may hold the prompt, which no log of ours does
            raise PromptRefused(f"{self._url} refused a prompt of {len(prompt)} tokens with {status}")
        if status == httpx2.codes.NOT_FOUND:
            self._model = None  # it serves another by now
        return self._parsed(_Completion, status, body)

    def _request(self, model: str, prompt: Sequence[int]) -> dict[str, Any]:
        """All that decides the text: what is left out comes from the model's ``generation_config``."""
        request: dict[str, Any] = {
            "model": model,
            "prompt": [int(each) for each in prompt],
            "max_tokens": self._writing.max_new_tokens,
            "temperature": self._writing.temperature,
            "top_p": self._writing.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "min_tokens": 0,
            "n": 1,
            "stream": False,
        }
        if self._writing.regex is not None:
            request["structured_outputs"] = {"regex": self._writing.regex}  # guided_regex is ignored, silently
        return request

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """(Status, body). Raises what httpx2 raises, and LanguageModelUnavailable where there is no end to the body."""
        async with self._client.stream(method, self._url + path, json=body) as response:
            answer = bytearray()
            async for part in response.aiter_bytes():
                answer += part
                if len(answer) > MAX_ANSWER:
                    raise LanguageModelUnavailable(f"{self._url} answered with more than {MAX_ANSWER} bytes")
        return response.status_code, bytes(answer)

    def _parsed(self, kind: type[Answer], status: int, body: bytes) -> Answer:
        if status in _NO_ENTRY:
            raise LanguageModelUnavailable(f"{self._url} refused the key with {status}: set MODISTE_LLM_API_KEY")
        if status != httpx2.codes.OK:
            raise LanguageModelUnavailable(f"{self._url} answered with {status}")
        try:
            return kind.model_validate_json(body)
        except ValidationError:
            raise LanguageModelUnavailable(f"{self._url} did not answer as vLLM does") from None
