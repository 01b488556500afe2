"""Fashion DNA on a plane: where articles lie, in which clusters, and where a style points.

What all articles have in common ranks nothing, so their mean direction is taken out, of articles and of styles alike;
what is left is scaled to length 1, and the plane is that of the two principal components of some articles.
Popularity, which changes with every bundle, is left out. So two articles lie close where f·d can hardly tell them
apart, as far as two components can say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from model_store import DNA_SIZE
from model_store.popularity import POPULARITY

Float32 = NDArray[np.float32]

CLUSTERS = 8
_FEWEST_EACH = 4  # articles that a cluster stands for, on average
_ROUNDS = 25
_SEED = 1
_SHARE = 0.3  # of a cluster's articles that a value is to be told of


@dataclass(frozen=True)
class Cluster:
    """Articles that lie together: what tells them from the others, where their middle lies, how many they are."""

    label: str
    x: float
    y: float
    articles: int


class Plane:
    """A projection of Fashion DNA, fitted to ``dna`` float32 (N, 128) of N ≥ 1 articles.

    ``explained``: the share of what articles differ in that each axis shows.
    """

    def __init__(self, dna: Float32):
        content = _content(dna)
        self._common = _unit(_unit(content).mean(axis=0, keepdims=True))  # (1, 128)
        different = self._directions(content)
        self._middle = different.mean(axis=0, keepdims=True)
        _, spread, axes = np.linalg.svd(different - self._middle, full_matrices=False)
        axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]  # either sign would do
        self._axes = np.zeros((2, DNA_SIZE), np.float32)
        self._axes[: min(2, len(axes))] = axes[:2]
        total = float((spread**2).sum()) or 1.0
        self.explained = [float(each**2) / total for each in (*spread, 0.0, 0.0)[:2]]
        self._scale = float(np.abs((different - self._middle) @ self._axes.T).max()) or 1.0

    def places(self, vectors: Float32) -> Float32:
        """Where articles lie or styles point, float32 (N, 2): within -1 … 1 for the articles it was fitted to."""
        places: Float32 = (self._directions(_content(vectors)) - self._middle) @ self._axes.T / self._scale
        return places

    def _directions(self, content: Float32) -> Float32:
        """Unit vectors, float32 (N, 128), without what all articles have in common."""
        return _unit(content - (content @ self._common.T) * self._common)


def clusters_of(places: Float32, facets: Mapping[str, Sequence[str | None]]) -> tuple[list[Cluster], NDArray[np.int64]]:
    """Clusters of N articles by k-means over their ``places`` float32 (N, 2), and which each is in, int64 (N).

    ``facets``: by name, what each of them is (N).
    """
    points = np.ascontiguousarray(places, np.float32)
    k = min(CLUSTERS, max(1, len(points) // _FEWEST_EACH))
    means = faiss.Kmeans(points.shape[1], k, niter=_ROUNDS, seed=_SEED, min_points_per_centroid=1)
    means.train(points)
    member = np.asarray(means.index.search(points, 1)[1][:, 0], np.int64)
    members = [np.flatnonzero(member == number) for number in range(k)]
    clusters = []
    for rows in members:
        x, y = points[rows].mean(axis=0).tolist() if len(rows) else (0.0, 0.0)
        clusters.append(Cluster(_label(facets, rows), x, y, len(rows)))
    return clusters, member


def _label(facets: Mapping[str, Sequence[str | None]], rows: NDArray[np.int64]) -> str:
    """What tells these ``rows`` from all others: up to two values, of different facets."""
    told = [_telling(values, rows) for values in facets.values()] if len(rows) else []
    best, *others = sorted((each for each in told if each is not None), reverse=True) or [_Value(False, 0.0, "")]
    return ", ".join([best.value, *(other.value for other in others[:1] if other.common and other.tells > 0)])


class _Value(NamedTuple):
    """Of a facet, the value that tells most: whether enough have it, and by how much more often than elsewhere."""

    common: bool
    tells: float
    value: str


def _telling(values: Sequence[str | None], rows: NDArray[np.int64]) -> _Value | None:
    """The value with the highest share · log(share / share of all); None where ``rows`` have none."""
    everywhere, here = Counter(values), Counter(values[row] for row in rows.tolist())
    known = [
        _Value(
            count >= _SHARE * len(rows), count / len(rows) * _lift(count, len(rows), everywhere[value], values), value
        )
        for value, count in here.items()
        if value is not None
    ]
    return max(known, key=lambda each: (each.tells, each.common, each.value), default=None)


def _lift(count: int, rows: int, everywhere: int, values: Sequence[str | None]) -> float:
    return math.log(count * len(values) / (rows * everywhere))


def _content(vectors: Float32) -> Float32:
    content = np.array(vectors, np.float32)
    content[:, POPULARITY] = 0.0
    return content


def _unit(vectors: Float32) -> Float32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit
