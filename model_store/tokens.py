"""Text to token ids and back, by the ``tokenizer.json`` that a model was trained with: one tokenizer for both rooms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from tokenizers import Tokenizer as _Tokenizer

from model_store.errors import InvalidBundle

TOKENIZER = "tokenizer.json"


class Tokenizer:
    """The tokenizer of a language model's Hugging Face directory (``config.json`` and ``tokenizer.json``)."""

    def __init__(self, tokenizer: _Tokenizer, end: int):
        self._tokenizer, self.end = tokenizer, end  # end: id of the token that closes a text

    @classmethod
    def of_model(cls, folder: Path) -> Tokenizer:
        """The tokenizer in ``folder``. Raises InvalidBundle with the file and the reason."""
        try:
            end = orjson.loads((folder / "config.json").read_bytes()).get("eos_token_id")
        except (OSError, orjson.JSONDecodeError) as error:
            raise InvalidBundle(f"{folder / 'config.json'}: cannot be read ({error})") from None
        if isinstance(end, list):
            end = end[0] if end else None
        if not isinstance(end, int):
            raise InvalidBundle(f"{folder / 'config.json'}: eos_token_id is missing; generation would not know its end")
        return cls(read_tokenizer(folder / TOKENIZER), end)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, with what the model expects in front of a text, and without an end."""
        ids: list[int] = self._tokenizer.encode(text).ids
        while ids and ids[-1] == self.end:
            ids.pop()
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, nothing added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def read_tokenizer(path: Path) -> _Tokenizer:
    """A ``tokenizer.json``, less the padding and truncation that it may have been saved with. Raises InvalidBundle."""
    try:
        tokenizer = _Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise InvalidBundle(f"{path}: is not a tokenizer ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
