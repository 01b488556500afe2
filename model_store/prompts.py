"""The language model's prompt and the text that it answers, written once for training and serving (Amazon 2024, §4.2).

A prompt is the paper's Figure 3: the fixed instruction with its three parts (task description, execution requirement,
format indicator), the session with every article's attributes, the candidate ids, and the place of the response. The
instruction comes first and never changes, so that a server's prefix cache hits.

Whatever a shop or a customer wrote is neutralised before it enters: it can neither close a tag, a quote or a JSON
object, nor begin a section; and as ``model_store.tokens`` reads no special token out of text, it cannot form one. It
may still *say* anything; therefore what a model answers is never trusted: it is parsed, and its id is looked up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import InvalidRecord, ModisteError
from model_store.records import Article, EventType
from model_store.tokens import Tokenizer

MAX_ID, MAX_TITLE, MAX_QUERY, MAX_ATTRIBUTE = 48, 120, 120, 60  # characters, after neutralising

TASK_DESCRIPTION = (
    "Given the sequence of user interactions and product attributes, recommend a product that the user is most likely "
    "to purchase."
)
EXECUTION_REQUIREMENT = (
    "Take into account the sequential order of the actions, as they reflect the user's shopping mission. Focus "
    "particularly on product attributes such as color and size, season, occasion, and holiday, as these significantly "
    "influence user decisions. Prioritize recommendations from the candidate product ids provided in the input."
)
FORMAT_INDICATOR = (
    "Directly predict the product id and product title as output. The output must strictly follow "
    "{<id>id</id>,<title>title</title>} format."
)
INSTRUCTION = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n"
    f"### Instruction: {TASK_DESCRIPTION} {EXECUTION_REQUIREMENT} {FORMAT_INDICATOR}\n"
    "### Input: "
)
RESPONSE_HEAD = "\n### Response: "
_THEN, _UNTITLED = ", then ", "untitled"

RESPONSE_REGEX = (
    r"\{<id>[A-Za-z0-9._~%-]{1,48}</id>,<title>[^<>{}\[\]\"\\#|\x00-\x20][^<>{}\[\]\"\\#|\x00-\x1f]{0,119}</title>\}"
)
"""What a response must match, for structured output: with it, no generation is unparseable.

Plain classes and counts only, no look-around and no back reference, which grammar engines do not take.
"""

Attribute = Literal["category", "brand", "color", "size", "season", "holiday", "occasion"]
ATTRIBUTES: tuple[Attribute, ...] = ("category", "brand", "color", "size", "season", "holiday", "occasion")
_FIELDS = {"color": "colour"}  # the prompt's word for an article's field, where they differ
_ACTIONS = {
    EventType.SEARCH: "search keyword <{}>",
    EventType.CLICK: "click product {}",
    EventType.PURCHASE: "purchase product {}",
}
_REPLACED = str.maketrans({"<": "(", ">": ")", "{": "(", "}": ")", "[": "(", "]": ")", '"': "'", "\\": "/", "|": "/",
                           "#": " ", "`": "'"})  # fmt: skip
_PLAIN_ID = re.compile(r"[A-Za-z0-9._~%-]{1,48}")
_RESPONSE = re.compile(r"\{<id>([A-Za-z0-9._~%-]{1,48})</id>,<title>([^<>{}]+)</title>\}")
_CUT_RESPONSE = re.compile(
    r"\{<id>([A-Za-z0-9._~%-]{1,48})</id>,<title>([^<>{}]+)(?:<(?:/(?:t(?:i(?:t(?:l(?:e>?)?)?)?)?)?)?)?"
)


class UnparseableGeneration(ModisteError):
    """What a language model wrote is not ``{<id>…</id>,<title>…</title>}``."""


class PromptTooLong(ModisteError):
    """Not even the instruction fits into the tokens that a prompt may have."""


class PromptSpec(BaseModel):
    """How prompts of one bundle are written. ``max_tokens`` counts prompt and response, as in the paper's §5.1.

    ``actions``: of a session, the latest that many at most. ``attributes``: of an article, besides id and title.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    max_tokens: Annotated[int, Field(ge=128, le=32_768)] = 1024
    response_tokens: Annotated[int, Field(ge=16, le=512)] = 64
    actions: Annotated[int, Field(ge=1, le=200)] = 50
    attributes: tuple[Attribute, ...] = ATTRIBUTES


@dataclass(frozen=True)
class Action:
    """One step of a session: a search with its ``query``, or a click or purchase of an ``article``."""

    kind: EventType
    query: str | None = None
    article: Article | None = None


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as token ids (with the model's own tokens in front); ``actions``: how many it holds."""

    text: str
    token_ids: tuple[int, ...]
    actions: int


@dataclass(frozen=True)
class Generated:
    """What a language model wrote: an article id, which may be of no article at all, and a title."""

    article_id: str
    title: str


class PromptWriter:
    """Writes prompts that fit ``spec`` as ``tokenizer`` counts.

    Raises PromptTooLong where the instruction alone does not fit.
    """

    def __init__(self, spec: PromptSpec, tokenizer: Tokenizer):
        self._spec, self._tokenizer = spec, tokenizer
        self._room = spec.max_tokens - spec.response_tokens
        self._frame = len(tokenizer.encode_prompt(_assemble((), ())))
        if self._frame > self._room:
            raise PromptTooLong(f"the instruction alone takes more than {self._room} tokens: raise max_tokens")
        # Articles come again in many sessions. What is kept are counts, of as many texts as a large catalogue has.
        self._count = lru_cache(maxsize=1 << 17)(lambda text: len(tokenizer.encode(text)))

    def write(self, actions: Sequence[Action], candidates: Sequence[str]) -> Prompt:
        """The prompt of a session, oldest action first, and of candidate article ids, best first.

        What does not fit is left out: the oldest actions first, then the last candidates, and the latest action only
        where it does not fit by itself. Candidates that no response could name are never shown.
        """
        steps = [_action_text(action, self._spec) for action in actions[-self._spec.actions :]]
        ids = [written_id(article_id) for article_id in candidates if can_be_written(article_id)]
        left_out = _smallest(len(steps), lambda number: self._fits(steps[number:], ids), self._guess(steps, ids))
        kept = steps[left_out:]
        if not kept:
            kept = steps[-1:] if self._fits(steps[-1:], ()) else []
            ids = ids[: len(ids) - _smallest(len(ids), lambda number: self._fits(kept, ids[: len(ids) - number]), 0)]
        text = _assemble(kept, ids)
        return Prompt(text, tuple(self._tokenizer.encode_prompt(text)), len(kept))

    def response_ids(self, article: Article) -> list[int]:
        """Token ids of the response that names ``article``, and of its end, cut off after ``response_tokens``.

        One that is cut off has no end, so that a model never learns to end within a title.
        """
        ids = [*self._tokenizer.encode(response_text(article)), self._tokenizer.end]
        return ids[: self._spec.response_tokens]

    def _fits(self, steps: Sequence[str], ids: Sequence[str]) -> bool:
        return len(self._tokenizer.encode_prompt(_assemble(steps, ids))) <= self._room

    def _guess(self, steps: Sequence[str], ids: Sequence[str]) -> int:
        """About how many of the oldest steps must be left out, by the tokens that each part takes alone."""
        room = self._room - self._frame - sum(self._count(article_id + ",") for article_id in ids)
        sizes = accumulate(self._count(step + _THEN) for step in reversed(steps))
        return len(steps) - sum(size <= room for size in sizes)


def prompt_text(actions: Sequence[Action], candidates: Sequence[str], spec: PromptSpec) -> str:
    """A whole prompt, up to the place where the response begins."""
    return _assemble([_action_text(action, spec) for action in actions], [written_id(each) for each in candidates])


def response_text(article: Article) -> str:
    """The response that names ``article``: ``{<id>…</id>,<title>…</title>}``.

    Raises InvalidRecord where none can (``can_be_written``).
    """
    if not can_be_written(article.article_id):
        raise InvalidRecord(
            f"'{article.article_id}' takes more than {MAX_ID} characters once percent-encoded, so no response names it",
            field="article_id",
        )
    return generated_text(article.article_id, written_title(article))


def generated_text(article_id: str, title: str) -> str:
    """What says id and title in the one form that is parsed: ``{<id>…</id>,<title>…</title>}``."""
    return f"{{<id>{written_id(article_id)}</id>,<title>{title}</title>}}"


def parse_response(text: str, *, cut_off: bool = False) -> Generated:
    """The id and title in a response. ``cut_off``: it ended at the limit of tokens, so its title may lack its end.

    The id is as the model wrote it and may be of no article; the title is neutralised and, where nothing legible is
    left of it, "untitled". So all that matches ``RESPONSE_REGEX`` is parsed. Raises UnparseableGeneration.
    """
    text = text.strip()
    match = _RESPONSE.fullmatch(text)
    if match is None and cut_off:
        match = _CUT_RESPONSE.fullmatch(text.rstrip("\N{REPLACEMENT CHARACTER}"))  # the first bytes of a character
    if match is None:
        raise UnparseableGeneration(f"expected {{<id>…</id>,<title>…</title>}}, got {text[:80]!r}")
    return Generated(unquote(match[1], errors="replace"), neutralise(match[2], MAX_TITLE) or _UNTITLED)


def article_text(article: Article, attributes: Sequence[Attribute] = ATTRIBUTES) -> str:
    """An article as prompts show it: one line of JSON with id, title and ``attributes``.

    What is unknown is empty, and so is an id that no response could name.
    """
    article_id = written_id(article.article_id) if can_be_written(article.article_id) else ""
    values = [("id", article_id), ("title", written_title(article))]
    values += [(name, attribute_value(article, name)) for name in attributes]
    return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values) + "}"


def attribute_value(article: Article, name: Attribute) -> str:
    """What is known of an article by the prompt's word for it, neutralised; empty where nothing is."""
    return neutralise(getattr(article, _FIELDS.get(name, name)) or "")


def written_id(article_id: str) -> str:
    """An article id in the characters that a response may hold; ``unquote`` gives it back."""
    return quote(article_id, safe="")


def can_be_written(article_id: str) -> bool:
    """Whether a response can name the article: its written id has at most 48 characters."""
    return _PLAIN_ID.fullmatch(written_id(article_id)) is not None


def written_title(article: Article) -> str:
    """An article's title as prompts and responses hold it; never empty."""
    return neutralise(article.title, MAX_TITLE) or neutralise(article.category, MAX_TITLE) or _UNTITLED


def neutralise(text: str, most: int = MAX_ATTRIBUTE) -> str:
    """Text that stays inside the place it is put into, at most ``most`` characters of it.

    NFKC; no control, format or unassigned characters (nor joiners and marks of direction); brackets, quotes, ``#``,
    ``|`` and backslashes become harmless look-alikes; runs of white space become one space. Other scripts stay as they
    are. Idempotent.
    """
    if text.isascii() and text.isprintable():  # by far the commonest: none of the steps below can bring up another
        return _shorten(text.translate(_REPLACED), most)
    while True:
        clean = unicodedata.normalize("NFKC", text).translate(_REPLACED)
        clean = _shorten("".join(character for character in clean if _printable(character)), most)
        if clean == text:
            return clean
        text = clean


def _printable(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] != "C"


def _shorten(text: str, most: int) -> str:
    return " ".join(text.split())[:most].strip()


def _smallest(most: int, is_enough: Callable[[int], bool], guess: int) -> int:
    """The smallest number in 0 … ``most`` that is enough, ``most`` where none is; quick where ``guess`` is near it."""
    while guess < most and not is_enough(guess):
        guess += 1
    while guess > 0 and is_enough(guess - 1):
        guess -= 1
    return guess


def _assemble(steps: Sequence[str], ids: Sequence[str]) -> str:
    session = _THEN.join(steps) or "did nothing yet"
    return f"{INSTRUCTION}User {session}. Candidate product ids:[{','.join(ids)}].{RESPONSE_HEAD}"


def _action_text(action: Action, spec: PromptSpec) -> str:
    if action.kind is EventType.SEARCH:
        return _ACTIONS[action.kind].format(neutralise(action.query or "", MAX_QUERY))
    assert action.article is not None
    return _ACTIONS[action.kind].format(article_text(action.article, spec.attributes))
