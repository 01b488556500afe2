from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from bundles import sample_contents
from safetensors.numpy import load_file, save_file
from small_runs import make_run
from tiny_shops import DAY, START, tiny_shop

import modiste
from model_store import golden
from model_store.article_features import ArticleEncoder, article_fingerprint, decode_image
from model_store.article_table import OffsetTable, load_articles, load_offset
from model_store.bundle import ARTICLE_DNA, REPORT, Bundle, current_version, open_bundle, versions
from model_store.dataset import DataSet
from model_store.errors import InvalidBundle, InvalidConfig
from model_store.golden import GoldenCases
from model_store.graphs import encode_articles, open_graphs
from model_store.popularity import POPULARITY
from offline.bundling import Contents, write_bundle
from offline.export import default_version, export, gather
from offline.identity import run_digest
from offline.progress import Silent
from offline.run import Run

CUTOFF = START + 50 * DAY
CREATED = "2026-05-28T20:26:40Z"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=30, customers=40, days=60, pictures=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shop: DataSet) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "tiny", shop, CUTOFF)
    tables = {"all": {}, "decile_1": {"slice": "popularity"}}
    run.save_json("evaluation", {"digest": run_digest(run), "tables": tables, "roc": {}, "learning": {}})
    run.save_text("evaluation.html", "<!doctype html><title>é</title>")
    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, shop: DataSet, run: Run) -> Bundle:
    store = tmp_path_factory.mktemp("store")
    return export(run, shop, store, "v1", created=CREATED, progress=Silent())


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle) -> Path:
    """A store of one's own, where v1 is live."""
    return Path(shutil.copytree(bundle.folder.parent, tmp_path / "store"))


def test_an_exported_bundle_is_live_and_sound(bundle: Bundle) -> None:
    assert current_version(bundle.folder.parent) == "v1"
    golden.check(open_bundle(bundle.folder))


def test_the_manifest_tells_where_the_bundle_comes_from(bundle: Bundle, shop: DataSet, run: Run) -> None:
    manifest = bundle.manifest
    card, known = manifest.data_set, shop.purchases(known_at=CUTOFF)
    assert (card.name, card.fingerprint, card.cutoff) == ("tiny", shop.fingerprint, CUTOFF)
    assert (card.articles, card.customers, card.purchases) == (30, len(known.customer_ids), len(known))
    assert manifest.created == CREATED
    assert manifest.image_encoder == "untrained, for tests"
    assert manifest.blend.trend == 0.5
    assert manifest.metrics == {"digest": manifest.metrics["digest"], "tables": {"all": {}}}
    assert manifest.config["seed"] == 0
    assert set(manifest.parameters) == {"image_encoder", "fashion_dna", "style_lstm", "static"}
    assert 0 < manifest.parameters["style_lstm"] < 1_000_000
    assert set(manifest.parity) == {"image_encoder", "fashion_dna", "style_lstm", "article_table"}
    assert max(manifest.parity.values()) <= 1e-4


def test_an_evaluation_of_an_earlier_training_is_left_out(tmp_path: Path, shop: DataSet, run: Run) -> None:
    trained_again = make_run(tmp_path / "run", shop, CUTOFF, seed=1)
    trained_again.save_json("evaluation", run.load_json("evaluation"))
    trained_again.save_text("evaluation.html", "<!doctype html>")
    contents = gather(trained_again, shop, "v1", created=CREATED, progress=Silent())
    assert contents.manifest.metrics == {}
    assert contents.report is None


def test_the_bundle_holds_the_evaluations_report_for_people(bundle: Bundle) -> None:
    assert bundle.path(REPORT).read_text(encoding="utf-8") == "<!doctype html><title>é</title>"
    assert REPORT in bundle.manifest.files


def test_every_article_can_be_encoded_again_as_it_stands_in_the_table(bundle: Bundle, shop: DataSet) -> None:
    ids, fingerprints, dna = load_articles(bundle)
    articles = list(shop.articles())
    images = [shop.image(article) for article in articles]
    assert ids == shop.article_ids
    assert fingerprints == [article_fingerprint(*pair) for pair in zip(articles, images, strict=True)]
    spec = bundle.manifest.article_spec
    decoded = [None if image is None else decode_image(image, spec) for image in images]
    found = encode_articles(open_graphs(bundle), ArticleEncoder(spec), articles, decoded)
    np.testing.assert_allclose(found, dna, atol=1e-4)


def test_golden_cases_cover_what_can_be_missing(bundle: Bundle) -> None:
    cases = GoldenCases.model_validate_json(bundle.path("golden.json").read_bytes())
    articles = [(case.article, case.image) for case in cases.articles]
    assert any(image is not None and article.price is not None for article, image in articles)
    assert any(image is None for _, image in articles)
    assert any(article.price is None for article, _ in articles)
    assert any(article.brand is None for article, _ in articles)
    sizes = sorted(len(case.purchases) for case in cases.customers)
    assert sizes[0] == 0
    assert sizes[-1] >= 5
    assert {case.read_time for case in cases.customers} == {CUTOFF}
    assert all(purchase.timestamp < CUTOFF for case in cases.customers for purchase in case.purchases)


def test_golden_cases_name_no_customer(bundle: Bundle, shop: DataSet) -> None:
    text = bundle.path("golden.json").read_text()
    assert not any(f'"{customer}"' in text for customer in shop.purchases().customer_ids)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_run_of_other_data_is_refused(tmp_path: Path, run: Run) -> None:
    other = tiny_shop(tmp_path / "other", articles=20, customers=10, days=60)
    with pytest.raises(InvalidConfig, match="trained on 'tiny' with other content"):
        export(run, other, tmp_path / "store", "v1", created=CREATED, progress=Silent())
    assert versions(tmp_path / "store") == []


def test_an_incomplete_run_is_refused(tmp_path: Path, shop: DataSet) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF)
    (run.folder / "style_lstm.safetensors").unlink()
    with pytest.raises(InvalidConfig, match=r"style_lstm\.safetensors does not exist: the run is not complete"):
        export(run, shop, tmp_path / "store", "v1", created=CREATED, progress=Silent())


def shifted_table(contents: Contents) -> Contents:
    catalogue = contents.catalogue
    return replace(contents, catalogue=replace(catalogue, dna=catalogue.dna + np.float32(2e-4)))


def test_what_articles_sold_is_in_the_table_alone(tmp_path: Path, shop: DataSet) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF, popularity=True)
    bundle = export(run, shop, tmp_path / "store", "v1", created=CREATED, progress=Silent())
    assert bundle.manifest.newcomer_popularity == 0.5
    ids, _, dna = load_articles(bundle)
    component = run.load_arrays("popularity")["cutoff"]
    assert dna[:, POPULARITY].tolist() == component.tolist()
    assert ids == shop.article_ids
    assert component.max() > 0
    assert not run.load_arrays("article_dna")["dna"][:, POPULARITY].any()


@pytest.mark.parametrize("popularity", [False, True])
def test_offsets_are_in_the_table_and_by_themselves(tmp_path: Path, shop: DataSet, popularity: bool) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF, popularity=popularity, offsets=True)
    bundle = export(run, shop, tmp_path / "store", "v1", created=CREATED, progress=Silent())
    assert bundle.manifest.article_offsets
    offset = load_offset(bundle)
    assert offset is not None
    np.testing.assert_array_equal(offset, run.load_arrays("article_offsets")["offset"])
    ids, _, dna = load_articles(bundle)
    expected = run.load_arrays("article_dna")["dna"] + offset
    np.testing.assert_array_equal(dna[:, :127], expected[:, :127])
    table = OffsetTable(bundle)
    np.testing.assert_array_equal(table.of(ids[3]), offset[3])
    assert not table.of("never seen").any()
    plain = make_run(tmp_path / "plain", shop, CUTOFF)
    other = export(plain, shop, tmp_path / "store", "v2", created=CREATED, progress=Silent())
    assert load_offset(other) is None


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, shop: DataSet) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF, offsets=True)
    bundle = export(run, shop, tmp_path / "store", "v1", created=CREATED, progress=Silent())
    arrays = load_file(bundle.path(ARTICLE_DNA))
    for offset, why in (
        (arrays["offset"][:5], "do not fit"),
        (arrays["offset"] * np.nan, "do not fit"),
        (None, "cannot be read"),
    ):
        save_file({"dna": arrays["dna"]} | ({} if offset is None else {"offset": offset}), bundle.path(ARTICLE_DNA))
        with pytest.raises(InvalidBundle, match=f"the offsets in {ARTICLE_DNA} {why}"):
            load_offset(bundle)


def test_what_does_not_compute_alike_is_not_published(store: Path) -> None:
    contents = shifted_table(sample_contents(version="v2"))
    with pytest.raises(InvalidBundle, match=r"article_table: .* differ by 0\.0002, over 0\.0001; nothing is published"):
        write_bundle(store, contents)
    assert {path.name for path in store.iterdir()} == {"v1", "CURRENT", ".lock"}
    assert current_version(store) == "v1"


# --- the command -------------------------------------------------------------------------------------------------


def test_the_default_version_is_a_time_and_a_hash(run: Run, tmp_path: Path, shop: DataSet) -> None:
    now = datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC)
    version = default_version(run, now)
    assert re.fullmatch("20260528-202640-[0-9a-f]{6}", version)
    assert default_version(make_run(tmp_path / "other", shop, CUTOFF, seed=1), now) != version


def test_the_command_publishes_to_the_store_of_the_environment(
    tmp_path: Path, shop: DataSet, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODISTE_STORE", str(tmp_path / "store"))
    assert modiste.main(["export", "--run", str(run.folder), "--data", str(shop.folder)]) == 0
    [version] = versions(tmp_path / "store")
    assert current_version(tmp_path / "store") == version
    assert version in capsys.readouterr().out


def test_the_command_needs_a_run_or_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert modiste.main(["export"]) == 1
    assert "name the run by --run DIR" in capsys.readouterr().err


def test_a_kill_in_the_middle_leaves_the_store_as_it_was(store: Path, shop: DataSet, run: Run) -> None:
    command = ["export", "--run", str(run.folder), "--data", str(shop.folder), "--store", str(store)]
    root = Path(modiste.__file__).parent
    with subprocess.Popen(
        [sys.executable, str(root / "modiste.py"), *command, "--version", "v2"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
    ) as exporter:
        while not any(store.glob(".stage-*/*.onnx")):
            assert exporter.poll() is None
            time.sleep(0.01)
        exporter.send_signal(signal.SIGKILL)
    assert versions(store) == ["v1"]
    assert current_version(store) == "v1"
    golden.check(open_bundle(store / "v1"))
