"""Vectors in cells: what lies near each other lies together, so that a search looks only where it pays.

An inverted file (Jégou, Douze & Schmid 2011, "Product quantization for nearest neighbor search", §IV, without the
product quantisation): k-means makes the cells, FAISS keeps a 16-bit copy of every vector in the list of its cell. A
search first visits the cells whose centroids have the highest inner products with the query, until it has met some
rows that are allowed. How good these are tells which other cells may hold better ones: those whose centroid falls short
by no more than vectors lie around centroids, along the query. How far that is, is measured when the cells are made: the
best rows of queries that spread at least as much as those to come (``Asked``) are looked up exactly. Where vectors do
not lie in heaps, nearly all cells have to be visited: that is slow, but never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.popularity import POPULARITY
from service.engine.allowed import Allowed
from service.engine.arrays import Float32, Rows
from service.engine.filters import Filters

_MOST_CELLS, _ROWS_PER_CELL = 1_024, 256
_ROUNDS = 6  # of k-means: more hardly change which rows are found
_SAMPLE = 48  # rows a cell that k-means looks at
_ROUNDING = 2.0**-11  # of a float16, relative
_LARGEST = 6e4  # a float16 holds no larger component; usual ones are made about 1
_QUERIES, _MIXED = 64, 200  # that tell how many rows are enough, and vectors that a mixture is made of
_BEST, _RECALL, _SAFETY = 100, 0.998, 1.1  # of so many best, this share is to be met; and a little more
_FIRST = 24  # times what is wanted are met first, about
_VARIES_LITTLE = 1 / 3  # beside other components
_STRETCHED, _MOST_STRETCHED = 2.5, 24.0  # how much popularity is to vary beside them, and not beyond this
_AT_ONCE = 8  # queries: 1.5 MB of scores for each and 190,000 rows
_ROWS_AT_ONCE = 16_384  # of which copies are made when cells are: 8 MB each
MARGIN = 32
"""Rows to look for beyond what is wanted: the copy knows their order nearly, but not quite."""
_STALE = 0.02  # of a filter's rows: before as many came or went, the counts by cell are good enough
_MOST_COUNTS = 64

Asked = Literal["mixtures", "variations"]
"""What queries are like: mixtures of many vectors, as a style is one of what was bought; or one vector, varied by half
of another, as a text is that means the same as a title."""

# A worker is one thread on one core; more of them would only get in each other's way.
faiss.omp_set_num_threads(1)
_faiss: Any = faiss  # whose published types know the C++ signatures only


class Cells:
    """Cells fitted to ``vectors`` float32 (N, 128), which are kept under the rows [0, N)."""

    def __init__(self, vectors: Float32, asked: Asked = "mixtures"):
        count = max(1, min(_MOST_CELLS, len(vectors) // _ROWS_PER_CELL))
        self.fitted_rows = len(vectors)
        probes = _probes(vectors, asked)
        self._scale, self._stretch = _scale(vectors), _stretch(vectors, asked)
        self._centroids = _fit(self._kept(vectors[:: max(1, len(vectors) // (count * _SAMPLE))]), count)
        self._quantizer: Any = faiss.IndexFlatL2(DNA_SIZE)
        self._quantizer.add(self._centroids)
        self._lists: Any = _faiss.IndexIVFScalarQuantizer(
            self._quantizer, DNA_SIZE, count, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        self._lists.train(self._centroids)
        self._parameters: Any = _faiss.SearchParametersIVF()
        self._selected = (0, 0)  # address and length of the bits by which rows are selected
        self._cell_of = np.full(len(vectors), -1, np.int32)
        self._counts: dict[Filters, tuple[int, NDArray[np.int64]]] = {}
        for rows in self._some(vectors):
            self._add(np.arange(rows.start, rows.stop), self._kept(vectors[rows]))
        self._norms = np.sqrt(np.vecdot(self._centroids, self._centroids))
        self._around, self._width = self._spread(vectors)
        self._reach = self._measured(vectors, probes)

    def worn(self, rows: int) -> bool:
        """Whether new cells would be better, now that there are so many rows."""
        return rows >= 2 * self.fitted_rows

    def write(self, rows: Rows, vectors: Float32) -> None:
        """Keep ``vectors`` float32 (len(rows), 128) under ``rows``, all distinct."""
        highest = int(rows.max(initial=-1))
        if highest >= len(self._cell_of):
            more = np.full(highest + 1 + highest // 8 - len(self._cell_of), -1, np.int32)
            self._cell_of = np.concatenate([self._cell_of, more])
        there = rows[self._cell_of[rows] >= 0]
        if len(there):
            self._lists.remove_ids(_faiss.IDSelectorBatch(there))
        self._add(rows, self._kept(vectors))

    def _add(self, rows: Rows, kept: Float32) -> None:
        """Put what is kept of vectors, float32 (len(rows), 128), into the lists of their cells."""
        cells = self._quantizer.search(kept, 1)[1][:, 0]
        ids, cells = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(cells, np.int64)
        self._lists.add_core(len(rows), *map(_faiss.swig_ptr, (kept, ids, cells)))
        self._cell_of[rows] = cells

    def _kept(self, vectors: Float32) -> Float32:
        """Vectors that a float16 can hold: what is longer is found all the same, if not always in its order."""
        kept: Float32 = vectors * (self._scale * self._stretch)
        return np.clip(kept, -_LARGEST, _LARGEST, out=kept)

    def _some(self, vectors: Float32) -> Iterator[slice]:
        """Rows of ``vectors``, some at a time, so that no copy of all of them is ever made."""
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            yield slice(start, min(start + _ROWS_AT_ONCE, len(vectors)))

    def nearest(self, query: Float32, k: int, allowed: Allowed) -> Rows:
        """About the best ``k`` of the rows that are allowed, in no order: all of them where fewer are."""
        found = self.nearest_many(query[None], k, allowed)[0]
        rows: Rows = found[found >= 0]
        return rows

    def nearest_many(self, queries: Float32, k: int, allowed: Allowed) -> Rows:
        """``nearest`` for each of ``queries`` float32 (B, 128), int64 (B, k): the last is -1 where fewer are allowed.

        Together they cost less than one by one: what leads to the cells is looked at once.
        """
        queries = queries / self._stretch
        scores = queries @ self._centroids.T  # (B, cells)
        self._select(allowed)
        first = self._first(scores, self._by_cell(allowed), _FIRST * k)
        found, inner = self._visit(queries, first, k)
        most = scores + self._reach * self._deviations(queries)
        most[np.arange(len(queries))[:, None], first] = -np.inf
        which, cells = np.nonzero(most > inner[:, -1:])
        if not len(which):
            return found
        more, inner_of_more = self._visit(queries, _by_query(which, cells, len(queries)), k)
        found, inner = np.concatenate([found, more], axis=1), np.concatenate([inner, inner_of_more], axis=1)
        best = np.argpartition(-inner, k - 1, axis=1)[:, :k]
        return found[np.arange(len(queries))[:, None], best]

    def _select(self, allowed: Allowed) -> None:
        """Have no other rows found. The selector reads the bits where they lie, and keeps them there."""
        bits = (allowed.bits.ctypes.data, len(allowed.bits))
        if bits != self._selected:
            self._parameters.sel = _faiss.IDSelectorBitmap(allowed.bits)
            self._selected = bits

    def _first(self, scores: Float32, by_cell: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
        """The cells (B, P) with the highest ``scores`` (B, C) of those that hold any: about so many ``rows``."""
        filled = by_cell > 0
        cells = int(np.count_nonzero(filled))
        wanted = math.ceil(rows * cells / max(1, int(by_cell.sum())))
        if wanted >= cells:
            return np.tile(np.flatnonzero(filled), (len(scores), 1))
        among = scores if cells == len(filled) else np.where(filled, scores, np.float32(-np.inf))
        return np.ascontiguousarray(np.argpartition(among, -wanted, axis=1)[:, -wanted:])

    def _visit(self, queries: Float32, cells: NDArray[np.int64], k: int) -> tuple[Rows, Float32]:
        """The best ``k`` rows int64 (B, k) in ``cells`` (B, P), -1 for none, and their inner products; best first.

        A cell of -1 is none.
        """
        inner, found = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        if not cells.shape[1]:
            return found, inner
        self._parameters.nprobe = cells.shape[1]
        arrays = map(_faiss.swig_ptr, (cells, np.zeros(cells.shape, np.float32), inner, found))
        query = _faiss.swig_ptr(queries)
        self._lists.search_preassigned_c(len(queries), query, k, *arrays, False, self._parameters)
        return found, inner

    def _spread(self, vectors: Float32) -> tuple[Float32, Float32]:
        """How what is kept lies around centroids: its covariance (128, 128), and each cell's width beside it (C)."""
        around, squares = np.zeros((DNA_SIZE, DNA_SIZE)), np.zeros(len(self._centroids))
        for rows in self._some(vectors):
            cells = self._cell_of[rows]
            apart = self._kept(vectors[rows]) - self._centroids[cells]
            around += apart.T @ apart
            squares += np.bincount(cells, np.vecdot(apart, apart), len(squares))
        around /= len(vectors)
        squares /= np.maximum(np.bincount(self._cell_of, minlength=len(squares)), 1)
        widths = np.sqrt(squares / max(float(np.trace(around)), 1e-30))
        return around.astype(np.float32), widths.astype(np.float32)

    def _deviations(self, queries: Float32) -> Float32:
        """The standard deviation of inner products with ``queries`` float32 (B, 128) within each cell (B, C).

        Not less than what rounding to 16 bits makes of them.
        """
        along = np.sqrt(np.maximum(np.vecdot(queries @ self._around, queries), 0.0))
        rounded = np.float32(_ROUNDING) * np.sqrt(np.vecdot(queries, queries))
        deviations: Float32 = np.maximum(along[:, None] * self._width, rounded[:, None] * self._norms)
        return deviations

    def _measured(self, vectors: Float32, probes: _Probes) -> np.float32:
        """By how many deviations the best may exceed their centroid, so that ``_RECALL`` of them are met."""
        queries = probes.queries / self._stretch
        cells = self._cell_of[probes.best].astype(np.int64)
        worst = np.vecdot(self._kept(vectors[probes.best]), queries[:, None]).min(axis=1, keepdims=True)
        short = worst - np.take_along_axis(queries @ self._centroids.T, cells, axis=1)
        deviations = np.take_along_axis(self._deviations(queries), cells, axis=1)
        return np.float32(_SAFETY * max(1.0, float(np.quantile(short / np.maximum(deviations, 1e-30), _RECALL))))

    def _by_cell(self, allowed: Allowed) -> NDArray[np.int64]:
        """How many allowed rows each cell holds, or held a while ago."""
        if allowed.filters is None:
            return self._count(allowed)
        changes, by_cell = self._counts.get(allowed.filters, (0, None))
        if by_cell is None or allowed.changes - changes > _STALE * allowed.size:
            by_cell = self._count(allowed)
            self._counts.pop(allowed.filters, None)
            if len(self._counts) >= _MOST_COUNTS:
                self._counts.pop(next(iter(self._counts)))
            self._counts[allowed.filters] = allowed.changes, by_cell
        return by_cell

    def _count(self, allowed: Allowed) -> NDArray[np.int64]:
        return np.bincount(self._cell_of[allowed.rows], minlength=len(self._centroids))


def _by_query(which: NDArray[np.int64], cells: NDArray[np.int64], queries: int) -> NDArray[np.int64]:
    """``cells`` of the queries ``which``, ascending, as one row for each of ``queries``, filled up with -1."""
    if queries == 1:
        return np.ascontiguousarray(cells)[None]
    counts = np.bincount(which, minlength=queries)
    keys = np.full((queries, int(counts.max())), -1, np.int64)
    keys[which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)] = cells
    return keys


def _scale(vectors: Float32) -> np.float32:
    """What makes a component 1 in the root mean square."""
    usual = float(np.sqrt(np.mean(np.square(vectors[:: max(1, len(vectors) // 4_096)], dtype=np.float64))))
    return np.float32(1.0 / usual) if usual > 0 else np.float32(1.0)


def _stretch(vectors: Float32, asked: Asked) -> Float32:
    """By what components are multiplied before cells are made, float32 (128): queries are divided by it.

    Inner products stay the same, but what lies near what does not. What an article sold varies little beside other
    components of Fashion DNA, and styles weigh it some forty times as much: stretched until it varies more than they
    do, it tells cells apart, so that those with best sellers are few and visited first. Where it is no popularity,
    which is told by that it varies as others do, it stays.
    """
    stretch = np.ones(DNA_SIZE, np.float32)
    if asked == "mixtures":
        some = vectors[:: max(1, len(vectors) // 4_096)].astype(np.float64)
        usual, popularity = float(np.sqrt(np.mean(np.square(some)))), float(np.std(some[:, POPULARITY]))
        if 0 < popularity < _VARIES_LITTLE * usual:
            stretch[POPULARITY] = min(_STRETCHED * usual / popularity, _MOST_STRETCHED)
    return stretch


class _Probes(NamedTuple):
    """Queries float32 (Q, 128) like those to come, and the rows int64 (Q, ``_BEST``) that are best for each."""

    queries: Float32
    best: Rows


def _probes(vectors: Float32, asked: Asked) -> _Probes:
    rng = np.random.default_rng(1)
    queries = np.concatenate([_queries(vectors, asked, _AT_ONCE, rng) for _ in range(0, _QUERIES, _AT_ONCE)])
    count = min(_BEST, len(vectors))
    best = [np.argpartition(-scores, count - 1)[:count] for scores in _by_and_by(queries, vectors)]
    return _Probes(queries, np.array(best, np.int64))


def _by_and_by(queries: Float32, vectors: Float32) -> Iterator[Float32]:
    """The inner products of each query with all vectors, float32 (N), with little memory at a time."""
    for start in range(0, len(queries), _AT_ONCE):
        yield from queries[start : start + _AT_ONCE] @ vectors.T


def _queries(vectors: Float32, asked: Asked, count: int, rng: np.random.Generator) -> Float32:
    """Queries float32 (count, 128) like those that ``vectors`` are searched for."""
    if asked == "mixtures":
        weights = rng.standard_normal((count, _MIXED), dtype=np.float32)
    else:
        weights = np.tile(np.array([1.0, 0.5], np.float32), (count, 1))
    mixed: Float32 = np.einsum("qm,qmd->qd", weights, vectors[rng.integers(len(vectors), size=weights.shape)])
    return mixed


def _fit(vectors: Float32, count: int) -> Float32:
    """The centroids float32 (count, 128) of k-means."""
    means = faiss.Kmeans(
        DNA_SIZE, count, niter=_ROUNDS, seed=1, min_points_per_centroid=1, max_points_per_centroid=4 * _SAMPLE
    )
    means.train(vectors)
    return np.asarray(means.centroids, np.float32)
