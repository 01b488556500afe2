"""Dashboard, alert rules and their containers speak of metrics that a running service shows, and of all of them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import make_bundle
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from redis_server import redis_url
from service_running import Shop, running

from service.settings import Settings

__all__ = ["redis_url"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "service/monitoring"
DURATION = r"\d+(?:ms|s|m|h|d)"


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "grafana/dashboards/modiste.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]] + [rule["expr"] for rule in rules()]


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric that a query names, with its matchers: (label, operator, value)."""
    for name, matchers in re.findall(r"\b(modiste_\w+)(?:\{([^}]*)\})?", query):
        yield name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers)


def grouped_by(query: str) -> set[str]:
    """The labels that results are grouped by."""
    return {label for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in re.split(r",\s*", labels)}


async def page_of(shop: Shop) -> list[Metric]:
    """/metrics after something of everything has happened."""
    await shop.buy("Ada", "a003")
    await shop.recommend("Ada")
    await shop.http.get("/nothing")
    async with asyncio.timeout(30):
        while "modiste_replay_customers" not in (text := (await shop.http.get("/metrics")).text):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a worker looks once a second whether there is something to replay
    return list(text_string_to_metric_families(text))


@pytest.fixture
async def page(tmp_path: Path, redis_url: str) -> list[Metric]:
    make_bundle(tmp_path / "store", generating=True)
    async with running(Settings(redis_url=redis_url, store=tmp_path / "store")) as shop:
        return await page_of(shop)


def own(page: list[Metric]) -> list[Metric]:
    """Without the times at which counters were begun."""
    return [family for family in page if family.name.startswith("modiste_") and not family.name.endswith("_created")]


async def test_every_metric_and_label_that_is_asked_for_is_shown_and_the_other_way_round(page: list[Metric]) -> None:
    samples: dict[str, dict[str, set[str]]] = {}
    for family in own(page):
        for sample in family.samples:
            labels = samples.setdefault(sample.name, {"instance": set()})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    for query in queries():
        named = {name for name, _ in selectors(query)}
        for name, matchers in selectors(query):
            assert name in samples, query
            for label, operator, value in matchers:
                assert label in samples[name], query
                if operator in {"=", "!="}:
                    assert value in samples[name][label], query
                elif label != "status":  # this service has had no failure
                    assert set(value.split("|")) <= samples[name][label], query
        assert named or "up{" in query
        assert not named or grouped_by(query) <= set().union(*(samples[name] for name in named)), query
    shown = {name for panel in panels() for target in panel["targets"] for name, _ in selectors(target["expr"])}
    for family in own(page):
        assert shown & {sample.name for sample in family.samples}, f"the dashboard does not show {family.name}"


@pytest.mark.parametrize("query", queries())
def test_queries_are_well_formed(query: str) -> None:
    """No parser of PromQL can be had here: brackets close, strings end, and each rate has its time."""
    bare = re.sub(r'"[^"]*"', '""', query)
    assert bare.count('"') % 2 == 0
    open_ones: list[str] = []
    for character in bare:
        if character in "([{":
            open_ones.append(character)
        elif character in ")]}":
            assert open_ones, query
            assert open_ones.pop() + character in {"()", "[]", "{}"}, query
    assert not open_ones, query
    for function, argument in re.findall(
        r"\b(rate|increase|deriv)\((modiste_\w+(?:\{[^}]*\})?(?:\[[^]]*\])?)\)", query
    ):
        assert re.search(rf"\[(?:{DURATION}|\$__rate_interval)\]$", argument), f"{function} in {query}"
    counts = len(re.findall(r"\b(?:rate|increase|deriv)\(", query))
    assert counts == len(re.findall(r"\[", query)), query


def test_rates_are_of_counters_and_gauges_are_taken_as_they_are() -> None:
    for query in queries():
        for name, _ in selectors(query):
            counted = name.endswith(("_total", "_bucket", "_sum", "_count"))
            inside = re.search(rf"\b(rate|increase)\({name}\b", query) is not None
            assert counted == inside, query


def test_rules_say_what_is_wrong_and_how_grave_it_is() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(DURATION, rule["for"])
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_dashboard_is_whole() -> None:
    content = dashboard()
    assert content["uid"] == content["title"].lower() == "modiste"
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/modiste.yml").read_text())["datasources"]
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == sources[0]["uid"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(references) == len(set(references))
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return loaded


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_runs_where_it_is_asked_for_and_changes_nothing(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["profiles"] == ["monitoring"]
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for source, target, *how in (volume.split(":") for volume in service["volumes"]):
        if source.startswith("."):
            assert how == ["ro"], target
            assert (ROOT / source).is_dir()


def test_files_lie_where_the_containers_look_for_them(services: dict[str, Any]) -> None:
    mounted = {
        target: ROOT / source
        for name in ("prometheus", "grafana")
        for source, target, *_ in (volume.split(":") for volume in services[name]["volumes"])
    }
    config = yaml.safe_load((mounted["/etc/prometheus"] / "prometheus.yml").read_text())
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    assert all((mounted["/etc/prometheus"] / name).is_file() for name in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert all(f'job="{job["job_name"]}"' in rule["expr"] for rule in rules() if re.search(r"\bup\b", rule["expr"]))
    (lookup,) = job["dns_sd_configs"]
    for name in lookup["names"]:
        assert services[name]["environment"]["MODISTE_PORT"] == str(lookup["port"])
    provider = yaml.safe_load((mounted["/etc/grafana/provisioning"] / "dashboards/modiste.yml").read_text())
    (folder,) = [each["options"]["path"] for each in provider["providers"]]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (mounted[folder] / home.removeprefix(f"{folder}/")).is_file()
    source = yaml.safe_load((mounted["/etc/grafana/provisioning"] / "datasources/modiste.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
