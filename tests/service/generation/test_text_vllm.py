"""The client of vLLM where the server fails it; that it works with a real one, the contract suite shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from language_model_backends import tiny_folder

from model_store.prompts import INSTRUCTION, RESPONSE_REGEX
from model_store.tokens import Tokenizer
from service.breaker import PAUSE
from service.errors import LanguageModelUnavailable, PromptRefused
from service.generation.text import Writing
from service.generation.vllm import HTTPX_ERRORS, MAX_ANSWER, VllmTextGenerator

URL = "http://llm.test:8000"
TEXT = "{<id>a000123</id>,<title>Breezy jacket</title>}"
COMPLETION = {"choices": [{"text": TEXT, "finish_reason": "stop"}], "usage": {"completion_tokens": 12}}
MODELS = {"data": [{"id": "llm", "max_model_len": 1024}]}
PROMPT = [5, 6, 7]


@dataclass
class Server:
    """Answers like a vLLM: ``answers`` by path, each a body, a response, or what is done instead."""

    answers: dict[str, Any] = field(
        default_factory=lambda: {
            "/v1/models": MODELS,
            "/detokenize": {"prompt": "<s>" + INSTRUCTION},
            "/v1/completions": COMPLETION,
        }
    )
    requests: list[httpx2.Request] = field(default_factory=list)

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers[request.url.path]
        if callable(answer):
            answer = await answer()
        return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)

    def asked(self, path: str = "/v1/completions") -> int:
        return sum(request.url.path == path for request in self.requests)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.of_model(tiny_folder("llama"))


Connect = Callable[..., VllmTextGenerator]


@pytest.fixture
async def connect(server: Server, clock: Clock, tokenizer: Tokenizer) -> AsyncIterator[Connect]:
    made: list[VllmTextGenerator] = []

    def make(url: str = URL, **how: Any) -> VllmTextGenerator:
        how = {"transport": httpx2.MockTransport(server.handle), "monotonic": clock, **how}
        made.append(VllmTextGenerator(url, how.pop("writing", Writing()), tokenizer, **how))
        return made[-1]

    yield make
    for generator in made:
        await generator.aclose()


@pytest.fixture
async def listening(server: Server) -> AsyncIterator[str]:
    """The URL of a socket at which ``server`` answers, a connection for many requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.decode().split(" ", 2)
                if length := re.search(rb"content-length: (\d+)", head.lower()):
                    await reader.readexactly(int(length[1]))
                body = (await server.handle(httpx2.Request(method, URL + path))).content
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        yield f"http://{host}:{port}"


def raises(error: Exception) -> Callable[[], Awaitable[None]]:
    async def answer() -> None:
        raise error

    return answer


async def never() -> None:
    await asyncio.sleep(3_600)


async def test_a_request_says_all_that_decides_the_text(connect: Connect, server: Server, tokenizer: Tokenizer) -> None:
    generator = connect(api_key="secret")
    written = await generator.write(PROMPT)
    assert (written.text, written.tokens, written.cut_off) == (TEXT, 12, False)
    models, detokenize, completions = server.requests
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}
    assert str(models.url) == URL + "/v1/models"
    assert json.loads(detokenize.content) == {"model": "llm", "tokens": tokenizer.encode_prompt(INSTRUCTION)}
    wanted = {"max_tokens": 64, "temperature": 0.05, "top_p": 0.95, "structured_outputs": {"regex": RESPONSE_REGEX}}
    plain = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    simple = {"min_tokens": 0, "n": 1, "stream": False}
    assert json.loads(completions.content) == {"model": "llm", "prompt": PROMPT, **wanted, **plain, **simple}


async def test_without_a_regex_none_is_asked_for_and_without_a_key_none_is_shown(
    connect: Connect, server: Server
) -> None:
    await connect(writing=Writing(regex=None)).write(PROMPT)
    assert "structured_outputs" not in json.loads(server.requests[-1].content)
    assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize("url", [URL, URL + "/", URL + "/v1", URL + "/v1/"])
async def test_the_url_may_name_the_api_or_its_server(connect: Connect, server: Server, url: str) -> None:
    await connect(url).write(PROMPT)
    assert [request.url.path for request in server.requests] == ["/v1/models", "/detokenize", "/v1/completions"]


async def test_the_model_is_looked_up_once_and_again_once_it_is_gone(
    connect: Connect, server: Server, clock: Clock
) -> None:
    generator = connect()
    for _ in range(3):
        await generator.write(PROMPT)
    assert server.asked("/v1/models") == 1
    server.answers["/v1/completions"] = httpx2.Response(404, json={"error": {"message": "no such model"}})
    with pytest.raises(LanguageModelUnavailable, match="404"):
        await generator.write(PROMPT)
    with pytest.raises(LanguageModelUnavailable, match="a moment ago"):
        await generator.write(PROMPT)
    server.answers |= {"/v1/completions": COMPLETION, "/v1/models": {"data": [{"id": "next"}]}}
    clock.now += PAUSE
    await generator.write(PROMPT)
    assert json.loads(server.requests[-1].content)["model"] == "next"


async def test_the_end_that_is_missing_is_told_without_the_first_bytes_of_a_character(
    connect: Connect, server: Server
) -> None:
    choice = {"text": "{<id>a1</id>,<title>Caf\N{REPLACEMENT CHARACTER}", "finish_reason": "length"}
    server.answers["/v1/completions"] = {**COMPLETION, "choices": [choice]}
    written = await connect().write(PROMPT)
    assert (written.text, written.cut_off) == ("{<id>a1</id>,<title>Caf", True)


def all_of(module: Any) -> Iterator[type[Exception]]:
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type) and issubclass(value, Exception):
            yield value


@pytest.mark.parametrize("kind", list(all_of(httpx2)), ids=lambda kind: kind.__name__)
async def test_whatever_httpx_raises_is_translated(connect: Connect, server: Server, kind: type[Exception]) -> None:
    assert issubclass(kind, HTTPX_ERRORS)
    error = kind.__new__(kind)
    Exception.__init__(error, "went wrong")
    server.answers["/v1/completions"] = raises(error)
    with pytest.raises(LanguageModelUnavailable):
        await connect().write(PROMPT)


async def test_the_list_above_holds_httpx_errors_at_all() -> None:
    assert {httpx2.ConnectError, httpx2.ReadTimeout, httpx2.InvalidURL, httpx2.StreamClosed} <= set(all_of(httpx2))


async def test_nobody_listens_there(connect: Connect, unused_tcp_port: int) -> None:
    generator = connect(f"http://127.0.0.1:{unused_tcp_port}", transport=None)
    with pytest.raises(LanguageModelUnavailable, match=r"cannot be reached .* does a vLLM run there"):
        await generator.ready()


@pytest.mark.parametrize("path", ["/v1/models", "/detokenize", "/v1/completions"])
@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(500, text="Internal Server Error"),
        httpx2.Response(503, json=COMPLETION),
        httpx2.Response(429),
        httpx2.Response(301, headers={"location": "http://elsewhere.test"}),
        httpx2.Response(200, content=b"\xff\x00 rubbish"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"data": [], "choices": [], "usage": {}}),
        httpx2.Response(
            200, json={"choices": [{"text": TEXT, "finish_reason": "abort"}], "usage": COMPLETION["usage"]}
        ),
        httpx2.Response(200, content=b" " * (MAX_ANSWER + 1)),
        httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"no gzip")),
    ],
    ids=["500", "503", "429", "redirect", "rubbish", "list", "nothing", "aborted", "endless", "encoding"],
)
async def test_answers_that_are_none(connect: Connect, server: Server, path: str, answer: httpx2.Response) -> None:
    server.answers[path] = answer
    with pytest.raises(LanguageModelUnavailable):
        await connect().write(PROMPT)


async def test_a_server_that_wants_a_key(connect: Connect, server: Server) -> None:
    server.answers["/v1/models"] = httpx2.Response(401, json={"error": "Unauthorized"})
    with pytest.raises(LanguageModelUnavailable, match="set MODISTE_LLM_API_KEY"):
        await connect().ready()


async def test_a_server_that_is_slow(connect: Connect, server: Server) -> None:
    server.answers["/v1/completions"] = never
    with pytest.raises(LanguageModelUnavailable, match=r"did not answer within 0\.05 s"):
        await connect(timeout=0.05).write(PROMPT)


async def test_a_server_of_another_model_is_refused(connect: Connect, server: Server) -> None:
    server.answers["/detokenize"] = {"prompt": "Ist das eine Jacke?"}
    generator = connect()
    for call in (generator.ready(), generator.write(PROMPT)):
        with pytest.raises(LanguageModelUnavailable, match=r"another model|a moment ago"):
            await call
    assert not server.asked()


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_that_cannot_say_what_it_reads_is_taken_at_its_word(
    connect: Connect, server: Server, status: int
) -> None:
    server.answers["/detokenize"] = httpx2.Response(status)
    assert (await connect().write(PROMPT)).text == TEXT


async def test_a_server_whose_context_is_short_is_refused(connect: Connect, server: Server) -> None:
    server.answers["/v1/models"] = {"data": [{"id": "llm", "max_model_len": 512}]}
    with pytest.raises(LanguageModelUnavailable, match="--max-model-len 1024"):
        await connect().ready()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_prompt_is_told_apart_and_shows_nothing_of_it(
    connect: Connect, server: Server, clock: Clock, status: int
) -> None:
    server.answers["/v1/completions"] = httpx2.Response(status, json={"error": {"message": "secret wish [5, 6, 7]"}})
    generator = connect()
    for _ in range(3):  # and nobody else is held back
        with pytest.raises(PromptRefused, match=f"a prompt of 3 tokens with {status}") as refusal:
            await generator.write(PROMPT)
        assert "secret" not in str(refusal.value)
    assert server.asked() == 3


async def test_while_it_does_not_answer_one_call_per_pause_tries(
    connect: Connect, server: Server, clock: Clock
) -> None:
    generator = connect()
    await generator.ready()
    server.answers["/v1/completions"] = httpx2.Response(500)
    for _ in range(10):
        with pytest.raises(LanguageModelUnavailable):
            await generator.write(PROMPT)
    assert server.asked() == 1
    clock.now += PAUSE
    with pytest.raises(LanguageModelUnavailable, match="500"):
        await generator.write(PROMPT)
    server.answers["/v1/completions"] = COMPLETION
    clock.now += PAUSE
    for _ in range(3):
        assert (await generator.write(PROMPT)).text == TEXT
    assert server.asked() == 5


async def test_no_more_than_allowed_write_at_once_and_who_waits_too_long_is_turned_away(
    connect: Connect, server: Server, clock: Clock
) -> None:
    at_once = most = 0
    full, release = asyncio.Event(), asyncio.Event()

    async def slowly() -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            full.set()
        await release.wait()
        at_once -= 1
        return COMPLETION

    server.answers["/v1/completions"] = slowly
    generator = connect(concurrency=3, timeout=30)
    await generator.ready()
    calls = [asyncio.create_task(generator.write(PROMPT)) for _ in range(9)]
    await full.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert server.asked() == 3
    release.set()
    await asyncio.gather(*calls)
    assert (most, server.asked()) == (3, 9)


async def test_who_waits_too_long_for_a_turn_does_not_count_against_the_server(
    connect: Connect, server: Server
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def waits() -> dict[str, Any]:
        asked.set()
        await answer.wait()
        return COMPLETION

    server.answers["/v1/completions"] = waits
    generator = connect(concurrency=1, timeout=0.2)
    await generator.ready()
    first = asyncio.create_task(generator.write(PROMPT))
    await asked.wait()
    generator._turns._patience = 0.01
    with pytest.raises(LanguageModelUnavailable, match=r"busy with others for 0\.01 s"):
        await generator.write(PROMPT)
    answer.set()
    assert (await first).text == TEXT
    assert (await generator.write(PROMPT)).text == TEXT


async def test_wherever_calls_are_cancelled_their_connections_can_be_used_again(
    connect: Connect, listening: str
) -> None:
    """httpx lost a connection of its pool where a call ended before it was opened, and waited for it ever after."""
    generator = connect(listening, transport=None, concurrency=2, timeout=5)
    await generator.ready()
    for steps in range(40):
        calls = [asyncio.create_task(generator.write(PROMPT)) for _ in range(6)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (await generator.write(PROMPT)).text == TEXT, f"after calls that were cancelled at step {steps}"
