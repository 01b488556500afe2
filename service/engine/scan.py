"""A quick first look at all vectors: FAISS scans an 8-bit copy, and a bound tells what it may have missed.

Component j of a vector is kept as a whole number c_j of steps s_j, |c_j| ≤ 127, so x = s∘(c + u), with a remainder u
that is known when the vector is written. A query q is made whole likewise: q∘s = t(g + w). Then q·x = t g·c + t w·c +
(q∘s)·u, of which FAISS computes g·c, exactly, and the rest is at most t ‖w‖ ‖c‖ + ‖q∘s‖ ‖u‖ (Cauchy–Schwarz): what the
scan does not propose scores at most its last proposal plus that. The copy takes a quarter of the memory that a scan has
to read, which is what bounds its speed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

_LEVELS = 127
_ZERO = 128  # FAISS keeps c + 128
_SAMPLE = 16_384
_QUANTILE, _HEADROOM = 0.999, 1.5  # of the magnitudes of a component: what is seldom larger does not coarsen the steps
_LOOSE = 256
_CHUNK = 8_192
_SAFETY = 1 + 1e-9  # against rounding of the bound itself, float64

# A worker is one thread on one core; more of them would only get in each other's way.
faiss.omp_set_num_threads(1)
_faiss: Any = faiss  # whose published types know the C++ signatures only


class Proposal(NamedTuple):
    """``rows`` int64, in no order; every other row that was asked about scores at most ``bound``."""

    rows: Rows
    bound: float


class QuantisedScan:
    """The 8-bit copy of ``vectors`` float32 (capacity, 128), whose first ``size`` rows were ``write``-n.

    Rows that do not fit the steps are loose: proposed always. Where they become many, ``fit`` anew.
    """

    def __init__(self, vectors: Float32, size: int):
        self._index: Any = faiss.IndexScalarQuantizer(
            DNA_SIZE, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        self._loose = np.zeros(0, dtype=bool)
        self.grow(len(vectors))
        self._longest_remainder = self._longest_code = 0.0  # largest ‖u‖ and ‖c‖
        self._steps = _steps(vectors[:size])
        for start in range(0, size, _CHUNK):
            rows = slice(start, min(start + _CHUNK, size))
            self.write(rows, vectors[rows])
        self._fitted_rows = size
        self._most_loose = 2 * int(self._loose.sum()) + _LOOSE

    def worn(self, size: int) -> bool:
        """Whether a new copy would be much better than this one, now that there are ``size`` rows."""
        return size >= 2 * self._fitted_rows or int(np.count_nonzero(self._loose[:size])) > self._most_loose

    def write(self, rows: Rows | slice, vectors: Float32) -> None:
        """Keep ``vectors`` float32 (len(rows), 128) under ``rows``."""
        scaled = vectors.astype(np.float64) / self._steps
        whole = np.rint(scaled)
        loose = np.abs(whole).max(axis=1, initial=0.0) > _LEVELS
        whole[loose] = scaled[loose] = 0.0
        self._longest_remainder = max(self._longest_remainder, _longest(scaled - whole))
        self._longest_code = max(self._longest_code, _longest(whole))
        self._codes[rows] = (whole + _ZERO).astype(np.uint8)
        self._loose[rows] = loose

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows."""
        self._index.codes.resize(capacity * DNA_SIZE)
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._index.codes.data(), capacity * DNA_SIZE)
        self._codes = codes.reshape(-1, DNA_SIZE)
        self._loose = np.concatenate([self._loose, np.zeros(capacity - len(self._loose), dtype=bool)])

    def move(self, to: Rows, from_: Rows) -> None:
        """Let rows ``to`` hold what rows ``from_`` do."""
        self._codes[to] = self._codes[from_]
        self._loose[to] = self._loose[from_]

    def propose(self, query: Float32, k: int, size: int, allowed: NDArray[np.uint8] | None) -> Proposal:
        """About the best ``k`` of rows [0, ``size``), or of those whose bit is set in ``allowed`` (little-endian)."""
        stepped = query.astype(np.float64) * self._steps
        unit = float(np.abs(stepped).max()) / _LEVELS or 1.0  # t
        whole = np.rint(stepped / unit)  # g: FAISS takes 8 bits of a query, too
        unknown = unit * float(np.linalg.norm(stepped / unit - whole)) * self._longest_code
        unknown += float(np.linalg.norm(stepped)) * self._longest_remainder
        self._index.ntotal = size
        selector = None if allowed is None else _faiss.IDSelectorBitmap(allowed)
        parameters = None if selector is None else _faiss.SearchParameters(sel=selector)
        scores, found = self._index.search(whole.astype(np.float32)[None], k, params=parameters)
        rows = found[0][found[0] >= 0]
        bound = float(scores[0][-1]) * unit + unknown * _SAFETY if len(rows) == k else -np.inf
        loose = np.flatnonzero(self._loose[:size])
        if allowed is not None and len(loose):
            loose = loose[(allowed[loose >> 3] >> (loose & 7)) & 1 == 1]
        return Proposal(np.union1d(rows, loose) if len(loose) else rows, bound)


def _longest(vectors: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(vectors, axis=1).max(initial=0.0))


def _steps(vectors: Float32) -> NDArray[np.float64]:
    """The steps s, float64 (128): all but the largest magnitudes of each component lie within 127 steps."""
    sample = np.abs(vectors[:: max(1, len(vectors) // _SAMPLE)]).astype(np.float64)
    if not len(sample):
        return np.ones(DNA_SIZE)
    usual = np.quantile(sample, _QUANTILE, axis=0, method="higher") * _HEADROOM
    usual = np.where(usual > 0, usual, sample.max(axis=0))
    return np.asarray(np.where(usual > 0, usual, 1e-30) / _LEVELS, dtype=np.float64)
