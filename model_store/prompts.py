"""The language model's prompt and the text that it answers, written once for training and serving (Amazon 2024, §4.2).

A prompt is the paper's Figure 3: the fixed instruction with its three parts (task description, execution requirement,
format indicator), the session with every article's attributes, the candidate ids, and the place of the response. The
instruction comes first and never changes, so that a server's prefix cache hits.

Whatever a shop or a customer wrote is neutralised before it enters: it can neither close a tag, a quote or a JSON
object, nor begin a section, nor form a model's special token. It may still *say* anything; therefore what a model
answers is never trusted: it is parsed, and its id is looked up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import ModisteError
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

RESPONSE_REGEX = (
    r"\{<id>[A-Za-z0-9._~%-]{1,48}</id>,<title>[^<>{}\[\]\"\\#|\x00-\x20][^<>{}\[\]\"\\#|\x00-\x1f]{0,119}</title>\}"
)
"""What a response must match, for structured output: with it, no generation is unparseable."""

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
    """Writes prompts that fit ``spec`` as ``tokenizer`` counts."""

    def __init__(self, spec: PromptSpec, tokenizer: Tokenizer):
        self._spec, self._tokenizer = spec, tokenizer
        self._room = spec.max_tokens - spec.response_tokens
        if len(tokenizer.encode_prompt(prompt_text((), (), spec))) > self._room:
            raise PromptTooLong(f"the instruction alone takes more than {self._room} tokens: raise max_tokens")

    def write(self, actions: Sequence[Action], candidates: Sequence[str]) -> Prompt:
        """The prompt of a session, oldest action first, and of candidate article ids, best first.

        What does not fit is left out: the oldest actions first, then the last candidates.
        """
        actions = list(actions)[-self._spec.actions :]
        candidates = [article_id for article_id in candidates if can_be_written(article_id)]
        kept = actions[_smallest(len(actions), lambda left_out: self._fits(actions[left_out:], candidates)) :]
        if not kept:
            most = len(candidates)
            candidates = candidates[: most - _smallest(most, lambda cut: self._fits((), candidates[: most - cut]))]
        text = prompt_text(kept, candidates, self._spec)
        return Prompt(text, tuple(self._tokenizer.encode_prompt(text)), len(kept))

    def response_ids(self, article: Article) -> list[int]:
        """Token ids of the response that names ``article``, its end included, at most ``response_tokens``."""
        ids = self._tokenizer.encode(response_text(article))
        return [*ids[: self._spec.response_tokens - 1], self._tokenizer.end]

    def _fits(self, actions: Sequence[Action], candidates: Sequence[str]) -> bool:
        return len(self._tokenizer.encode_prompt(prompt_text(actions, candidates, self._spec))) <= self._room


def prompt_text(actions: Sequence[Action], candidates: Sequence[str], spec: PromptSpec) -> str:
    """A whole prompt, up to the place where the response begins."""
    session = ", then ".join(_action_text(action, spec) for action in actions)
    ids = ",".join(map(written_id, candidates))
    return f"{INSTRUCTION}User {session or 'did nothing yet'}. Candidate product ids:[{ids}].{RESPONSE_HEAD}"


def response_text(article: Article) -> str:
    """The response that names ``article``: ``{<id>…</id>,<title>…</title>}``."""
    return f"{{<id>{written_id(article.article_id)}</id>,<title>{written_title(article)}</title>}}"


def parse_response(text: str, *, cut_off: bool = False) -> Generated:
    """The id and title in a response. ``cut_off``: it ended at the limit of tokens, so its title may lack its end.

    Raises UnparseableGeneration.
    """
    text = text.strip()
    match = _RESPONSE.fullmatch(text) or (_CUT_RESPONSE.fullmatch(text) if cut_off else None)
    title = neutralise(match[2], MAX_TITLE) if match else ""
    if not match or not title:
        raise UnparseableGeneration(f"expected {{<id>…</id>,<title>…</title>}}, got {text[:80]!r}")
    return Generated(unquote(match[1], errors="replace"), title)


def article_text(article: Article, attributes: Sequence[Attribute] = ATTRIBUTES) -> str:
    """An article as prompts show it: one line of JSON with id, title and ``attributes``; what is unknown is empty."""
    values = [("id", written_id(article.article_id)), ("title", written_title(article))]
    values += [(name, neutralise(getattr(article, _FIELDS.get(name, name)) or "")) for name in attributes]
    return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values) + "}"


def written_id(article_id: str) -> str:
    """An article id in the characters that a response may hold; ``unquote`` gives it back."""
    return quote(article_id, safe="")


def can_be_written(article_id: str) -> bool:
    """Whether a response can name the article: its written id has at most 48 characters."""
    return _PLAIN_ID.fullmatch(written_id(article_id)) is not None


def written_title(article: Article) -> str:
    """An article's title as prompts and responses hold it; never empty."""
    return neutralise(article.title, MAX_TITLE) or neutralise(article.category, MAX_TITLE) or "untitled"


def neutralise(text: str, most: int = MAX_ATTRIBUTE) -> str:
    """Text that stays inside the place it is put into, at most ``most`` characters of it.

    NFKC; no control, format or unassigned characters; brackets, quotes, ``#``, ``|`` and backslashes become harmless
    look-alikes; runs of white space become one space. Other scripts stay as they are. Idempotent.
    """
    while True:
        clean = unicodedata.normalize("NFKC", text).translate(_REPLACED)
        clean = "".join(" " if character.isspace() else character for character in clean if _printable(character))
        clean = " ".join(clean.split())[:most].strip()
        if clean == text:
            return clean
        text = clean


def _printable(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] != "C"


def _smallest(most: int, is_enough: Callable[[int], bool]) -> int:
    """The smallest number in 0 … ``most`` that is enough, where all larger ones are too; ``most`` where none is."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _action_text(action: Action, spec: PromptSpec) -> str:
    if action.kind is EventType.SEARCH:
        return _ACTIONS[action.kind].format(neutralise(action.query or "", MAX_QUERY))
    assert action.article is not None
    return _ACTIONS[action.kind].format(article_text(action.article, spec.attributes))
