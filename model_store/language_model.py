"""Running a bundle's embedded language model by onnxruntime-genai: token ids in, text out, no torch.

The prompt is read in chunks that begin at multiples of ``CHUNK`` tokens, whatever was read before. What the prompt
shares with the one before it, in whole chunks, is not read again: the instruction is the same for every prompt, and one
customer's session grows at its end. As each chunk is computed in the same shape either way, the text at temperature 0
depends on the prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import orjson
from pydantic import BaseModel, Field, ValidationError

from model_store.errors import InvalidBundle, InvalidConfig, ModisteError
from model_store.prompts import RESPONSE_REGEX
from model_store.tokens import Tokenizer

CHUNK = 64
"""Tokens of a prompt that are read at once; in between, ``stopped`` is asked, and other threads get their turn."""
_LEAST_ROOM = 1024  # tokens that memory is set aside for: the longest prompt of the paper, with its response
_CONFIG = "genai_config.json"
_PARTIAL = "\N{REPLACEMENT CHARACTER}"  # how bytes of an unfinished character are decoded


class CannotWrite(ModisteError):
    """A prompt that this language model cannot take: too long for it, or in tokens that it does not have."""


@dataclass(frozen=True)
class Written:
    """What a language model wrote: its ``text``; of how many ``tokens``, the closing one included.

    ``cut_off``: the limit of tokens came before the end. The first bytes of an unfinished character are left out.
    """

    text: str
    tokens: int
    cut_off: bool


class Sampling(NamedTuple):
    """How the next token is chosen. ``temperature`` 0: always the likeliest. ``regex``: what the text must match."""

    temperature: float
    top_p: float
    regex: str | None


class _Decoder(BaseModel):
    context_length: Annotated[int, Field(ge=1)]
    vocab_size: Annotated[int, Field(ge=1)]


class _GenaiConfig(BaseModel):
    """What is read of the directory's ``genai_config.json``."""

    model: _Decoder


@dataclass
class _Kept:
    """A generator with what it has read: ``tokens``, all of one prompt or fewer, and its ``room`` in tokens."""

    generator: Any
    sampling: Sampling
    room: int
    tokens: list[int]


class EmbeddedLanguageModel:
    """The language model in ``folder`` (a bundle's ``llm_embedded``), one generation at a time, on ``threads`` threads.

    ``tokenizer`` is that of the same model's Hugging Face directory. Not for several threads at once; Python's lock is
    held while a chunk of a prompt or one token is computed, so where nothing may wait, run it in a process of its own.

    Raises InvalidBundle with the folder and the reason, and InvalidConfig where onnxruntime-genai is not installed.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, threads: int = 1):
        self._folder, self._tokenizer = folder, tokenizer
        self._genai = _library()
        decoder = _read_config(folder).model
        self.context_length, self._vocabulary = decoder.context_length, decoder.vocab_size
        self._model = self._open(threads)
        self._kept: _Kept | None = None
        self._begin(Sampling(0.0, 1.0, RESPONSE_REGEX), 1, None)  # a tokenizer that guidance cannot read shows here

    def write(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        regex: str | None = RESPONSE_REGEX,
        seed: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Written:
        """The response to a prompt's token ids; where ``stopped`` says so, what there is of it by then.

        At temperature 0 it depends on the prompt alone, above it on ``seed`` too, or on chance where that is None.
        Raises CannotWrite where the model cannot take the prompt, and InvalidBundle where it cannot compute.
        """
        self._check(prompt, max_new_tokens)
        kept, self._kept = self._begin(Sampling(temperature, top_p, regex), len(prompt) + max_new_tokens, seed), None
        try:
            read = self._read(kept, prompt, stopped)
            ids, ended = self._generate(kept.generator, len(prompt), max_new_tokens, stopped) if read else ([], False)
        except RuntimeError as error:  # all that onnxruntime-genai raises
            raise InvalidBundle(f"{self._folder}: cannot compute ({error})") from error
        if seed is None:
            self._kept = kept
        return self._decode(ids, ended)

    def _check(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        if not prompt or max_new_tokens < 1:
            raise CannotWrite("a prompt needs at least one token, and so does the response")
        if len(prompt) + max_new_tokens > self.context_length:
            raise CannotWrite(
                f"the prompt's {len(prompt)} tokens and {max_new_tokens} of the response are more than the "
                f"{self.context_length} that the language model takes"
            )
        if min(prompt) < 0 or max(prompt) >= self._vocabulary:
            raise CannotWrite(f"the prompt has tokens outside of the language model's {self._vocabulary}")

    def _open(self, threads: int) -> Any:
        options = {
            "intra_op_num_threads": threads,
            "inter_op_num_threads": 1,
            "session.intra_op.allow_spinning": "0",  # else idle threads take the cores from everybody else
        }
        try:
            config = self._genai.Config(str(self._folder))
            config.overlay(orjson.dumps({"model": {"decoder": {"session_options": options}}}).decode())
            return self._genai.Model(config)
        except RuntimeError as error:
            raise InvalidBundle(f"{self._folder}: is no language model for onnxruntime-genai ({error})") from error

    def _begin(self, sampling: Sampling, needed: int, seed: int | None) -> _Kept:
        """A generator with room for ``needed`` tokens: the last one, where it chooses its tokens alike."""
        kept = self._kept
        if kept is not None and seed is None and kept.sampling == sampling and kept.room >= needed:
            return kept
        room = min(self.context_length, max(_LEAST_ROOM, 1 << (needed - 1).bit_length()))
        try:
            parameters = self._genai.GeneratorParams(self._model)
            parameters.set_search_options(**_search_options(sampling, room, seed))
            if sampling.regex is not None:
                parameters.set_guidance("regex", sampling.regex)
            return _Kept(self._genai.Generator(self._model, parameters), sampling, room, [])
        except RuntimeError as error:
            raise InvalidBundle(f"{self._folder}: cannot begin to write ({error})") from error

    def _read(self, kept: _Kept, prompt: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Read the prompt but for what it shares with the one before; False where it was stopped."""
        start = _shared(kept.tokens, prompt)
        if kept.tokens:
            kept.generator.rewind_to(start)
        kept.tokens = list(prompt[:start])
        for place in range(start, len(prompt), CHUNK):
            if stopped():
                return False
            chunk = prompt[place : place + CHUNK]
            kept.generator.append_tokens(np.array(chunk, np.int32))
            kept.tokens.extend(chunk)
        return True

    def _generate(self, generator: Any, start: int, most: int, stopped: Callable[[], bool]) -> tuple[list[int], bool]:
        """(Ids behind the first ``start``, whether the model came to its end, which is not among them)."""
        while not generator.is_done() and generator.token_count() - start < most and not stopped():
            generator.generate_next_token()
        ids = [int(each) for each in generator.get_sequence(0)[start:]]
        return ids, bool(generator.is_done()) and len(ids) < most

    def _decode(self, ids: list[int], ended: bool) -> Written:
        text = self._tokenizer.decode(ids)
        return Written(text if ended else text.rstrip(_PARTIAL), len(ids) + ended, cut_off=not ended)


def _library() -> Any:
    try:
        import onnxruntime_genai  # noqa: PLC0415 - takes 100 MB and half a second, and only who writes needs it
    except ImportError as error:
        raise InvalidConfig(
            f"onnxruntime-genai cannot be loaded ({error}): install the extra 'cpu' or 'gpu', or set MODISTE_LLM_URL"
        ) from None
    onnxruntime_genai.disable_telemetry_events()  # nothing of a shop or its customers leaves the machine
    return onnxruntime_genai


def _read_config(folder: Path) -> _GenaiConfig:
    path = folder / _CONFIG
    try:
        return _GenaiConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidBundle(f"{path}: cannot be read ({error})") from None


def _search_options(sampling: Sampling, room: int, seed: int | None) -> dict[str, Any]:
    """All of them: what is left out comes from the model's ``generation_config``, which can strangle guidance."""
    options: dict[str, Any] = {
        "max_length": room,
        "min_length": 0,
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature or 1.0,
        "top_p": sampling.top_p,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
    }
    if sampling.temperature == 0:
        options |= {"top_p": 1.0, "top_k": 1}
    return options if seed is None else {**options, "random_seed": seed}


def _shared(before: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens that both begin with, in whole chunks, at least the last token of ``prompt`` not among them."""
    shared, most = 0, min(len(before), len(prompt) - 1)
    while shared < most and before[shared] == prompt[shared]:
        shared += 1
    return shared - shared % CHUNK
