"""RecBole's models: its augmentation, losses and networks, trained and asked through ``tuning.Learner``.

Only the baselines' environment has RecBole 1.2.1, which is older than its numpy, pandas and torch. What follows from
that stands here, once: names that numpy 2 dropped are given back; RecBole reads the command line of whoever imports it,
which must not be ours; its model ``sine`` switches anomaly detection on for all, which halves the speed.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_store.errors import TrainingError
from offline.baselines import MAX_LENGTH
from offline.baselines.questions import Int64, Sequences
from offline.baselines.results import Float32
from offline.baselines.tuning import OneStage, Settings

for _name, _type in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
    setattr(np, _name, _type)

from recbole.config import Config  # noqa: E402
from recbole.data.dataloader import TrainDataLoader  # noqa: E402
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.data.utils import create_dataset  # noqa: E402
from recbole.utils import get_model, init_seed  # noqa: E402

LIBRARY = f"RecBole {version('recbole')}, torch {version('torch')}"
_SHOP = "shop"
_CUSTOMER, _ARTICLE, _TIME = "user_id", "item_id", "timestamp"  # RecBole's words
_SEQUENCE, _LENGTH = f"{_ARTICLE}_list", "item_length"
_MASKED = "BERT4Rec"
_PADDED = "NextItNet"  # reads what stands in the last column, padding or not
_LEAST_LENGTH = 10  # of which BERT4Rec still masks two
_TOP = 256  # histories asked for at once


class RecBoleLearner(OneStage):
    """One of RecBole's sequential models. No history is longer than ``longest``, which is that of training, at most 50.

    ``settings``: by RecBole's names (``learning_rate``, ``train_batch_size``, …). Raises TrainingError where no
    customer bought twice, so that nothing follows anything.
    """

    def __init__(self, model: str, settings: Settings, sequences: Sequences, seed: int):
        if not np.any(np.diff(sequences.offsets) > 1):
            raise TrainingError("no customer bought twice before the validation window: there is no sequence to learn")
        self._leading, self._padded = int(model == _MASKED), model == _PADDED
        if self._leading:
            _refuse_customers_of_all(sequences)
        self.longest = min(MAX_LENGTH, max(_LEAST_LENGTH, int(np.diff(sequences.offsets).max())))
        with tempfile.TemporaryDirectory(prefix="modiste-") as folder:
            _write_interactions(sequences, Path(folder) / _SHOP / f"{_SHOP}.inter")
            config = _config(model, {**settings, "MAX_ITEM_LIST_LENGTH": self.longest}, seed, folder)
            data = _augmented(config)
        tokens = data.field2id_token[_ARTICLE][1:]  # the first is padding
        article = np.array([int(token) for token in tokens], np.int64)
        self._id = 1 + np.argsort(article)  # (M) RecBole's number of each
        self._article = np.sort(article)
        self.loader = TrainDataLoader(config, data, None, shuffle=True)
        self.network = get_model(model)(config, data).to(config["device"])
        torch.autograd.set_detect_anomaly(False)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=config["learning_rate"])

    @property
    def article(self) -> Int64:
        """int64 (M), sorted."""
        return self._article

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def batches(self) -> int:
        """Of an epoch."""
        return len(self.loader)

    def train_epoch(self, advance: Callable[[int], None]) -> float:
        """The mean loss of all batches."""
        self.network.train()
        total = 0.0
        for batch in self.loader:
            loss = self.network.calculate_loss(self.cropped(batch).to(self.network.device))
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.item()
            advance(1)
        return total / self.batches

    def scores(self, histories: Sequence[Int64]) -> Float32:
        """float32 (B, M) for what comes next."""
        self.network.eval()
        parts = [self._scores(histories[low : low + _TOP]) for low in range(0, len(histories), _TOP)]
        return np.concatenate(parts)

    def cropped(self, batch: Any) -> Any:
        """A batch less the columns that pad all its sequences: padding stands last, where most models never look."""
        longest = self.longest if self._padded else int(batch[_LENGTH].max())
        for name in (_SEQUENCE, f"Mask_{_SEQUENCE}"):
            if name in batch.interaction:
                batch.interaction[name] = batch[name][:, :longest]
        return batch

    def _scores(self, histories: Sequence[Int64]) -> Float32:
        """BERT4Rec puts its mask behind the history and takes the first place away: nothing stands there, with us."""
        latest = [history[-(self.longest - self._leading) :] for history in histories]
        length = np.array([self._leading + len(history) for history in latest])
        items = np.zeros((len(latest), self.longest if self._padded else length.max()), np.int64)
        for row, history in enumerate(latest):
            items[row, self._leading : length[row]] = self._id[np.searchsorted(self._article, history)]
        asked = {_SEQUENCE: torch.from_numpy(items), _LENGTH: torch.from_numpy(length)}
        with torch.inference_mode():
            found = self.network.full_sort_predict(Interaction(asked).to(self.network.device))
        scores: Float32 = found.view(len(histories), -1).float().cpu().numpy()[:, self._id]
        return scores


def _refuse_customers_of_all(sequences: Sequences) -> None:
    """Raises TrainingError where RecBole would look for ever for an article that a customer has not bought."""
    articles = len(np.unique(sequences.article))
    for customer in range(len(sequences) if articles <= MAX_LENGTH else 0):
        if len(np.unique(sequences[customer])) == articles:
            raise TrainingError(f"{_MASKED} cannot learn where a customer bought all {articles} articles: leave it out")


def maker(model: str) -> Callable[[Settings, Sequences, int], RecBoleLearner]:
    """What begins models of one kind."""
    return lambda settings, sequences, seed: RecBoleLearner(model, settings, sequences, seed)


def _write_interactions(sequences: Sequences, path: Path) -> None:
    """RecBole's atomic file. A purchase's time is its place in the sequence, so that RecBole's order is ours."""
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{_CUSTOMER}:token\t{_ARTICLE}:token\t{_TIME}:float\n")
        for customer in range(len(sequences)):
            lines = [f"{customer}\t{article}\t{place}\n" for place, article in enumerate(sequences[customer].tolist())]
            file.writelines(lines)


def _config(model: str, settings: Mapping[str, float], seed: int, folder: str) -> Any:
    """RecBole's own settings, but for those given, the fields, and that nothing is split off or written."""
    chosen = {
        "data_path": folder,
        "checkpoint_dir": folder,
        "load_col": {"inter": [_CUSTOMER, _ARTICLE, _TIME]},
        "USER_ID_FIELD": _CUSTOMER,
        "ITEM_ID_FIELD": _ARTICLE,
        "TIME_FIELD": _TIME,
        "ITEM_LIST_LENGTH_FIELD": _LENGTH,
        "train_neg_sample_args": None,  # softmax over all articles
        "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": None, "order": "TO", "mode": "full"},
        "state": "ERROR",
        "use_gpu": torch.cuda.is_available(),
        **settings,
        "seed": seed,
    }
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        config = Config(model=model, dataset=_SHOP, config_dict=chosen)
    finally:
        sys.argv = arguments
    init_seed(seed, reproducibility=True)
    return config


def _augmented(config: Any) -> Any:
    """RecBole's data set: every prefix of a sequence, and what followed it."""
    logging.getLogger("recbole").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3: filling missing values in place does nothing, and none is missing
        data, *_ = create_dataset(config).build()
    return data
