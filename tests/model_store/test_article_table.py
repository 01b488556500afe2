from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle

from model_store.article_table import load_articles, sample_dna, write_articles
from model_store.bundle import Bundle
from model_store.errors import InvalidBundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "store", version="v1")


def test_ids_fingerprints_and_dna_belong_together(bundle: Bundle) -> None:
    ids, fingerprints, dna = load_articles(bundle)
    assert (len(ids), len(set(fingerprints)), dna.shape, dna.dtype) == (60, 60, (60, 128), np.float32)


FAULTS = [
    (["a", "a"], ["x", "y"], np.zeros((2, 128)), "names an article twice"),
    (["a", "b"], ["x"], np.zeros((2, 128)), "2 article ids, 1 fingerprints"),
    (["a", "b"], ["x", "y"], np.zeros((1, 128)), "do not belong together"),
    (["a", "b"], ["x", "y"], np.zeros((2, 64)), "do not belong together"),
    (["a", "b"], ["x", "y"], np.full((2, 128), np.nan), "not finite"),
]


@pytest.mark.parametrize(("ids", "fingerprints", "dna", "message"), FAULTS)
def test_tables_that_do_not_fit_are_refused(bundle: Bundle, ids, fingerprints, dna, message: str) -> None:
    write_articles(bundle.folder, ids, fingerprints, dna)
    with pytest.raises(InvalidBundle, match=message):
        load_articles(bundle)


def test_unreadable_tables_are_refused(bundle: Bundle) -> None:
    bundle.path("articles.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InvalidBundle, match="cannot be read"):
        load_articles(bundle)


@pytest.mark.parametrize("most", [1, 7, 60, 100])
def test_a_sample_is_even_and_no_more_than_there_is(bundle: Bundle, most: int) -> None:
    dna = load_articles(bundle)[2]
    rows = np.linspace(0, 59, min(most, 60)).astype(int)
    np.testing.assert_array_equal(sample_dna(bundle, most), dna[rows])
    bundle.path("articles.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InvalidBundle, match="cannot be read"):
        sample_dna(bundle, most)
