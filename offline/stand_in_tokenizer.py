"""The stand-in's tokenizer: byte-level BPE that knows how prompts are built, so that they are few tokens.

Any text comes back from its tokens as it was (nothing is normalised, every byte is a token). What is special to it:

- The fixed instruction is one token. No text of a shop or a customer can be taken for it: it holds ``#``.
- A prompt is cut where its parts meet: what frames ids, titles and queries is one token each time, and so can be an
  attribute's key and value. Titles and queries are cut into words, so that a word is the same token wherever it stands.
- An article id is one token where the shop has at most ``MOST_WHOLE_IDS`` articles, else as few pieces as its digits
  allow. The id of a new article is always spelled in pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model_store.prompts import ATTRIBUTES, INSTRUCTION, RESPONSE_HEAD, can_be_written, written_id

END = "<|end|>"
"""The token that closes a text, and fills what is padded. No neutralised text can hold it."""
END_ID = 0
MOST_WHOLE_IDS = 20_000

_STEPS = ("search keyword <", 'click product {"id": "', 'purchase product {"id": "')
_ENDS = ('"}', ">", "did nothing yet")
_FRAME = (
    *(f"{end}{step}" for end in ("", '"}, then ', ">, then ") for step in _STEPS),
    *(f"{end}. Candidate product ids:[" for end in _ENDS),
    f"].{RESPONSE_HEAD}",
    '", "title": "',
    "{<id>",
    "</id>,<title>",
    "</title>}",
    *_ENDS[:2],
    ",",
)
"""What a prompt has around its data, in parts; each is one token."""

_VALUES = rf'(?:", "(?:{"|".join(ATTRIBUTES)})": ")+[^"]*'  # the keys of unknown attributes go with the next known one
_WORD = r" ?[^\s,<>\[\]\{\}\"]+"
_CUT = "|".join([*(re.escape(part) for part in sorted(_FRAME, key=len, reverse=True)), _VALUES, _WORD])


def train_tokenizer(texts: Iterable[str], article_ids: Sequence[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of about ``vocabulary`` tokens learned from ``texts``, and one more for each of a few ids."""
    ids = sorted({written_id(name) for name in article_ids if can_be_written(name)})
    whole = [*_FRAME, *(ids if len(ids) <= MOST_WHOLE_IDS else [])]
    vocab, merges = _learn(texts, set(whole), vocabulary)
    for part in whole:
        vocab.setdefault(_bytes().pre_tokenize_str(part)[0][0], len(vocab))
    # ignore_merges: a part that is a token as a whole is taken as it is, though no merges lead to it.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_cut(), _bytes()])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(f"{INSTRUCTION}User ", special=False, normalized=False)])
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, tokens: int) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``, by the class name that older versions of vLLM know as well."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _learn(texts: Iterable[str], whole: set[str], vocabulary: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of byte-level BPE over the parts of ``texts`` that are not ``whole`` anyway."""
    cut = _cut()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _bytes()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    parts = (part for text in texts for part, _ in cut.pre_tokenize_str(text) if part not in whole)
    tokenizer.train_from_iterator(parts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _cut() -> Any:
    return pre_tokenizers.Split(Regex(_CUT), "isolated")


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
