from __future__ import annotations

from pathlib import Path

import numpy as np
from small_runs import make_run
from tiny_shops import DAY, START, tiny_shop

from offline.progress import Silent
from offline.studies.subsets import only_articles
from offline.studies.transfer import transferred


def test_articles_of_another_catalogue_are_encoded_as_the_runs_own(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=20, customers=40, pictures=True)
    run = make_run(tmp_path / "run", data, START + 110 * DAY)
    chosen = np.arange(20) % 3 == 0
    part = only_articles(data, chosen, tmp_path / "part", "every third")
    moved = transferred(run, data, part, tmp_path / "moved", Silent())
    dna = run.load_arrays("article_dna")["dna"]
    np.testing.assert_allclose(moved.load_arrays("article_dna")["dna"], dna[chosen], atol=1e-5)
    assert moved.existing("style_lstm.safetensors").samefile(run.folder / "style_lstm.safetensors")
    np.testing.assert_array_equal(run.load_arrays("article_dna")["dna"], dna)


def test_what_was_transferred_is_not_made_again_unless_the_run_is_another(tmp_path: Path) -> None:
    data = tiny_shop(tmp_path / "shop", articles=20, customers=40)
    run = make_run(tmp_path / "run", data, START + 110 * DAY)
    out = tmp_path / "moved"
    first = transferred(run, data, data, out, Silent()).existing("article_dna.safetensors").stat().st_ino
    assert transferred(run, data, data, out, Silent()).existing("article_dna.safetensors").stat().st_ino == first
    other = make_run(tmp_path / "other", data, START + 110 * DAY, seed=1)
    moved = transferred(other, data, data, out, Silent())
    np.testing.assert_allclose(
        moved.load_arrays("article_dna")["dna"], other.load_arrays("article_dna")["dna"], atol=1e-5
    )
