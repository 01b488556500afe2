"""From a customer's log to their style: the style LSTM, step by step and in bulk (Zalando 2017, §2.3; design §4).

Step i + 1 reads purchase i and the time of purchase i + 1, so a log of n purchases makes n steps, and the state keeps
purchase n pending for the step that a read at some time, or the next purchase, will run.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import ARTICLE_DNA, FASHION_DNA, IMAGE_ENCODER, STYLE_LSTM, Bundle, Manifest
from model_store.graphs import Memory, StyleLstm
from model_store.history import Purchase, effective_history
from model_store.records import Event
from model_store.time_features import TimeSpec, encode_history, encode_step, encode_steps
from service.state.customer import CustomerState

Float32 = NDArray[np.float32]

log = logging.getLogger(__name__)

BATCH = 32
"""Customers that one run of the graph replays: more are no cheaper each (12 µs a step), and differ more in length."""

_NO_MEMORY = Memory.zeros(1)  # m_0


class _Steps(NamedTuple):
    """What the LSTM sees of one customer: n purchases that have Fashion DNA, oldest first."""

    purchases: list[Purchase]
    dna: list[Float32]


class _Further(NamedTuple):
    """A state, and the purchases that follow it: those with Fashion DNA, and the articles of those without."""

    state: CustomerState
    purchases: Sequence[Purchase]
    known: _Steps
    skipped: list[str]


def bundle_stamp(manifest: Manifest) -> str:
    """Name of what states depend on: the version, and the hashes of the files behind it.

    The version alone would not do: a bundle that was deleted and exported again under its old name is another.
    """
    names = (STYLE_LSTM, FASHION_DNA, IMAGE_ENCODER, ARTICLE_DNA)
    hashes = [manifest.files[name].sha256 for name in names] + [manifest.time_spec.model_dump_json()]
    return f"{manifest.version}@{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:16]}"


class StyleModel:
    """One bundle's style LSTM over the articles that ``dna_of`` knows.

    ``dna_of`` gives an article's Fashion DNA, float32 (128), in this bundle, or None. A purchase of an article without
    any is *skipped*: it stays in the history and its article out of the answers, but the LSTM does not see it. A state
    that skipped an article fits no longer once the article has Fashion DNA. ``skipped`` counts such purchases.
    """

    def __init__(
        self, bundle_version: str, graph: StyleLstm, time_spec: TimeSpec, dna_of: Callable[[str], Float32 | None]
    ):
        self.bundle_version, self.time_spec, self.dna_of = bundle_version, time_spec, dna_of
        self.skipped = 0
        self._graph = graph
        self._named: set[str] = set()

    @classmethod
    def of_bundle(cls, bundle: Bundle, dna_of: Callable[[str], Float32 | None]) -> StyleModel:
        """The style LSTM of an opened bundle. Its states are stamped with ``bundle_stamp``."""
        graph = StyleLstm(bundle.path(STYLE_LSTM))
        return cls(bundle_stamp(bundle.manifest), graph, bundle.manifest.time_spec, dna_of)

    def fits(self, state: CustomerState) -> bool:
        """Whether ``state`` is what this model would derive from its log now."""
        pending = state.pending
        return (
            state.bundle == self.bundle_version
            and (pending is None or self.dna_of(pending.article_id) is not None)
            and not any(self.dna_of(article_id) is not None for article_id in state.skipped)
        )

    def style(self, state: CustomerState | None, at: int) -> Float32:
        """Style d of a customer at time ``at`` (Unix seconds), float32 (128). None: nobody knows them yet.

        The state must fit this model. ``at`` may lie before the latest purchase; the gap then counts as none.
        """
        style: Float32 = self.styles([(state, at)])[0]
        return style

    def styles(self, asked: Sequence[tuple[CustomerState | None, int]]) -> Float32:
        """``style`` of many customers, float32 (B, 128), by one run of the graph."""
        steps = np.zeros((len(asked), 1, self.time_spec.step_size), np.float32)
        memory = Memory.zeros(len(asked))
        for place, (state, at) in enumerate(asked):
            if state is None or state.pending is None:
                steps[place] = encode_step(self.time_spec, None, 0, at)
            else:
                steps[place] = encode_step(self.time_spec, self._dna(state.pending), state.pending.timestamp, at)
                memory.hidden[place], memory.cell[place] = state.hidden, state.cell
        styles, _ = self._graph.run_steps(steps, np.ones(len(asked), np.int32), memory)
        return styles[:, 0]

    def path(self, purchases: Sequence[Purchase], at: int) -> tuple[list[Purchase], Float32]:
        """The purchases that the LSTM sees, n of a history that is given oldest first; and styles float32 (n + 1, 128).

        The first style is that of nobody known, as purchase 1 met it; style i + 1 follows purchase i, as the next one
        met it, and the last as a read at ``at`` (Unix seconds) does.
        """
        known, _ = self._known(purchases)
        if not known.purchases:
            return [], self.styles([(None, at)])
        times = np.array([purchase.timestamp for purchase in known.purchases], np.int64)
        steps = encode_history(self.time_spec, np.array(known.dna, np.float32), times, max(at, int(times[-1])))
        styles, _ = self._graph.run_steps(steps[None], np.array([len(steps)], np.int32), Memory.zeros(1))
        return known.purchases, styles[0]

    def advance(self, state: CustomerState, purchases: Sequence[Purchase]) -> CustomerState | None:
        """The state after further purchases, or None where it cannot be had without a replay.

        That is so where the state is another bundle's or skipped what is now known; where a purchase does not come
        after the pending one; and where its article was returned before: a return can then be about this purchase.
        """
        return self.advances([(state, purchases)])[0]

    def advances(self, asked: Sequence[tuple[CustomerState, Sequence[Purchase]]]) -> list[CustomerState | None]:
        """``advance`` for many, in the order given; those with as many purchases share one run of the graph."""
        further = [self._further(*each) for each in asked]
        by_length: defaultdict[int, dict[int, _Further]] = defaultdict(dict)
        for place, each in enumerate(further):
            if each is not None and each.known.purchases:
                by_length[len(each.known.purchases)][place] = each
        memories: dict[int, tuple[Float32, Float32]] = {}
        for alike in by_length.values():
            memories.update(zip(alike, self._moved(list(alike.values())), strict=True))
        return [
            None if each is None else self._advanced(each, *memories.get(place, (each.state.hidden, each.state.cell)))
            for place, each in enumerate(further)
        ]

    def _further(self, state: CustomerState, purchases: Sequence[Purchase]) -> _Further | None:
        """What the LSTM is to see next of a customer; None where it must see all again."""
        if not self.fits(state) or any(purchase.article_id in state.returned for purchase in purchases):
            return None
        known, skipped = self._known(sorted(purchases, key=_place))
        if state.pending is not None and any(_place(purchase) <= _place(state.pending) for purchase in known.purchases):
            return None
        return _Further(state, purchases, known, skipped)

    def _moved(self, further: Sequence[_Further]) -> Iterable[tuple[Float32, Float32]]:
        """Memories (hidden, cell), each float32 (256), of customers with the same number of further purchases."""
        rows = np.concatenate([self._further_rows(each.state.pending, each.known) for each in further])
        memory = Memory(
            np.stack([each.state.hidden for each in further]), np.stack([each.state.cell for each in further])
        )
        _, after = self._graph.run_steps(rows, np.full(len(further), rows.shape[1], np.int32), memory)
        return zip(after.hidden, after.cell, strict=True)

    def _advanced(self, further: _Further, hidden: Float32, cell: Float32) -> CustomerState:
        state, known = further.state, further.known
        skipped = _with(state.skipped, further.skipped)
        return CustomerState(
            self.bundle_version,
            state.consumed + len(known.purchases) - (state.pending is None and bool(known.purchases)),
            hidden,
            cell,
            known.purchases[-1] if known.purchases else state.pending,
            _bought(state.purchased, known, skipped),
            state.returned,
            skipped,
        )

    def replay(self, events: Iterable[Event]) -> CustomerState:
        """The state of a whole log, given in any order."""
        return self.replay_many([events])[0]

    def replay_many(self, logs: Sequence[Iterable[Event]]) -> list[CustomerState]:
        """``replay`` for many customers, in the order given."""
        return self.replay_later(logs)()

    def replay_later(self, logs: Sequence[Iterable[Event]]) -> Callable[[], list[CustomerState]]:
        """``replay_many`` in two parts: what the index knows is looked up now, and the call that is returned computes.

        That may be made in another thread.
        """
        histories = [effective_history(events) for events in logs]
        purchases, returned = [history for history, _ in histories], [gone for _, gone in histories]
        known = list(map(self._known, purchases))
        return lambda: self._states(returned, known)

    def states(self, histories: Sequence[list[Purchase]], returned: Sequence[Iterable[str]]) -> list[CustomerState]:
        """States of effective histories (oldest first, returns taken out) and of the articles returned beside them."""
        return self._states(returned, list(map(self._known, histories)))

    def _states(
        self, returned: Sequence[Iterable[str]], looked_up: Sequence[tuple[_Steps, list[str]]]
    ) -> list[CustomerState]:
        """``states``, of what ``_known`` says of each history."""
        known, skipped = zip(*looked_up, strict=True) if looked_up else ((), ())
        memories = self._consume(known)
        return [
            CustomerState(
                self.bundle_version,
                max(len(steps.purchases) - 1, 0),
                *memory,
                steps.purchases[-1] if steps.purchases else None,
                _bought((), steps, _with((), missing)),
                _with((), gone),
                _with((), missing),
            )
            for steps, missing, gone, memory in zip(known, skipped, returned, memories, strict=True)
        ]

    def _known(self, purchases: Iterable[Purchase]) -> tuple[_Steps, list[str]]:
        """(purchases with Fashion DNA, articles of the others)."""
        known, skipped = _Steps([], []), []
        for purchase in purchases:
            dna = self.dna_of(purchase.article_id)
            if dna is None:
                skipped.append(purchase.article_id)
                self._report(purchase.article_id)
            else:
                known.purchases.append(purchase)
                known.dna.append(dna)
        return known, skipped

    def _report(self, article_id: str) -> None:
        self.skipped += 1
        if article_id not in self._named:
            self._named.add(article_id)
            log.warning("article '%s' has no Fashion DNA in bundle %s: skipped", article_id, self.bundle_version)

    def _dna(self, purchase: Purchase) -> Float32:
        dna = self.dna_of(purchase.article_id)
        assert dna is not None, f"'{purchase.article_id}' had Fashion DNA in {self.bundle_version} and lost it"
        return dna

    def _further_rows(self, pending: Purchase | None, known: _Steps) -> Float32:
        """Step inputs of further purchases of one customer, float32 (1, T, D)."""
        before = None if pending is None else self._dna(pending)
        if len(known.purchases) == 1:
            since = 0 if pending is None else pending.timestamp
            return encode_step(self.time_spec, before, since, known.purchases[0].timestamp)
        if pending is None or before is None:
            return self._rows([known])[None]
        return self._rows([_Steps([pending, *known.purchases], [before, *known.dna])])[None, 1:]

    def _rows(self, batch: Sequence[_Steps]) -> Float32:
        """Step inputs of whole histories, one behind the other: float32 (sum of their lengths, D)."""
        dna = np.array([row for steps in batch for row in steps.dna], np.float32)
        times = np.array([purchase.timestamp for steps in batch for purchase in steps.purchases], np.int64)
        first = np.zeros(len(times), bool)
        first[np.cumsum([0] + [len(steps.purchases) for steps in batch[:-1]])] = True
        return encode_steps(self.time_spec, np.roll(dna, 1, axis=0), np.roll(times, 1), times, first)

    def _consume(self, histories: Sequence[_Steps]) -> list[tuple[Float32, Float32]]:
        """Memory (hidden, cell), each float32 (256), after every history's last step; zero where there is none."""
        memories = [(_NO_MEMORY.hidden[0], _NO_MEMORY.cell[0])] * len(histories)
        for chosen in _batches([len(steps.purchases) for steps in histories]):
            batch = [histories[index] for index in chosen]
            lengths = np.asarray([len(steps.purchases) for steps in batch], np.int32)
            inside = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
            padded = np.zeros((*inside.shape, self.time_spec.step_size), np.float32)
            padded[inside] = self._rows(batch)
            _, after = self._graph.run_steps(padded, lengths, Memory.zeros(len(batch)))
            for row, index in enumerate(chosen):
                memories[index] = (after.hidden[row], after.cell[row])
        return memories


def _place(purchase: Purchase) -> tuple[int, str]:
    """A purchase's place in its history."""
    return purchase[:2]


def _bought(before: Sequence[str], known: _Steps, skipped: Sequence[str]) -> tuple[str, ...]:
    """The articles bought, as states have them, after those of ``before``; ``skipped``: all that were, in order."""
    passed = set(skipped)
    order = dict.fromkeys(article for article in before if article not in passed)
    for purchase in known.purchases:
        order.pop(purchase.article_id, None)
        order[purchase.article_id] = None
    return (*skipped, *order)


def _with(articles: Sequence[str], further: Iterable[str]) -> tuple[str, ...]:
    """Distinct articles in order of id, so that a state does not tell by which way it was reached."""
    return tuple(sorted({*articles, *further}))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the histories that have steps, in batches of like length, so that little of a batch is padding."""
    order = sorted((index for index, length in enumerate(lengths) if length), key=lengths.__getitem__)
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]
