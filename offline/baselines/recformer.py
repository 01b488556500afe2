"""Recformer (Li et al. 2023), trained and asked through ``tuning.Learner``.

Told searches, too, it is the "Recformer w/ query" of Amazon 2024, §5.1. It is trained in three stages (§2.3), all by
the cosine over a temperature. *Pre-training*: the right one is found of the next articles of a batch, plus λ times
masked words. *Stage 1*: among all articles that training knows, whose representations are encoded anew when an epoch
begins. *Stage 2*: the same, but with the representations of the best epoch so far, which stay.

What we chose where the paper has other data or more time:

- It is pre-trained on the shop's own sequences, not on other shops'.
- An epoch shows as many examples, a purchase and what came before it, as there are customers, at least ``EPOCH``, drawn
  anew each time; the authors' code shows one of each customer.
- Without a checkpoint it is a small Longformer from scratch (``longformers``).
- Every article of the data set is ranked, whether it ever sold or not: a text is all that is needed. Articles that
  never sold are no negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.errors import TrainingError
from offline.baselines.longformers import Start
from offline.baselines.questions import Int64, Sequences
from offline.baselines.results import Float32
from offline.baselines.sentences import QUERY, Layout, Sentence, masked, sentence_of, words_of
from offline.baselines.texts import Attributes, TextQuestions
from offline.baselines.tuning import Maker, Settings
from offline.models.recformer import Tokens
from offline.training import derive, seed_torch

STAGES = ("pre-training", "stage 1", "stage 2")
PRE_TRAINING, _, FROZEN = range(3)
TEMPERATURE, MASKED_WEIGHT = 0.05, 0.1
"""τ and λ (§3.1.3)."""
EPOCH = 2_048
_ENCODED_TOKENS = 16_384  # read at once where nothing is learned
_SORTED_BATCHES = 8  # whose sequences are sorted by length, so that little is padded
_CLIP_NORM = 1.0


class RecformerLearner:
    """``articles`` (N) and ``queries`` (Q) are what steps stand for (``texts``); ``sequences`` are trained on.

    ``settings``: learning_rate, train_batch_size, tokens and sentences of a sequence at most, window. Raises
    TrainingError where nothing comes before any purchase.
    """

    stages: Sequence[str] = STAGES

    def __init__(
        self,
        start: Start,
        settings: Settings,
        articles: Sequence[Attributes],
        queries: Sequence[str],
        sequences: Sequences,
        seed: int,
    ):
        self._settings, self._sequences, self._seed = settings, sequences, seed
        self._targets = _targets(sequences)
        if not len(self._targets):
            raise TrainingError("nothing comes before any purchase in training: there is no sequence to learn")
        sold = np.unique(sequences.article[sequences.article >= 0])
        searched = ~np.unique(sequences.article[sequences.article < 0])
        seed_torch(derive(seed, "recformer"))
        words = words_of((articles[number] for number in sold), (queries[number] for number in searched))
        network, vocabulary = start.open(settings, words)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self._device)
        sizes = (int(settings[name]) for name in ("tokens", "sentences", "window"))
        self.layout = Layout(vocabulary, *sizes)
        self._articles = [sentence_of(attributes, vocabulary) for attributes in articles]
        self._queries = [sentence_of({QUERY: query}, vocabulary) for query in queries]
        self._class = np.searchsorted(sold, np.arange(len(articles)))  # of what was sold alone
        self._sold = torch.from_numpy(sold).to(self._device)
        self._epoch, self._stage = 0, PRE_TRAINING
        self._encoded: Tensor | None = None  # (N, d) as articles are ranked by
        self._kept: tuple[dict[str, Tensor], Tensor | None] | None = None
        self._begin()

    @property
    def article(self) -> Int64:
        """int64 (N): all articles."""
        return np.arange(len(self._articles))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def batches(self) -> int:
        """Of an epoch."""
        return -(-self._examples // self._batch)

    def train_epoch(self, advance: Callable[[int], None]) -> float:
        """The mean loss of all examples."""
        self._epoch += 1
        rng = derive(self._seed, "recformer", self._epoch)
        seed_torch(rng)
        if self._stage != FROZEN or self._encoded is None:
            self._encoded = None if self._stage == PRE_TRAINING else self._encode_articles()
        self.network.train()
        total = 0.0
        for rows in self._drawn(rng):
            loss = self._loss([self._before(row) for row in rows], self._sequences.article[rows])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
            self._optimizer.step()
            total += loss.item() * len(rows)
            advance(1)
        return total / self._examples

    def scores(self, histories: Sequence[Int64]) -> Float32:
        """float32 (B, N): cosine of what comes next and each article (equation 5). Articles of one text tie."""
        if self._encoded is None:
            self._encoded = self._encode_articles()
        wanted = self._encode([self._sentences(history) for history in histories])
        scores: Float32 = (wanted @ self._encoded.T).float().cpu().numpy()
        return scores

    def keep(self) -> None:
        """Remember weights, and the representations of articles that validation was ranked by."""
        weights = {name: weight.clone() for name, weight in self.network.state_dict().items()}
        self._kept = weights, self._encoded

    def next_stage(self) -> None:
        """Go on from what was kept (Algorithm 1, line 12), with an optimiser that knows nothing."""
        if self._kept is not None:
            weights, self._encoded = self._kept
            self.network.load_state_dict(weights)
        self._stage += 1
        self._begin()

    def _begin(self) -> None:
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=self._settings["learning_rate"])

    # --- examples -----------------------------------------------------------------------------------------------------

    @property
    def _batch(self) -> int:
        return int(self._settings["train_batch_size"])

    @property
    def _examples(self) -> int:
        return min(len(self._targets), max(len(self._sequences), EPOCH))

    def _drawn(self, rng: np.random.Generator) -> Iterator[Int64]:
        """Rows of the epoch's targets in batches of about one length, in random order."""
        rows = rng.permutation(self._targets)[: self._examples]
        batches: list[Int64] = []
        for low in range(0, len(rows), self._batch * _SORTED_BATCHES):
            part = rows[low : low + self._batch * _SORTED_BATCHES]
            part = part[np.argsort([len(self._before(row)) for row in part], kind="stable")]
            batches += [part[start : start + self._batch] for start in range(0, len(part), self._batch)]
        for number in rng.permutation(len(batches)):
            yield batches[number]

    def _before(self, row: int) -> Int64:
        """The steps before one, as many as are read."""
        first = self._sequences.offsets[np.searchsorted(self._sequences.offsets, row, side="right") - 1]
        return self._sequences.article[max(first, row - self.layout.sentences) : row]

    def _sentences(self, steps: Int64) -> list[Sentence]:
        latest = steps[-self.layout.sentences :].tolist()
        return [self._articles[step] if step >= 0 else self._queries[~step] for step in latest]

    # --- losses -------------------------------------------------------------------------------------------------------

    def _loss(self, histories: Sequence[Int64], target: Int64) -> Tensor:
        tokens = self._tokens([self._sentences(steps) for steps in histories])
        if self._stage == PRE_TRAINING:
            return self._contrastive(tokens, target) + MASKED_WEIGHT * self._masked(tokens)
        assert self._encoded is not None
        among = self._encoded[self._sold]
        return self._found(self.network(tokens), among, torch.from_numpy(self._class[target]))

    def _contrastive(self, tokens: Tokens, target: Int64) -> Tensor:
        """The right one among the next articles of the batch (equation 10), each once."""
        among, right = np.unique(target, return_inverse=True)
        articles = self.network(self._tokens([[self._articles[number]] for number in among]))
        return self._found(self.network(tokens), articles, torch.from_numpy(right))

    def _found(self, wanted: Tensor, among: Tensor, right: Tensor) -> Tensor:
        return F.cross_entropy(wanted @ among.T / TEMPERATURE, right.to(self._device))

    def _masked(self, tokens: Tokens) -> Tensor:
        hidden_words, chosen = masked(tokens, self.layout.vocabulary, torch.default_generator)
        if not chosen.any():  # of articles of which nothing is known there are no words
            return torch.zeros((), device=self._device)
        hidden = self.network.hidden(hidden_words)[chosen]
        return F.cross_entropy(self.network.words(hidden), tokens.token[chosen])

    # --- representations ----------------------------------------------------------------------------------------------

    def _tokens(self, sequences: Sequence[Sequence[Sentence]]) -> Tokens:
        return self.layout.tokens_of(sequences, self._device)

    def _encode_articles(self) -> Tensor:
        """float32 (N, d); each text is read once."""
        numbers: dict[Sentence, int] = {}
        of = [numbers.setdefault(sentence, len(numbers)) for sentence in self._articles]
        return self._encode([[sentence] for sentence in numbers])[torch.tensor(of, device=self._device)]

    def _encode(self, sequences: Sequence[Sequence[Sentence]]) -> Tensor:
        """float32 (B, d), as nothing is learned."""
        order = np.argsort([sum(len(one.token) for one in sequence) for sequence in sequences], kind="stable")
        size = max(_ENCODED_TOKENS // self.layout.tokens, 1)
        self.network.eval()
        with torch.inference_mode():
            parts = [
                self.network(self._tokens([sequences[number] for number in order[low : low + size]]))
                for low in range(0, len(order), size)
            ]
        back = torch.from_numpy(np.argsort(order)).to(self._device)
        return torch.cat(parts)[back].clone()


def maker(start: Start, told: TextQuestions) -> Maker:
    """What begins models for these questions."""
    return lambda settings, sequences, seed: RecformerLearner(
        start, settings, told.articles, told.queries, sequences, seed
    )


def _targets(sequences: Sequences) -> Int64:
    """Rows of purchases that something comes before."""
    later = np.ones(len(sequences.article), bool)
    later[sequences.offsets[:-1][np.diff(sequences.offsets) > 0]] = False
    return np.flatnonzero(later & (sequences.article >= 0))
