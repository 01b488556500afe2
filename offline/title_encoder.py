"""Training the title encoder, and reading embeddings from it (Amazon 2024, §4.4).

The rules, each held by a test:

- A positive pair is a query and the title of an article bought from it (``offline.search_pairs``).
- Each pair has two hard negatives: of the titles in its batch that were never bought from its query the one closest to
  the query, and of the batch's queries from which its title was never bought the one closest to the title. The paper
  does not say where it looks for them; in a batch of some hundred pairs they are hard enough, and what the encoder of
  the moment finds closest needs no index that would have to be kept up to date. Processes that train together mine
  each in its own part of a batch.
- Equal texts are one text: articles of equal title are no negatives of each other.
- The tokenizer is byte-level BPE, learned from all titles and the queries of training: every script can be read, and
  no text is unknown. Token 0 is padding, and stands for a text of which nothing is left.

Texts are cut into tokens by ``model_store.generation.text_tokens``, which serving calls as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.generation import TEXT_SIZE, pad_tokens, plain_text, text_tokens
from offline.config import TitleEncoderConfig
from offline.models.title_encoder import TitleEncoderNetwork, triplet_loss
from offline.progress import Progress, Silent
from offline.search_pairs import Pairs, find_pairs
from offline.training import Curve, Rows, derive, fit, seed_torch, shuffled_batches
from offline.world import World

Network = TypeVar("Network", bound=nn.Module)
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_PADDING = "[PAD]"
_HELD_OUT, _CANDIDATES = 5_000, 20_000  # pairs that validation ranks, and titles that it ranks among
_ENCODE_BATCH = 512
_FALLEN = 1.9  # margins of loss; 2 are lost where all texts lie in one place


class TorchEncoder(Generic[Network]):
    """Texts → embeddings in torch: ``tokenizer`` as ``tokenizer.json`` has it, ``network`` as ONNX graphs take it."""

    def __init__(self, tokenizer: str, network: Network):
        self.tokenizer, self.network = tokenizer, network
        self._reader = read_tokenizer_text(tokenizer)

    def encode(self, texts: Sequence[str]) -> Float32:
        """float32 (B, 128), each of length 1."""
        return encode_tokens(self.network, [text_tokens(self._reader, text) for text in texts])


class TitleEncoder(TorchEncoder[TitleEncoderNetwork]):
    """``curve`` tells how it was trained; the score is the mean reciprocal rank of what held-out queries led to."""

    def __init__(self, tokenizer: str, network: TitleEncoderNetwork, curve: Curve):
        super().__init__(tokenizer, network)
        self.curve = curve


def encode_titles(encoder: TorchEncoder[Network], data: DataSet) -> Float32:
    """Embeddings of all articles' titles, float32 (N, 128), in table order; equal titles are computed once."""
    titles, title_of = catalogue_titles(data)
    return np.ascontiguousarray(encoder.encode(titles)[title_of])


def catalogue_titles(data: DataSet) -> tuple[list[str], Int64]:
    """Titles of different plain text, and which of them is each article's: int64 (N)."""
    numbers: dict[str, int] = {}
    titles: list[str] = []
    title_of = np.empty(len(data.article_ids), np.int64)
    for row, article in enumerate(data.articles()):
        title_of[row] = numbers.setdefault(plain_text(article.title), len(numbers))
        if len(numbers) > len(titles):
            titles.append(article.title)
    return titles, title_of


def encode_tokens(network: nn.Module, tokens: Sequence[Sequence[int]], size: int = TEXT_SIZE) -> Float32:
    """Embeddings float32 (B, ``size``) of B tokenised texts; the network is left in evaluation mode."""
    device = next(network.parameters()).device
    embedding = np.zeros((len(tokens), size), np.float32)
    by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(tokens), _ENCODE_BATCH):
            rows = by_length[start : start + _ENCODE_BATCH]
            batch = pad_tokens([tokens[row] for row in rows])
            inputs = (torch.from_numpy(batch[name]).to(device) for name in ("token_ids", "lengths"))
            embedding[rows] = network(*inputs).float().cpu().numpy()
    return embedding


def read_tokenizer_text(text: str) -> Any:
    """A tokenizer from the contents of its ``tokenizer.json``, as ``model_store.tokens`` would open it."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> str:
    """A byte-level BPE tokenizer of at most ``vocabulary`` tokens, learned from plain texts: its ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a word is the same at the beginning
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[_PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    text: str = tokenizer.to_str()
    return text


# --- training ----------------------------------------------------------------------------------------------------


class _Texts:
    """N tokenised texts, packed: ``token_ids`` int32 (N, T) padded with 0, and ``lengths`` int32 (N)."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]):
        self.tokens = [text_tokens(tokenizer, text) for text in texts]
        padded = pad_tokens(self.tokens)
        self._token_ids, self._lengths = padded["token_ids"].astype(np.int32), padded["lengths"].astype(np.int32)

    def tensors(self, rows: Int64, device: torch.device) -> tuple[Tensor, Tensor]:
        """(token_ids int64 (B, T), lengths int32 (B)) of some texts; T is as small as can be."""
        lengths = self._lengths[rows]
        token_ids = self._token_ids[rows, : lengths.max(initial=1)].astype(np.int64)
        return torch.from_numpy(token_ids).to(device), torch.from_numpy(lengths).to(device)


class Positives:
    """Which titles were bought from which query: int64 pairs (query, title), each once."""

    def __init__(self, query: Int64, title: Int64, titles: int):
        pairs = np.unique(np.stack([query, title]), axis=1)
        self._title = pairs[1]
        self._offsets = np.searchsorted(pairs[0], np.arange(int(query.max(initial=-1)) + 2))
        self._place = np.full(titles, -1, np.int64)  # of a title in the batch at hand

    def wrong(self, queries: Int64, titles: Int64) -> NDArray[np.bool_]:
        """Whether a title was never bought from a query, bool (U, W); each number comes once."""
        wrong = np.ones((len(queries), len(titles)), dtype=bool)
        self._place[titles] = np.arange(len(titles))
        start, number = self._offsets[queries], self._offsets[queries + 1] - self._offsets[queries]
        row = np.repeat(np.arange(len(queries)), number)
        index = np.arange(len(row)) + np.repeat(start - (np.cumsum(number) - number), number)
        column = self._place[self._title[index]]
        wrong[row[column >= 0], column[column >= 0]] = False
        self._place[titles] = -1
        return wrong


class TitleEncoderTraining(nn.Module):
    """The encoder below the triplet loss. ``forward`` gives (loss summed, number of pairs)."""

    def __init__(self, encoder: nn.Module, margin: float):
        super().__init__()
        self.encoder, self._margin = encoder, margin

    def forward(
        self, queries: Tensor, query_lengths: Tensor, titles: Tensor, title_lengths: Tensor, *pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Different queries and titles as tokens; ``pairs``: ``query``, ``title`` and ``wrong`` of ``triplet_loss``."""
        of_queries, of_titles = self.encoder(queries, query_lengths), self.encoder(titles, title_lengths)
        query, title, wrong = pairs
        with torch.autocast(queries.device.type, enabled=False):  # differences of cosines need float32
            loss = triplet_loss(of_queries, of_titles, query, title, wrong, self._margin)
        return loss.sum(), torch.tensor(float(len(query)), device=queries.device)


class TitleEncoderStage:
    """Training of the title encoder; its score is the mean reciprocal rank of the title bought from a held-out query.

    ``pairs`` are those of training, ``held_out`` those of validation, over the same queries; ``titles`` (W) and
    ``title_of`` int64 (N): ``catalogue_titles``.
    """

    name = "title_encoder"

    def __init__(
        self,
        encoder: TitleEncoderNetwork,
        tokenizer: Any,
        *,
        pairs: Pairs,
        held_out: Pairs,
        titles: Sequence[str],
        title_of: Int64,
        config: TitleEncoderConfig,
        rng: np.random.Generator,
    ):
        if not len(pairs):
            raise TrainingError(
                "title_encoder: no purchase before the validation window came within a day of a search of the same "
                "customer; set generation.enabled = false for data without searches"
            )
        self.encoder = encoder
        self.network: nn.Module = TitleEncoderTraining(encoder, config.margin)
        self._config = config
        self._queries, self._titles = _Texts(tokenizer, pairs.queries), _Texts(tokenizer, titles)
        self._query, self._title = pairs.query, title_of[pairs.article]
        self._positives = Positives(self._query, self._title, len(titles))
        self._held_out = _draw_held_out(held_out.query, title_of[held_out.article], len(titles), rng)

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Rows]:
        """Pairs in random order, ``max_pairs`` of them."""
        del epoch
        rows = np.arange(len(self._query))
        if len(rows) > self._config.max_pairs:
            rows = rng.choice(len(rows), self._config.max_pairs, replace=False)
        return shuffled_batches(rows, self._config.batch, rng)

    def batch(self, rows: Rows, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, ...]:
        """Each of the batch's texts once, and where the pairs' are among them."""
        del rng
        queries, query = np.unique(self._query[rows], return_inverse=True)
        titles, title = np.unique(self._title[rows], return_inverse=True)
        wrong = self._positives.wrong(queries, titles)
        return (
            *self._queries.tensors(queries, device),
            *self._titles.tensors(titles, device),
            *(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (query, title, wrong)),
        )

    def validate(self) -> float:
        """0 where nothing is held out."""
        query, title, candidates = self._held_out
        if not len(query):
            return 0.0
        rows, query = np.unique(query, return_inverse=True)
        queries = encode_tokens(self.encoder, [self._queries.tokens[row] for row in rows])
        titles = encode_tokens(self.encoder, [self._titles.tokens[row] for row in candidates])
        return mean_reciprocal_rank(queries, titles, query, title)


def train_title_encoder(
    data: DataSet,
    config: TitleEncoderConfig,
    *,
    until: int,
    held_out_until: int,
    seed: int,
    checkpoint: Path,
    recipe: str = "",
    world: World | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
) -> TitleEncoder:
    """Train on the pairs before ``until``; those from then to ``held_out_until`` stop it early.

    Without any of the latter all epochs are trained and the last counts. Raises TrainingError where there is no pair.
    """
    pairs = find_pairs(data, held_out_until)
    titles, title_of = catalogue_titles(data)
    training, held_out = pairs.between(0, until), pairs.between(until, held_out_until)
    searched = [pairs.queries[number] for number in np.unique(training.query)]
    tokenizer = train_tokenizer([*map(plain_text, titles), *searched], config.vocabulary)
    reader = read_tokenizer_text(tokenizer)
    seed_torch(derive(seed, "title_encoder", "weights"))
    network = TitleEncoderNetwork(reader.get_vocab_size(), config.embedding, config.hidden, config.dropout)
    stage = TitleEncoderStage(
        network,
        reader,
        pairs=training,
        held_out=held_out,
        titles=titles,
        title_of=title_of,
        config=config,
        rng=derive(seed, "title_encoder", "held out"),
    )
    fitted = fit(
        stage,
        config,
        seed=seed,
        checkpoint=checkpoint,
        recipe=recipe,
        keep_last=not len(held_out),
        world=world,
        precision=precision,
        progress=progress,
    )
    if fitted.curve[-1]["loss"] > _FALLEN * config.margin:
        (progress or Silent()).say(
            "title_encoder: the loss stayed near twice the margin, where all texts have nearly the same embedding: "
            "purchases say little about queries here, or title_encoder.lr, batch or dropout are too high"
        )
    return TitleEncoder(tokenizer, network, fitted.curve)


def mean_reciprocal_rank(queries: Float32, titles: Float32, query: Int64, title: Int64) -> float:
    """Mean of 1 / rank of ``titles[title[i]]`` among all W titles by cosine to ``queries[query[i]]``.

    ``queries`` float32 (U, 128), ``titles`` float32 (W, 128), ``query`` and ``title`` int64 (P). Ties share the middle
    of their places.
    """
    reciprocal = np.empty(len(query))
    order = np.argsort(query, kind="stable")
    for block in np.array_split(order, max(len(order) // 256, 1)):
        rows, inverse = np.unique(query[block], return_inverse=True)
        scores = (queries[rows] @ titles.T)[inverse]  # (block, W)
        own = scores[np.arange(len(block)), title[block]][:, None]
        reciprocal[block] = 1 / (0.5 + (scores > own).sum(axis=1) + 0.5 * (scores == own).sum(axis=1))
    return float(reciprocal.mean())


def _draw_held_out(query: Int64, title: Int64, titles: int, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
    """(query, place of its title among the candidates, candidates' numbers): of large data sets, some drawn by rng."""
    if len(query) > _HELD_OUT:
        rows = np.sort(rng.choice(len(query), _HELD_OUT, replace=False))
        query, title = query[rows], title[rows]
    candidates = np.arange(titles)
    if titles > _CANDIDATES:
        candidates = np.union1d(rng.choice(titles, _CANDIDATES, replace=False), title)
    return query, np.searchsorted(candidates, title), candidates
