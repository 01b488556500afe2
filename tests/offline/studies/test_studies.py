"""Each study, from the command to its page, on a shop of a few articles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from study_shops import BOTH, STYLE, small_shop, study, workshop, write_settings
from tiny_clip import tiny_clip
from tiny_shops import tiny_shop

import modiste
from model_store.bundle import open_bundle
from model_store.dataset import DataSet
from model_store.generation import load_ids, load_memory
from offline.commands.study import NAMES
from offline.run import FOLDER, Run
from offline.studies.comparing import Sampling
from offline.studies.every import STUDIES
from offline.studies.study import Request
from offline.studies.writing import Writings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=60)


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_settings(tmp_path_factory.mktemp("settings") / "style.toml", STYLE)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert modiste.main(["study", *arguments]) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told.rpartition("\r")[2]
    return told


def figures(found: dict[str, Any]) -> set[str]:
    """All numbers of study.json's tables, as reports print them."""
    estimates = [
        one
        for table in found["tables"]
        for rows in (table["models"], table["differences"])
        for row in rows.values()
        for one in row.values()
    ]
    values = [part for one in estimates for part in one.values() if part is not None]
    counts = [table[name] for table in found["tables"] for name in ("purchases", "customers")]
    return {f"{abs(round(100 * value, 2)) + 0.0:.2f}" for value in values} | {f"{count:,}" for count in counts}


def told_from_tables(found: dict[str, Any]) -> bool:
    return set(re.findall(r"\d[\d,]*\.\d\d\b", found["finding"])) <= figures(found)


def test_the_command_knows_all_studies() -> None:
    assert set(NAMES) == set(STUDIES)


def test_losses_share_everything_but_the_lstm(tiny: DataSet, style: Path, out: Path) -> None:
    found = study("losses", tiny, out, style)
    [table, *_] = found["tables"]
    names = [f"{loss}, n = {n}" for loss in ("rank", "sigmoid", "softmax") for n in (5, 20, 50)]
    assert list(table["models"])[2:] == names
    assert all(f"{name} - rank, n = 20" in table["differences"] for name in table["models"] if name != "rank, n = 20")
    assert told_from_tables(found)
    runs = [Run(folder) for folder in sorted((out / "runs").iterdir())]
    assert len(runs) == 9
    assert len({run.existing("article_dna.safetensors").stat().st_ino for run in runs}) == 1
    assert len({run.existing("style_lstm.safetensors").read_bytes() for run in runs}) == 9
    for name in ("study.html", "study.md"):
        assert "rank, n = 50" in (out / "losses" / name).read_text(encoding="utf-8")
    assert len(list((out / "losses" / "figures").iterdir())) > 3


def test_a_study_that_was_conducted_goes_on_where_it_was(tiny: DataSet, style: Path, out: Path) -> None:
    before_it = orjson.loads((out / "losses/study.json").read_bytes())
    stages = list((out / "runs").glob("*/stages/*.json"))
    before = {path: path.stat().st_mtime_ns for path in stages}
    (out / "runs/loss-rank-5/stages/style_lstm.json").unlink()
    again = study("losses", tiny, out, style)
    after = {path for path in stages if path.stat().st_mtime_ns != before[path]}
    assert {path.relative_to(out / "runs").parts[0] for path in after} == {"loss-rank-5"}
    assert again["tables"] == before_it["tables"]


def test_low_resource_of_the_style_half_alone(tiny: DataSet, style: Path, out: Path) -> None:
    found = study("low-resource", tiny, out, style)
    assert told_from_tables(found)
    [table] = found["tables"]
    assert "style, 100%" in table["models"]
    trained = {share: set(Run(out / f"runs/share-{share}").load_json("static_customers")) for share in (20, 50)}
    assert trained[20] <= trained[50]


def test_low_resource_by_the_last_orders(tiny: DataSet, tmp_path: Path) -> None:
    settings = write_settings(tmp_path / "last.toml", {**STYLE, "split": {"hold_out": "last_order"}})
    [table] = study("low-resource", tiny, tmp_path / "out", settings)["tables"]
    whole, half = (Run(tmp_path / "out/runs" / name) for name in ("full", "share-50"))
    assert half.load_json("split")["hold_out"] == "last_order"
    assert table["candidates"] == len(tiny.article_ids)
    assert set(half.load_json("static_customers")) < set(whole.load_json("static_customers"))


def test_cold_start_needs_something_new(
    tiny: DataSet, style: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = failing(capsys, "cold-start", "--data", str(tiny.folder), "--out", str(out), "--config", str(style))
    assert "nothing was bought that training had not seen" in told


def test_zero_shot_of_the_style_half_alone(tiny: DataSet, style: Path, out: Path) -> None:
    found = study("zero-shot", tiny, out, style, "--group", "coats=coat", "--group", "dresses=dress")
    [table] = found["tables"]
    assert table["title"].startswith("dresses: ")
    assert table["candidates"] == 20
    assert table["models"]["chance"]["recall_10"]["value"] == pytest.approx(0.5)
    assert table["models"]["chance"]["auc"]["value"] == pytest.approx(0.5)
    assert {"style, zero-shot", "style, all groups", "popularity", "chance"} == set(table["models"])
    assert told_from_tables(found)
    assert len(Run(out / "runs/only-coats").load_arrays("article_dna")["dna"]) == 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["colours"], "there is no study 'colours'; the studies are losses, ablations"),
        (["losses", "--seed", "-1"], "--seed: must be 0 or more"),
        (["losses", "--bootstrap", "0"], "--bootstrap: must be 1 or more"),
        (["losses", "--clip", "x"], "--clip: is for 'ablations' alone"),
        (["losses", "--group", "a=b"], "--group: is for 'zero-shot' alone"),
        (["zero-shot", "--group", "coats"], "--group: expected NAME=CATEGORY"),
        (["zero-shot", "--group", "a=coat", "--group", "b=hat"], "there is no category 'hat'"),
        (["zero-shot", "--group", "a=coat", "--group", "b=coat"], "'coat' is in another group already"),
        (["zero-shot", "--group", "a=coat"], "at least two groups"),
        (["ablations"], "set 'enabled = true' under [generation]"),
        (["mixup"], "set 'enabled = true' under [generation]"),
    ],
)
def test_what_cannot_be_studied_is_told_in_one_line(
    tiny: DataSet, style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    known = ["--data", str(tiny.folder), "--out", str(tmp_path), "--config", str(style)]
    assert told in failing(capsys, *arguments, *known)


def test_ablations_need_searches(tiny: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_settings(tmp_path / "both.toml", BOTH)
    known = ["--data", str(tiny.folder), "--out", str(tmp_path / "out"), "--config", str(settings)]
    assert "the data set has no searches" in failing(capsys, "ablations", *known)


def test_zero_shot_is_measured_by_time(tiny: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_settings(tmp_path / "last.toml", {**STYLE, "split": {"hold_out": "last_order"}})
    known = ["--data", str(tiny.folder), "--out", str(tmp_path / "out"), "--config", str(settings)]
    assert "is measured by time alone" in failing(capsys, "zero-shot", *known)


# --- with the generating half: a minute or more ------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return small_shop(tmp_path_factory.mktemp("shop") / "shop")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_settings(tmp_path_factory.mktemp("settings") / "both.toml", BOTH)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.mark.slow
def test_ablations_differ_in_what_they_should_and_in_nothing_else(
    shop: DataSet, both: Path, large: Path, tmp_path: Path
) -> None:
    tiny_clip(tmp_path / "clip")
    found = study("ablations", shop, large, both, "--clip", str(tmp_path / "clip"))
    [table] = found["tables"]
    assert len(table["models"]) == 8
    assert told_from_tables(found)
    runs = {path.name: Run(path) for path in (large / "runs").iterdir()}
    bench = workshop(large, shop, BOTH)
    request = Request(bench, Sampling(), 0)
    texts = Writings(request.task(runs["full"]), shop, bench.config.generation.sessions.actions, bench.progress)
    prompts = {name: [one.text for one in texts.prompts(run) if one] for name, run in runs.items()}
    without = re.compile(r', "(category|brand|color|size|season|holiday|occasion)": "[^"]*"')
    candidates = re.compile(r"Candidate product ids:\[[^\]]*\]")
    assert any(without.search(text) for text in prompts["full"])
    assert any("ids:[a" in text for text in prompts["full"])
    plain = [without.sub("", text) for text in prompts["full"]]
    assert [candidates.sub("", text) for text in prompts["without-attributes"]] == [
        candidates.sub("", text) for text in plain
    ]
    assert not any(without.search(text) for text in prompts["without-attributes"])
    none = [candidates.sub("Candidate product ids:[]", text) for text in prompts["full"]]
    assert prompts["without-memory"] == none
    assert prompts["without-memory-and-attributes"] == [
        candidates.sub("Candidate product ids:[]", text) for text in plain
    ]
    for name in ("article_dna.safetensors", "generation/titles.safetensors", "generation/ids.safetensors"):
        assert len({run.existing(name).stat().st_ino for run in runs.values()}) == 1
    assert len({run.existing("adapter/adapter_model.safetensors").read_bytes() for run in runs.values()}) == 4


@pytest.mark.slow
def test_a_bundle_without_attributes_and_memory_is_served_like_any_other(
    shop: DataSet, both: Path, large: Path, tmp_path: Path
) -> None:
    """Its golden cases, sessions among them, hold on opening: prompts are written as they were trained."""
    study("ablations", shop, large, both)
    run = large / "runs/without-memory-and-attributes"
    assert modiste.main(["export", "--data", str(shop.folder), "--run", str(run), "--store", str(tmp_path)]) == 0
    version = (tmp_path / "CURRENT").read_text(encoding="utf-8").strip()
    spec = open_bundle(tmp_path / version).manifest.generation
    assert spec is not None
    assert (spec.prompt.attributes, spec.top_articles) == ((), 0)


@pytest.mark.slow
def test_a_run_in_another_catalogue_encodes_its_articles_as_its_own(shop: DataSet, both: Path, large: Path) -> None:
    study("zero-shot", shop, large, both)
    run, moved = Run(large / "runs/full"), Run(large / "transferred/full-in-group-2")
    [(part, articles)] = [
        (part, len(titles))
        for titles in [moved.load_arrays("generation/titles")["embedding"]]
        for part in map(DataSet.open, (large / "data").glob("*/*"))
        if len(part.article_ids) == len(titles) and part.fingerprint == moved.load_json("transferred")["data set"]
    ]
    rows = [shop.article_ids.index(name) for name in part.article_ids]
    assert 0 < articles < len(shop.article_ids)
    for name, key in (("article_dna", "dna"), ("generation/titles", "embedding")):
        np.testing.assert_allclose(moved.load_arrays(name)[key], run.load_arrays(name)[key][rows], atol=1e-4)
    theirs, ours = (load_ids(one.folder / FOLDER, data.article_ids) for one, data in ((moved, part), (run, shop)))
    np.testing.assert_array_equal(theirs.of(part.article_ids), ours.of(part.article_ids))
    assert set(load_memory(moved.folder / FOLDER).queries) < set(load_memory(run.folder / FOLDER).queries)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mixup", {"N = 0", "N = 1", "N = 2", "N = 5", "N = K = 200"}),
        ("cold-start", {"generated, id list", "generated, title list", "generated, mixup", "dynamic", "co-purchase"}),
        ("low-resource", {"style, 100%", "generated, 100%", "style, 50%", "generated, 50%"}),
        ("zero-shot", {"style, zero-shot", "generated, zero-shot", "generated, all groups"}),
    ],
)
def test_studies_of_both_halves(shop: DataSet, both: Path, large: Path, name: str, rows: set[str]) -> None:
    found = study(name, shop, large, both)
    assert rows <= set(found["tables"][0]["models"])
    assert told_from_tables(found)
    kept = {path: path.stat().st_mtime_ns for path in large.glob("*/*/written/*.json")}
    assert kept
    again = study(name, shop, large, both)
    assert again["tables"] == found["tables"]
    assert {path: path.stat().st_mtime_ns for path in large.glob("*/*/written/*.json")} == kept
    assert orjson.loads((large / name / "study.json").read_bytes()) == again
