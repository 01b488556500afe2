from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_runs import HALF_LIFE, make_run
from tiny_shops import DAY, START, tiny_shop

import modiste
from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from model_store.time_features import TimeSpec, encode_history
from offline.article_tables import load_networks
from offline.evaluation.backtest import Options, Result, run_backtest
from offline.evaluation.measure import measure
from offline.progress import Silent
from offline.run import Run

CUTOFF = START + 110 * DAY


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=120, planted=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shop: DataSet) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", shop, CUTOFF)


@pytest.fixture(scope="module")
def result(shop: DataSet, run: Run) -> Result:
    return run_backtest(shop, run, Options(samples=200), Silent())


def auc(result: Result, table: str, model: str) -> Any:
    [one] = [one for one in result.tables if one.table.name == table]
    return one.models[model]["auc"]


@pytest.mark.parametrize("popular", [False, True])
def test_dynamic_figures_agree_with_an_independent_account(tmp_path: Path, shop: DataSet, popular: bool) -> None:
    """Purchase by purchase through torch and scikit-learn, sharing nothing with the backtest but the data."""
    run = make_run(tmp_path / "run", shop, CUTOFF, popularity=popular)
    result = run_backtest(shop, run, Options(samples=10), Silent())
    dna, spec = run.load_arrays("article_dna")["dna"], run.load_model("time_spec", TimeSpec)
    network, purchases = load_networks(run)[2], shop.purchases()
    if popular:
        sold = np.zeros(len(dna))
        for article, time in zip(purchases.article, purchases.timestamp, strict=True):
            sold[article] += 0.5 ** ((CUTOFF - time) / DAY / HALF_LIFE) if time < CUTOFF else 0.0
        dna[:, 127] = np.log(1 + 10 * sold) / 8
    in_stock = np.flatnonzero(shop.availability.in_stock_between(CUTOFF, shop.last_event + 1))
    total, count = 0.0, 0
    for low, high in zip(purchases.offsets, purchases.offsets[1:], strict=False):
        times, articles = purchases.timestamp[low:high], purchases.article[low:high]
        later = times >= CUTOFF
        if not later.any():
            continue
        steps = encode_history(spec, dna[articles[~later]], times[~later], int(times[later][0]))
        with torch.no_grad():
            style = network(torch.from_numpy(steps)[None])[0][0, -1].numpy()
        bought = np.isin(in_stock, articles[later])
        total += bought.sum() * roc_auc_score(bought, dna[in_stock] @ style)
        count += bought.sum()
    assert result.total(lambda task: len(task.targets.candidate)) == count
    assert auc(result, "all", "dynamic").value == pytest.approx(total / count, abs=1e-6)


def with_static_model(run: Run, customer_ids: list[str], style: np.ndarray, dna: np.ndarray) -> Run:
    """The run with Fashion DNA and static styles put in by hand."""
    run.save_arrays("article_dna", {"dna": dna.astype(np.float32)})
    run.save_arrays("static", {"style": style.astype(np.float32), "bias": np.zeros(len(style), np.float32)})
    run.save_json("static_customers", customer_ids)
    return run


def test_styles_that_know_nothing_find_nothing(tmp_path: Path, shop: DataSet) -> None:
    rng, ids = np.random.default_rng(0), shop.purchases().customer_ids
    style, dna = (rng.normal(size=(size, 128)) for size in (len(ids), len(shop.article_ids)))
    run = with_static_model(make_run(tmp_path / "run", shop, CUTOFF), ids, style, dna)
    figure = auc(run_backtest(shop, run, Options(samples=200), Silent()), "all", "static")
    assert figure.low < 0.5 < figure.high
    assert 0.45 < figure.value < 0.55


def test_a_style_that_knows_the_answer_scores_one(tmp_path: Path, shop: DataSet) -> None:
    bought = shop.purchases().between(CUTOFF, shop.last_event + 1)
    style = np.zeros((len(bought.customer_ids), 128))
    style[bought.customer, bought.article] = 1
    run = make_run(tmp_path / "run", shop, CUTOFF)
    run = with_static_model(run, bought.customer_ids, style, np.eye(len(shop.article_ids), 128))
    result = run_backtest(shop, run, Options(samples=10), Silent())
    assert auc(result, "all", "static") == (1, 1, 1)
    assert result.contests[0].static_unknown == 0


def test_tables_divide_the_purchases(result: Result) -> None:
    size = {one.table.name: one.purchases for one in result.tables}
    assert size["known"] + size.get("new", 0) == size["all"]
    assert size.get("history_none", 0) + size["history_some"] == size["all"]
    assert size["first_time"] <= size["all"]


def test_what_is_shown_first_agrees_with_an_independent_account(shop: DataSet, run: Run, result: Result) -> None:
    """Popularity shows everybody the same: counted from the events, ties in expectation."""
    week = shop.purchases(known_at=CUTOFF).between(CUTOFF - 7 * DAY, CUTOFF)
    sales = np.bincount(week.article, minlength=len(shop.article_ids))  # all were in stock
    above = np.array([(sales > one).sum() for one in sales])
    tied = np.array([(sales == one).sum() for one in sales])
    chance = np.clip((10 - above) / tied, 0, 1)
    customers = result.contests[0].task.targets.customers
    found = result.first_ten["popularity"]
    assert found.coverage == pytest.approx(np.mean(1 - (1 - chance) ** customers))
    before = np.bincount(shop.purchases(known_at=CUTOFF).article, minlength=len(sales)) + 1
    assert found.novelty.value == pytest.approx((chance * -np.log2(before / before.sum())).sum() / 10)
    assert found.novelty.low == pytest.approx(found.novelty.high)


def test_slices_divide_the_purchases(result: Result) -> None:
    sizes = {one.table.slice: 0 for one in result.tables}
    for one in result.tables:
        sizes[one.table.slice] += one.purchases if one.table.name != "history_some" else 0
    whole = next(one.purchases for one in result.tables if one.table.name == "all")
    assert sizes["history"] == sizes["age"] == sizes["popularity"] == whole


def test_leads_are_paired(result: Result) -> None:
    [one] = [one for one in result.tables if one.table.name == "all"]
    pair = {one.leads["auc"].model, one.leads["auc"].next}
    if pair == {"dynamic", "static"}:
        assert abs(one.differences["dynamic", "static"]["auc"].value) == pytest.approx(one.leads["auc"].by.value)
    best = max(figures["auc"].value for figures in one.models.values())
    assert one.models[one.leads["auc"].model]["auc"].value == best
    fewest = min(figures["cover_50"].value for figures in one.models.values())
    assert one.models[one.leads["cover_50"].model]["cover_50"].value == fewest
    assert one.leads["auc"].by.low <= one.leads["auc"].by.value <= one.leads["auc"].by.high


def test_the_same_seed_gives_the_same_intervals(shop: DataSet, run: Run, result: Result) -> None:
    again = run_backtest(shop, run, Options(samples=200), Silent())
    other = run_backtest(shop, run, Options(samples=200, seed=1), Silent())
    assert auc(again, "all", "static") == auc(result, "all", "static")
    assert auc(other, "all", "static") != auc(result, "all", "static")


def test_differences_are_between_the_models_named(result: Result) -> None:
    [one] = [one for one in result.tables if one.table.name == "all"]
    difference = one.differences["dynamic", "static"]["auc"]
    assert difference.value == pytest.approx(one.models["dynamic"]["auc"].value - one.models["static"]["auc"].value)
    assert difference.low <= difference.value <= difference.high


def test_windows_are_pooled_purchase_by_purchase(shop: DataSet, run: Run) -> None:
    end = shop.last_event + 1
    both = run_backtest(shop, run, Options(days=2, windows=2, samples=10), Silent())
    alone = [run_backtest(shop, run, Options(until, days=2, samples=10), Silent()) for until in (end - 2 * DAY, end)]
    parts = [one for result in alone for one in result.tables if one.table.name == "all"]
    [pooled] = [one for one in both.tables if one.table.name == "all"]
    assert pooled.purchases == sum(part.purchases for part in parts)
    for figure in ("auc", "recall_10", "mrr"):
        weighted = sum(part.models["dynamic"][figure].value * part.purchases for part in parts) / pooled.purchases
        assert pooled.models["dynamic"][figure].value == pytest.approx(weighted)
    names = [set(result.contests[0].task.customer_ids) for result in alone]
    assert names[0] & names[1]
    assert both.customers == pooled.customers == len(names[0] | names[1])


def test_a_customer_of_two_windows_is_drawn_with_both(result: Result) -> None:
    """Twice the same window tells no more than once: intervals must not get narrower."""
    twice = measure([result.contests[0]] * 2, samples=200, seed=0, progress=Silent())
    for one, other in zip(result.tables, twice, strict=True):
        assert other.purchases == 2 * one.purchases
        assert other.customers == one.customers
        for model, figures in one.models.items():
            assert other.models[model]["auc"] == pytest.approx(figures["auc"])
            assert other.models[model]["recall_10"] == pytest.approx(figures["recall_10"])


def test_a_run_of_other_data_is_refused(tmp_path: Path, run: Run) -> None:
    other = tiny_shop(tmp_path / "other", articles=20, customers=10)
    with pytest.raises(InvalidConfig, match="trained on 'tiny' with other content"):
        run_backtest(other, run, Options(), Silent())


class Ticks:
    """A clock that is one second later whenever it is read."""

    def __init__(self) -> None:
        self._now = 0

    def __call__(self) -> float:
        self._now += 1
        return float(self._now)


def test_cost_is_told_by_parts_and_models(shop: DataSet, run: Run) -> None:
    result = run_backtest(shop, run, Options(days=2, windows=2, samples=5), Silent(), Ticks())
    cost, models = result.cost, len(result.contests[0].ranks)
    tasks = [contest.task for contest in result.contests]
    assert cost.customers == sum(len(task.customer_ids) for task in tasks)
    assert cost.scores == sum(len(task.customer_ids) * len(task.candidates) for task in tasks)
    assert cost.ranking == dict.fromkeys(result.contests[0].ranks, 2.0)  # a second in each window
    assert cost.parts == {
        "what is asked": 1,
        "what is generated": 2,
        "styles and counts": 2,
        "ranking": 2 * models,
        "figures and intervals": 1,
        "probabilities": 1,
    }
    assert cost.customers_per_second == pytest.approx(cost.customers / (2 * models))
    assert cost.scores_per_second == pytest.approx(cost.scores / 2)


def test_the_command_writes_report_figure_and_the_runs_metrics(
    tmp_path: Path, shop: DataSet, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    options = ["--data", str(shop.folder), "--run", str(run.folder), "--report", str(out), "--bootstrap", "20"]
    assert modiste.main(["evaluate", *options]) == 0
    report = orjson.loads((out / "report.json").read_bytes())
    assert run.load_json("evaluation") == report
    assert report["data_set"]["name"] == "tiny"
    assert report["window"] == {"start": "2024-03-04T00:00:00Z", "until": "2024-03-13T12:00:01Z"}
    assert report["config"]["seed"] == 0
    assert report["tables"]["all"]["purchases"] == report["purchases"] > 0
    assert 0 < report["cost"]["customers_per_second"] < report["cost"]["scores_per_second"]
    assert report["cost"]["peak_memory_mib"] != 0
    told = capsys.readouterr().out
    assert f"{report['cost']['scores_per_second']:,} scores a second; {report['seconds']:,.0f} s in all" in told
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json", "report.md", "roc.png", "figures"}
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg"}
    text, page = ((out / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    assert page == (run.folder / "evaluation.html").read_text(encoding="utf-8")  # which the bundle takes in
    for written in (text, page):
        assert "tiny (simulated)" in written
        assert "blended" in written
        assert str(tmp_path) not in written
    assert all((out / name).is_file() for name in re.findall(r"\]\((figures/.+?)\)", text))
    with Image.open(out / "roc.png") as picture:
        assert min(picture.size) > 1_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bootstrap", "0"], "--bootstrap: must be 1 or more, not 0"),
        (["--window-days", "-3"], "--window-days: must be 1 or more, not -3"),
        (["--window-days", "40"], "before the run's cut-off"),
        (["--until", "someday"], "--until: must be ISO 8601 or Unix seconds"),
        (["--seed", "-1"], "--seed: must be 0 or more, not -1"),
        (["--run", "nowhere"], "nowhere/split.json does not exist"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(
    tmp_path: Path, shop: DataSet, run: Run, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["evaluate", "--data", str(shop.folder), "--run", str(run.folder), "--report", str(tmp_path / "report")]
    assert modiste.main([*command, *options]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told
    assert not (tmp_path / "report").exists()
