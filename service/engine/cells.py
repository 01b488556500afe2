"""Vectors in cells: what lies near each other lies together, so that a search looks only where it pays.

An inverted file (Jégou, Douze & Schmid 2011, "Product quantization for nearest neighbor search", §IV, without the
product quantisation): k-means makes the cells, FAISS keeps a 16-bit copy of every vector in the list of its cell. A
search visits cells in order of their centroid's inner product with the query, until it has met enough rows that are
allowed. How many are enough is measured when the cells are made: the best rows of queries that spread at least as much
as those to come (``Asked``) are looked up exactly. Where vectors do not lie in heaps, nearly all rows have to be met:
that is slow, but never wrong.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from service.engine.allowed import Allowed
from service.engine.arrays import Float32, Rows
from service.engine.filters import Filters

_MOST_CELLS, _ROWS_PER_CELL = 1_024, 256
_ROUNDS = 6  # of k-means: more hardly change which rows are found
_SAMPLE = 48  # rows a cell that k-means looks at
_LARGEST = 6e4  # a float16 holds no larger component; usual ones are made about 1
_QUERIES, _MIXED = 64, 200  # that tell how many rows are enough, and vectors that a mixture is made of
_BEST, _RECALL, _SAFETY = (
    100,
    0.998,
    1.25,
)  # of so many best, this share is to be found; and some more for other queries
_AT_ONCE = 8  # queries: 1.5 MB of scores for each and 190,000 rows
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
        self._scale = _scale(vectors)
        self._centroids = _fit(self._scaled(vectors), count)
        self._quantizer: Any = faiss.IndexFlatL2(DNA_SIZE)
        self._quantizer.add(self._centroids)
        self._lists: Any = _faiss.IndexIVFScalarQuantizer(
            self._quantizer, DNA_SIZE, count, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        self._lists.train(self._centroids)
        self._cell_of = np.full(len(vectors), -1, np.int32)
        self._counts: dict[Filters, tuple[int, NDArray[np.int64]]] = {}
        self.write(np.arange(len(vectors)), vectors)
        self.enough = self._measured(vectors, asked)

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
        kept = self._scaled(vectors)
        cells = self._quantizer.search(kept, 1)[1][:, 0]
        ids, cells = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(cells, np.int64)
        self._lists.add_core(len(rows), *map(_faiss.swig_ptr, (kept, ids, cells)))
        self._cell_of[rows] = cells

    def _scaled(self, vectors: Float32) -> Float32:
        """Vectors that a float16 can hold: what is longer is found all the same, if not always in its order."""
        scaled: Float32 = np.clip(vectors * self._scale, -_LARGEST, _LARGEST)
        return scaled

    def nearest(self, query: Float32, k: int, allowed: Allowed) -> Rows:
        """About the best ``k`` of the rows that are allowed, in no order: all of them where fewer are."""
        scores = self._centroids @ query
        order = np.argsort(-scores)
        reached = np.cumsum(self._by_cell(allowed)[order])
        visited = order[: int(np.searchsorted(reached, self._enough_for(k, allowed))) + 1]
        visited, reached = np.ascontiguousarray(visited, np.int64), np.ascontiguousarray(scores[visited])
        parameters = _faiss.SearchParametersIVF(sel=_faiss.IDSelectorBitmap(allowed.bits), nprobe=len(visited))
        inner, found = np.empty(k, np.float32), np.empty(k, np.int64)
        arrays = map(_faiss.swig_ptr, (visited, reached, inner, found))
        self._lists.search_preassigned_c(1, _faiss.swig_ptr(query), k, *arrays, False, parameters)
        rows: Rows = found[found >= 0]
        return rows

    def _enough_for(self, k: int, allowed: Allowed) -> int:
        """Allowed rows to meet: more for long answers, fewer through a narrow filter, whose best lie further apart.

        Of n rows that pass by chance, the best k are as far apart as the best k · N / n of all N: by the square roots
        of both, a share of 1 / √(N / n) of what all would need is met, in √(N / n) times as many cells.
        """
        return math.ceil(self.enough * math.sqrt(max(1.0, k / _BEST) * allowed.size / self._lists.ntotal))

    def _measured(self, vectors: Float32, asked: Asked) -> int:
        """Rows to meet so that of the best for queries like those to come, ``_RECALL`` are met."""
        rng = np.random.default_rng(1)
        by_cell = np.bincount(self._cell_of, minlength=len(self._centroids))
        best = min(_BEST, len(vectors))
        needed: list[NDArray[np.int64]] = []
        for _ in range(0, _QUERIES, _AT_ONCE):
            queries = _queries(vectors, asked, _AT_ONCE, rng)
            for query, scores in zip(queries, queries @ vectors.T, strict=True):
                rows = np.argpartition(-scores, best - 1)[:best]
                order = np.argsort(-(self._centroids @ query))
                reached = np.empty(len(order), np.int64)
                reached[order] = np.cumsum(by_cell[order])
                needed.append(reached[self._cell_of[rows]])
        return math.ceil(_SAFETY * float(np.quantile(np.concatenate(needed), _RECALL)))

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


def _scale(vectors: Float32) -> np.float32:
    """What makes a component 1 in the root mean square."""
    usual = float(np.sqrt(np.mean(np.square(vectors[:: max(1, len(vectors) // 4_096)], dtype=np.float64))))
    return np.float32(1.0 / usual) if usual > 0 else np.float32(1.0)


def _queries(vectors: Float32, asked: Asked, count: int, rng: np.random.Generator) -> Float32:
    """Queries float32 (count, 128) like those that ``vectors`` are searched for."""
    if asked == "mixtures":
        weights = rng.standard_normal((count, _MIXED), dtype=np.float32)
    else:
        weights = np.tile(np.array([1.0, 0.5], np.float32), (count, 1))
    mixed: Float32 = np.einsum("qm,qmd->qd", weights, vectors[rng.integers(len(vectors), size=weights.shape)])
    return mixed


def _fit(vectors: Float32, count: int) -> Float32:
    """The centroids float32 (count, 128) of k-means over a sample."""
    sample = vectors[:: max(1, len(vectors) // (count * _SAMPLE))]
    means = faiss.Kmeans(
        DNA_SIZE, count, niter=_ROUNDS, seed=1, min_points_per_centroid=1, max_points_per_centroid=4 * _SAMPLE
    )
    means.train(sample)
    return np.asarray(means.centroids, np.float32)
