"""Text to token ids and back, by the ``tokenizer.json`` that a model was trained with: one tokenizer for both rooms.

Text never becomes a special token: what reads ``</s>`` or ``<|im_end|>`` is encoded letter by letter, like any other
text. Only ``Tokenizer`` itself puts special tokens in front of a prompt and behind a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from tokenizers import Tokenizer as _Tokenizer

from model_store.errors import InvalidBundle

TOKENIZER = "tokenizer.json"
_CONFIG = "config.json"
_BEFORE = "\n"
_TokenId = Annotated[int, Field(ge=0, lt=1 << 32)]


class _ModelConfig(BaseModel):
    """What is read of a language model's ``config.json``."""

    eos_token_id: _TokenId | list[_TokenId] | None = None


class Tokenizer:
    """The tokenizer of a language model's Hugging Face directory (``config.json`` and ``tokenizer.json``)."""

    def __init__(self, tokenizer: _Tokenizer, end: int):
        self._tokenizer, self.end = _plain(tokenizer), end  # end: id of the token that closes a text
        self._front = _front(self._tokenizer)
        self._before = self._ids(_BEFORE)

    @classmethod
    def of_model(cls, folder: Path) -> Tokenizer:
        """The tokenizer in ``folder``. Raises InvalidBundle with the file and the reason."""
        path = folder / _CONFIG
        try:
            end = _ModelConfig.model_validate_json(path.read_bytes(), strict=True).eos_token_id
        except (OSError, ValidationError) as error:
            raise InvalidBundle(f"{path}: cannot be read ({error})") from None
        if isinstance(end, list):
            end = end[0] if end else None
        if end is None:
            raise InvalidBundle(f"{path}: eos_token_id is missing; generation would not know its end")
        tokenizer = read_tokenizer(folder / TOKENIZER)
        if tokenizer.id_to_token(end) is None:
            raise InvalidBundle(f"{path}: eos_token_id {end} is no token of {TOKENIZER}")
        return cls(tokenizer, end)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, with what the model expects in front of a text, and without an end."""
        return [*self._front, *self._ids(text)]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that goes on after another, nothing added.

        Some tokenizers put a space in front of whatever they are given; a response that began with one would be other
        than what structured output makes the model write. So the text is encoded behind a line break, which is then
        taken away.
        """
        ids, before = self._ids(_BEFORE + text), len(self._before)
        return ids[before:] if ids[:before] == self._before else self._ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def read_tokenizer(path: Path) -> _Tokenizer:
    """A ``tokenizer.json``, less the padding and truncation that it may have been saved with. Raises InvalidBundle."""
    try:
        tokenizer = _Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise InvalidBundle(f"{path}: is not a tokenizer ({error})") from None
    return _plain(tokenizer)


def _plain(tokenizer: _Tokenizer) -> _Tokenizer:
    """Whole texts as they are: not padded, not cut, and with special tokens read as text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _front(tokenizer: _Tokenizer) -> list[int]:
    """Ids of the special tokens that the tokenizer puts in front of a text."""
    encoding = tokenizer.encode("a")
    added = encoding.special_tokens_mask
    return list(encoding.ids[: added.index(0)]) if 0 in added else []
