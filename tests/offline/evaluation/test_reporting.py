"""The report for people: Markdown and HTML say the same, all of it from report.json, and nothing from elsewhere."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from small_runs import make_run
from tiny_shops import DAY, START, tiny_shop

from model_store.dataset import DataSet
from offline.evaluation.backtest import Options, run_backtest
from offline.evaluation.report import as_json
from offline.evaluation.reporting import grids, plots
from offline.evaluation.reporting.content import document_of
from offline.evaluation.reporting.document import (
    Bullets,
    Cell,
    Document,
    Folded,
    Grid,
    Paragraph,
    Span,
    blocks_of,
    marked,
)
from offline.evaluation.reporting.markdown import as_markdown, picture_files
from offline.evaluation.reporting.page import as_page
from offline.evaluation.reporting.svg import cut, decades, linear, logarithmic, ticks, wrapped
from offline.hold_out import Protocol, training_data
from offline.progress import Silent
from offline.run import Run

CUTOFF = START + 110 * DAY
Json = dict[str, Any]
VOID = {"meta", "wbr", "path", "rect", "circle"}
CHIEF = ("auc", "recall_10", "ndcg_10", "mrr")


class Page(HTMLParser):
    """What is in a page: text by element, tables as rows of cells, attributes; every element must be closed in turn."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tables, self.headings = list[str](), list[list[list[str]]](), list[str]()
        self.attributes, self.text, self.elements = list[tuple[str, str, str]](), "", list[str]()
        self._style = False
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_shop(tmp_path_factory.mktemp("data") / "tiny", articles=40, customers=120, planted=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shop: DataSet) -> Json:
    run: Run = make_run(tmp_path_factory.mktemp("runs") / "tiny", shop, CUTOFF)
    curve = [{"epoch": epoch, "loss": 1.0 / epoch, "score": 0.5 + epoch / 100, "lr": 0.1} for epoch in (1, 2, 3)]
    run.save_json("stages/images", {"recipe": {}, "curve": []})  # as runs had it before stages were timed
    cost = {"seconds": 1234.5, "peak_memory_mib": 678}
    run.save_json("stages/style_lstm", {"recipe": {}, "curve": curve, "cost": cost})
    result = run_backtest(shop, run, Options(samples=50), Silent())
    found: Json = orjson.loads(orjson.dumps(as_json(result, shop, run, 12.3)))
    return found


@pytest.fixture(scope="module")
def page(report: Json) -> Page:
    return Page(as_page(document_of(report)))


def renamed(report: Json, rename: dict[str, str]) -> Json:
    """The report with other names of models, as keys and values."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {rename.get(key, key): walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        return rename.get(value, value) if isinstance(value, str) else value

    walked: Json = walk(report)
    return walked


def with_models(report: Json, more: int) -> Json:
    """The report with ``more`` baselines beside popularity."""
    found = copy.deepcopy(report)
    names = [f"a rather long baseline's name {number}" for number in range(more)]
    places = [*(table["models"] for table in found["tables"].values()), found["roc"]["found"], found["first_ten"]]
    for place in [*places, found["parameters"]]:
        place.update(dict.fromkeys(names, place["popularity"]))
    return found


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Rows of cells of each table, without marks of emphasis."""
    blocks = re.findall(r"(?m)(?:^\|.*\|\n?)+", text)
    rows = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().splitlines()] for block in blocks]
    return [
        [[re.sub(r"\\(.)", r"\1", cell.strip().removeprefix("**").removesuffix("**")) for cell in row] for row in table]
        for table in rows
    ]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(report: Json, page: Page) -> None:
    html = as_page(document_of(report))
    assert html.startswith("<!DOCTYPE html>")
    assert len(html) < 2_000_000
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.elements)
    targets = [value for _, name, value in page.attributes if name in ("href", "src", "xlink:href", "srcset", "data")]
    assert targets
    assert all(target.startswith("#") for target in targets)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets} <= set(ids)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_it_has_every_table_and_model(report: Json, page: Page) -> None:
    for table in report["tables"].values():
        if "slice" in table:
            assert any(table["label"] in one[0] for one in page.tables), table["label"]
        else:
            assert table["title"] in page.headings
    models = set(report["parameters"])
    groups = [{row[0] for row in one} for one in page.tables]
    chief = sum("slice" not in table for table in report["tables"].values())
    slices = {table["slice"] for table in report["tables"].values() if "slice" in table}
    assert slices == {"history", "age", "popularity"}
    assert sum(models <= group for group in groups) == 3 * chief + 4 * len(slices) + 2  # and first ten, and time
    for words in (
        "style_lstm.batch",
        "seeds",
        "processor",
        "bootstrap 0 (50 resamples)",
        "12 s",
        report["cutoff"][:10],
    ):
        assert words in page.text, words


def rows_of(tables: list[list[list[str]]], first: str, second: str) -> list[list[str]]:
    """The first table whose head begins so, by row."""
    return next(one for one in tables if one[0][:2] == [first, second])


def test_figures_are_those_of_the_json(report: Json, page: Page) -> None:
    chief = report["tables"][report["headline"]]
    rows = {row[0]: row for row in rows_of(page.tables, "model", "AUC %")}
    for model, figures in chief["models"].items():
        value, low, high = (100 * figures["auc"][part] for part in ("value", "low", "high"))
        assert rows[model][1] == f"{value:.2f} [{low:.2f}, {high:.2f}]"
        value, low, high = (figures["cover_50"][part] for part in ("value", "low", "high"))
        assert rows[model][3] == f"{value:,.0f} [{low:,.0f}, {high:,.0f}]"
        weights = report["parameters"][model]
        assert rows[model][-1] == ("–" if weights is None else f"{weights:,}")
    shown = {row[0]: row for row in rows_of(page.tables, "model", "coverage %")}
    for model, figures in report["first_ten"].items():
        assert shown[model][1] == f"{100 * figures['coverage']:.1f}"
        assert shown[model][3].startswith(f"{figures['novelty']['value']:.3f} [")
    decile = [table for table in report["tables"].values() if table.get("slice") == "popularity"]
    sizes = next(
        one for one in page.tables if one[0][1:] == [table["label"] for table in decile] and "MRR" in one[0][0]
    )
    assert sizes[1][1:] == [f"{table['purchases']:,}" for table in decile]
    row = next(row for row in sizes if row[0] == "static")
    values = [100 * table["models"]["static"]["mrr"]["value"] for table in decile]
    assert [cell.split()[0] for cell in row[1:]] == [f"{value:.3f}" for value in values]


def test_time_and_memory_are_those_of_the_json(report: Json, page: Page) -> None:
    assert report["training"] == {"style_lstm": {"seconds": 1234.5, "peak_memory_mib": 678}}
    assert rows_of(page.tables, "stage", "seconds")[1:] == [["style_lstm", "1,234", "678"]]
    cost = report["cost"]
    models = rows_of(page.tables, "ranking by", "seconds")[1:]
    assert [row[0] for row in models] == list(report["parameters"]) == list(cost["ranking"])
    assert [row[0] for row in rows_of(page.tables, "part", "seconds")[1:]] == list(cost["parts"])
    assert f"{cost['scores_per_second']:,} scores a second" in page.text
    assert f"12 s, at most {cost['peak_memory_mib']:,} MiB of memory" in page.text


def test_what_was_not_measured_is_not_told(report: Json) -> None:
    unknown = {**report, "training": {}, "cost": {**report["cost"], "peak_memory_mib": None}}
    page = Page(as_page(document_of(unknown)))
    assert "memory unknown" in page.text
    assert "training took" not in page.text
    assert not [table for table in page.tables if table[0][0] == "stage"]


def test_markdown_and_html_agree(report: Json, page: Page) -> None:
    document = document_of(report)
    text = as_markdown(document)
    headings = [re.sub(r"\\(.)", r"\1", line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")]
    assert headings == page.headings
    columns = {len(table[0]) for table in page.tables}
    tables = [table for table in markdown_tables(text) if table[0][0] and len(table[0]) in columns]
    of_text = [[table[0], *table[2:]] for table in tables if not table[0][0].startswith("blended: ")]
    assert of_text == page.tables
    pictures = picture_files(document)
    assert sorted(re.findall(r"\]\((figures/[^)]+)\)", text)) == sorted(pictures)
    assert page.elements.count("svg") == len(pictures)
    for svg in pictures.values():
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_names_are_shown_as_they_are(report: Json) -> None:
    evil, worse = '<script>alert("a|b")</script>', "**x** ](http://elsewhere) `y`"
    strange = renamed(report, {"popularity of 28 days": evil, "Markov-1": worse})
    strange["data_set"] |= {"name": evil, "stock": worse, "description": f"{evil} {worse}\n\n- {evil}"}
    strange["run"] = "<b>run</b>"
    html = as_page(document_of(strange))
    page = Page(html)
    assert "<script" not in html
    assert not {"script", "b"} & set(page.elements)
    assert page.headings[0] == f"{evil}: backtest of the run “<b>run</b>”"
    assert any(row[0] == evil for table in page.tables for row in table)
    text = as_markdown(document_of(strange))
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert [[table[0], *table[2:]] for table in markdown_tables(text)][-1] != []
    found = rows_of([[t[0], *t[2:]] for t in markdown_tables(text)], "model", "AUC %")
    assert {evil, worse} <= {row[0] for row in found}


def test_sixteen_models_are_as_welcome_as_nine(report: Json) -> None:
    many = with_models(report, 16 - len(report["parameters"]))
    page = Page(as_page(document_of(many)))
    [first] = [table for table in page.tables if table[0][:2] == ["model", "AUC %"]][:1]
    assert [row[0] for row in first[1:]][-3:] == ["static", "dynamic", "blended"]
    assert len(first) == 17
    looks = plots.lines_of(many["tables"]["all"])
    assert len(looks) <= 6
    assert len({look.colour for look in looks.values()}) == len({look.dashes for look in looks.values()}) == len(looks)


def test_models_stand_baselines_first_and_the_blend_last() -> None:
    models = ["blended", "static", "popularity", "generated", "RecBole's", "dynamic"]
    assert grids.in_order(models) == ["popularity", "RecBole's", "static", "dynamic", "generated", "blended"]


def lead_of(model: str, low: float | None, customers: int = 10) -> Json:
    return {"customers": customers, "leads": {"auc": {"model": model, "next": "other", "low": low}}}


def test_only_the_best_by_more_than_chance_is_bold() -> None:
    assert grids.leads(lead_of("mine", 0.01), "mine", "auc")
    assert not grids.leads(lead_of("mine", -0.01), "mine", "auc")
    assert not grids.leads(lead_of("mine", None), "mine", "auc")
    assert not grids.leads(lead_of("mine", 0.01), "other", "auc")
    assert not grids.leads(lead_of("mine", 0.01, customers=9), "mine", "auc")
    assert not grids.leads(lead_of("mine", 0.01), "mine", "mrr")


@pytest.mark.parametrize(
    ("estimate", "cell"),
    [
        ((0.0123, 0.004, 0.02), Cell("+1.23", "[+0.40, +2.00]", True)),
        ((-0.0123, -0.02, -0.004), Cell("−1.23", "[−2.00, −0.40]", True)),
        ((0.0, -0.00001, 0.02), Cell("+0.00", "[+0.00, +2.00]", False)),
        ((None, None, None), Cell("–")),
    ],
)
def test_a_difference_is_bold_where_its_interval_as_printed_leaves_out_zero(estimate, cell) -> None:
    assert grids.difference("auc", dict(zip(("value", "low", "high"), estimate, strict=True)), 10) == cell
    assert not grids.difference("auc", dict(zip(("value", "low", "high"), estimate, strict=True)), 9).strong


def test_leads_name_the_best_and_the_next(report: Json) -> None:
    for table in report["tables"].values():
        for name, lead in table["leads"].items():
            values = {model: figures[name]["value"] for model, figures in table["models"].items()}
            best, second = sorted(values.values(), reverse=not name.startswith("cover_"))[:2]
            assert (values[lead["model"]], values[lead["next"]]) == (best, second)
            assert lead["value"] == pytest.approx(abs(best - second))


def test_a_run_without_records_and_without_probabilities_has_a_report_too(report: Json) -> None:
    bare = {**report, "learning": {}, "calibration": {}}
    headings = Page(as_page(document_of(bare))).headings
    assert "Training" not in headings
    assert "Probabilities of the static model" not in headings


@pytest.mark.parametrize("hold_out", ["last_order", "last_purchase"])
def test_what_was_held_out_has_a_report_too(tmp_path: Path, hold_out: Protocol) -> None:
    shop = tiny_shop(tmp_path / "tiny", articles=80, customers=120, planted=False)
    run = make_run(tmp_path / "run", training_data(shop, hold_out), CUTOFF + 20 * DAY, hold_out=hold_out)
    result = run_backtest(shop, run, Options(samples=10), Silent())
    page = Page(as_page(document_of(orjson.loads(orjson.dumps(as_json(result, shop, run, 1.0))))))
    assert "What was held out" in page.headings
    assert "Next order" not in page.text
    assert hold_out.replace("_", " ") in page.text


def test_pooled_windows_are_told(tmp_path: Path, shop: DataSet) -> None:
    run = make_run(tmp_path / "run", shop, CUTOFF)
    result = run_backtest(shop, run, Options(days=2, windows=3, samples=10), Silent())
    page = Page(as_page(document_of(orjson.loads(orjson.dumps(as_json(result, shop, run, 1.0))))))
    assert "3 of 2 days each, pooled" in page.text
    assert "at most 40 articles" in page.text


def test_where_stock_tells_sales_the_report_warns(report: Json) -> None:
    told = {**report, "stock_tells_sales": True}
    assert "Caution." in Page(as_page(document_of(told))).text
    assert "> **Caution.**" in as_markdown(document_of(told))


def test_marks_and_lists_are_found_in_plain_text() -> None:
    assert marked("a **b** `c`\n ``d``") == (
        Span("a "),
        Span("b", strong=True),
        Span(" "),
        Span("c", code=True),
        Span(" "),
        Span("d", code=True),
    )
    first, second, third = blocks_of("one\ntwo\n- three\n  four\n- five\n\nsix")
    assert first == Paragraph(marked("one two"))
    assert second == Bullets([marked("three four"), marked("five")])
    assert third == Paragraph(marked("six"))


def test_text_between_emphasised_parts_keeps_its_spaces() -> None:
    text = "A **b** c `d`, e: **f**."
    document = Document("t", [Paragraph(marked(text))], [])
    assert text in as_markdown(document)
    assert "A <strong>b</strong> c <code>d</code>, e: <strong>f</strong>." in as_page(document)


def test_what_is_folded_is_in_both() -> None:
    document = Document("t", [Folded("more", [Grid(["model", "x"], [[Cell("m"), Cell("1", "[0, 2]", True)]])])], [])
    assert "**more**\n\n| model | x |\n| --- | ---: |\n| m | **1 [0, 2]** |" in as_markdown(document)
    page = Page(as_page(document))
    assert page.tables == [[["model", "x"], ["m", "1 [0, 2]"]]]
    assert "details" in page.elements


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(48.5, 91, 5) == [50, 60, 70, 80, 90]
    assert ticks(3, 3) == [3]
    assert decades(0.002, 1) == [0.01, 0.1, 1]


def test_scales_and_words() -> None:
    assert linear(50, 100, 0, 10)(75) == 5
    assert linear(1, 1, 0, 10)(1) == 0
    assert logarithmic(0.01, 1, 0, 10)(0.1) == pytest.approx(5)
    assert wrapped("12 weeks or more", 8) == ["12 weeks", "or more"]
    assert cut("popularity of 28 days", 10) == "popularit…"


def test_the_file_of_a_picture_stands_alone(report: Json) -> None:
    for svg in picture_files(document_of(report)).values():
        assert svg.count("http") == 1  # the name of its language
        assert not re.search(r"href|url\(|<style|<script", svg)


def test_tables_of_one_customer_do_not_break_a_plot(tmp_path: Path) -> None:
    shop = tiny_shop(tmp_path / "small", articles=12, customers=3, planted=False)
    run = make_run(tmp_path / "run", shop, CUTOFF)
    result = run_backtest(shop, run, Options(samples=5), Silent())
    html = as_page(document_of(orjson.loads(orjson.dumps(as_json(result, shop, run, 0.0)))))
    assert "nan" not in html.lower().replace("name", "")
    Page(html)
