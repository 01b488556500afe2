"""The plane: what lies close on it is alike, and what all articles share does not count."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.popularity import POPULARITY
from service.lookbook.article_map import Plane, clusters_of

RNG = np.random.default_rng(0)


def groups(number: int = 3, each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """DNA float32 (N, 128) of ``number`` groups around middles of their own, and which group each is of."""
    middles = RNG.normal(size=(number, 128))
    group = np.repeat(np.arange(number), each)
    dna = middles[group] + 0.1 * RNG.normal(size=(len(group), 128)) + 3.0
    return dna.astype(np.float32), group


def test_groups_stay_together_and_apart() -> None:
    dna, group = groups()
    plane = Plane(dna)
    places = plane.places(dna)
    middles = np.stack([places[group == each].mean(axis=0) for each in range(3)])
    nearest = np.argmin(((places[:, None] - middles) ** 2).sum(axis=2), axis=1)
    assert nearest.tolist() == group.tolist()
    assert np.abs(places).max() == pytest.approx(1.0)
    assert 0.9 < sum(plane.explained) <= 1.0 + 1e-6


def test_a_style_points_to_what_it_ranks_first() -> None:
    dna, group = groups()
    plane = Plane(dna)
    places = plane.places(dna)
    for each in range(3):
        wanted = dna[group == each].mean(axis=0) - dna.mean(axis=0)
        assert (group[np.argsort(-(dna @ wanted))[:40]] == each).all()
        (style,) = plane.places(wanted[None].astype(np.float32))
        nearest = np.argmin(((places - style) ** 2).sum(axis=1))
        assert group[nearest] == each


def test_neither_length_nor_popularity_moves_an_article() -> None:
    dna, _ = groups()
    plane = Plane(dna)
    other = 2.5 * dna
    other[:, POPULARITY] = RNG.normal(size=len(dna))
    np.testing.assert_allclose(plane.places(other), plane.places(dna), atol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_few_articles_and_equal_ones_have_places_too(number: int) -> None:
    dna = RNG.normal(size=(number, 128)).astype(np.float32)
    for table in (dna, np.ones_like(dna), np.zeros_like(dna)):
        plane = Plane(table)
        places = plane.places(table)
        assert np.isfinite(places).all()
        clusters, member = clusters_of(places, {"category": ["dress"] * number, "brand": [None] * number})
        assert sum(cluster.articles for cluster in clusters) == number
        assert len(member) == number


def test_clusters_are_called_what_tells_them_from_the_others() -> None:
    dna, group = groups(2, 40)
    places = Plane(dna).places(dna)
    facets = {
        "category": ["dress" if each == 0 else "coat" for each in group],
        "colour": ["red"] * len(group),  # which tells nothing
        "brand": [("Aster", "Birch")[each] if place % 2 else None for place, each in enumerate(group)],
    }
    clusters, member = clusters_of(places, facets)
    for number, cluster in enumerate(clusters):
        ((kind, brand),) = {(("dress", "Aster"), ("coat", "Birch"))[each] for each in group[member == number]}
        assert set(cluster.label.split(", ")) <= {kind, brand}
        assert kind in cluster.label
        assert abs(cluster.x) <= 1


def test_the_same_articles_give_the_same_map() -> None:
    dna, _ = groups()
    facets = {"category": ["x"] * len(dna)}
    first, again = (clusters_of(Plane(dna).places(dna), facets) for _ in range(2))
    assert first[0] == again[0]
    assert first[1].tolist() == again[1].tolist()
