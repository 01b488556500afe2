"""`modiste bench` measures what it says: its world is sound, its load generator counts every answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from bundles import make_bundle
from redis_server import redis_url

from model_store import golden
from model_store.article_table import load_articles
from model_store.dataset import DataSet
from model_store.generation import load_ids, load_titles
from model_store.prompts import UnparseableGeneration, parse_response
from service.bench import broken_models, generations, memory, parts, scale, search, served, stages
from service.bench.generations import measure_generations
from service.bench.load import Load, Measured, get, measure, measure_in_turns, post, together
from service.bench.results import Result, table, write_json
from service.bench.world import World, make_world

__all__ = ["redis_url"]

NOW = 1_790_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("bench")
    return make_world(make_bundle(folder / "live"), folder / "world", articles=300, customers=40, now=NOW)


def test_the_world_is_a_sound_bundle_and_a_sound_data_set(world: World) -> None:
    golden.check(world.bundle)
    data = DataSet.open(world.data)
    assert data.article_ids == [article.article_id for article in world.articles]
    purchases = data.purchases()
    assert len(purchases.timestamp) == world.purchases
    assert set(purchases.customer_ids) <= set(world.customer_ids)
    assert purchases.timestamp.max() < NOW
    assert world.dna.shape == (300, 128)


@pytest.fixture(scope="module")
def generating_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("bench-generating")
    live = make_bundle(folder / "live", generating=True)
    return make_world(live, folder / "world", articles=300, customers=40, now=NOW)


def test_a_world_around_a_generating_half_has_one(generating_world: World) -> None:
    bundle = generating_world.bundle
    golden.check(bundle)
    names = load_articles(bundle)[0]
    assert names[-300:] == [article.article_id for article in generating_world.articles]
    ids = load_ids(bundle.folder, names)
    assert all(ids.knows(article.article_id) for article in generating_world.articles)
    assert load_titles(bundle.folder, len(names)).shape == (360, 128)
    assert bundle.manifest.blend.generated > 0
    assert [result.value > 0 for result in parts.measure_mixup(generating_world, 20)] == [True, True]


def test_without_a_generating_half_nothing_is_said_of_generations(world: World) -> None:
    assert parts.measure_mixup(world, 5) == []
    assert measure_generations(world, "redis://nowhere", 1.0) == []


@pytest.mark.slow
def test_latency_with_generations_is_held_against_style_in_the_same_run(
    generating_world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "ROUNDS", 5)
    monkeypatch.setattr(generations, "TURN", 0.05)
    monkeypatch.setattr(generations, "WARM_UP", 0.05)
    parts.measure_backfill(generating_world, redis_url)
    results = measure_generations(generating_world, redis_url, 0.4)
    loads = [result for result in results if result.unit == "/s"]
    assert [result.failed for result in loads] == [0] * 36
    ratios = [result.name for result in results if result.unit == "x"]
    compared = {
        "nothing generated": ["blended"],
        "generated": ["blended", "generated", "query"],
        "language model stopped": ["blended"],
        "language model takes 5 s": ["blended"],
        "language model writes rubbish": ["blended"],
    }
    assert ratios[::3] == [
        f"p99 of {case} / of style, {name}, {load}"
        for name, cases in compared.items()
        for load in ("at half load", "at a quarter")
        for case in cases
    ]
    assert len(ratios) == 3 * 14  # and the interval of each


@pytest.mark.slow
def test_the_stages_of_a_request_add_up_to_what_the_client_sees(generating_world: World, redis_url: str) -> None:
    parts.measure_backfill(generating_world, redis_url)
    results = {result.name: result.value for result in stages.measure_stages(generating_world, redis_url)}
    assert all(value > 0 for value in results.values())
    for strategy in ("style", "blended"):
        whole, *parts_of_it = [value for name, value in results.items() if f"({strategy})" in name]
        assert len(parts_of_it) == (7 if strategy == "blended" else 6)
        assert sum(parts_of_it) == pytest.approx(whole)
    floors = [name.partition(":")[0] for name in results if name.startswith("floor of")]
    assert floors == [f"floor of {stage}" for stage in ("Redis", "LSTM step", "search", "JSON", "HTTP")]


def test_throughputs_are_told_in_ratios_to_the_baselines() -> None:
    plain, bare = served.BASELINES.values()
    style = "GET recommendations (style)"
    results = [
        Result(name, value, "/s")
        for name, value in (
            (f"{style}, 1 worker", 500.0),
            (plain, 50.0),
            (f"{plain}, at half load", 25.0),
            (bare, 250.0),
            (f"{style}, 1 worker, at half load", 250.0),
            (f"{style}, 1 worker, one at a time", 400.0),
            (f"{style}, 2 workers", 900.0),
            ("POST of one purchase, 1 worker", 300.0),
        )
    ]
    assert {result.name: result.value for result in served.ratios(results)} == {
        f"{style}, 1 worker, plain stack = 1": 10.0,
        f"{style}, 2 workers, plain stack = 1": 18.0,
        f"{style}, 1 worker, bare trial = 1": 2.0,
        f"{style}, 2 workers, bare trial = 1": 3.6,
    }
    assert served.ratios(results[:1]) == []


def test_several_turns_count_as_one() -> None:
    one, other = Measured(1.0, [1.0] * 99, {"200": 99}), Measured(1.0, [3.0], {"200": 1, "503": 2})
    both = together([one, other])
    assert (both.per_second, both.p50, both.failed) == (50.0, 1.0, 2)
    assert 1.0 < both.p99 < 3.0
    assert np.isnan(together([]).p99)


def test_a_ratio_of_99th_percentiles_has_an_interval_that_halts_widen() -> None:
    rng = np.random.default_rng(1)

    def turns(factor: float, halts: int) -> list[Measured]:
        times = [(factor * rng.gamma(9, 0.3, 100)).tolist() for _ in range(50)]
        return [Measured(1.0, [t + 50 * (turn < halts) for t in each], {}) for turn, each in enumerate(times)]

    ratio, low, high = generations.ratio_of_p99(turns(1.3, 0), turns(1.0, 0))
    assert low < 1.3 < high
    assert low <= ratio <= high
    assert high - low < 0.3
    _, low, high = generations.ratio_of_p99(turns(1.3, 1), turns(1.0, 0))
    assert low < 1.3
    assert high > 5


async def test_loads_in_turns_are_told_apart() -> None:
    async with server([200]) as (port, asked):
        loads = [Load(port, (get(path),), 4, 0.1, 0.1, rate=300.0) for path in ("/a", "/b")]
        a, b = await measure_in_turns(loads, 3)
        assert [len(a), len(b)] == [3, 3]
        for turn in (*a, *b):
            assert 10 < len(turn.latencies) == turn.statuses["200"] < 60
        for path, turns in (("/a", a), ("/b", b)):
            assert together(turns).statuses["200"] <= asked[b"GET %s HTTP/1.1" % path.encode()]
        with pytest.raises(ValueError, match="requests and seconds only"):
            await measure_in_turns([loads[0], Load(port, (get("/b"),))], 1)


async def test_what_was_due_in_a_turn_counts_there_whenever_it_is_answered() -> None:
    """The first answer on each connection takes longer than both turns: who was due in the first one waits for it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seconds = 0.6
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 -\r\nContent-Length: 2\r\n\r\n{}")
                seconds = 0.0
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        loads = [Load(port, (get(path),), 2, 0.25, 0.0, rate=20.0) for path in ("/a", "/b")]
        [[first], [second]] = await measure_in_turns(loads, 1)
    assert first.failed == second.failed == 0
    assert 4 <= first.statuses["200"] <= 5
    assert min(first.latencies) > 350  # of those that no connection was free for, too
    assert 0 < max(second.latencies) < min(first.latencies)


def sells_nothing(text: str) -> bool:
    """Whether a response cannot be read, or names what is in no catalogue."""
    try:
        return parse_response(text).article_id == "nobody-sells-this"
    except UnparseableGeneration:
        return True


@pytest.mark.parametrize(
    ("fault", "least"), [(broken_models.stopped, None), (broken_models.slow, 0.05), (broken_models.writing_rubbish, 0)]
)
def test_broken_language_models_are_what_they_say(
    fault: Callable[[], AbstractContextManager[str]], least: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken_models, "SLOW", 0.05)
    with fault() as url:
        if least is None:
            with pytest.raises(httpx2.ConnectError):
                httpx2.get(f"{url}/v1/models")
            return
        start = time.monotonic()
        assert httpx2.get(f"{url}/v1/models").json()["data"][0]["max_model_len"] == 1_024
        assert time.monotonic() - start >= least
        assert httpx2.post(f"{url}/detokenize", json={}).status_code == 404
        texts = [httpx2.post(f"{url}/v1/completions", json={}).json()["choices"][0]["text"] for _ in range(5)]
    assert [sells_nothing(text) for text in texts] == [True] * 5


def test_the_same_seed_makes_the_same_world(world: World, tmp_path: Path) -> None:
    again = make_world(make_bundle(tmp_path / "live"), tmp_path / "world", articles=300, customers=40, now=NOW)
    assert again.articles == world.articles
    assert np.array_equal(again.dna, world.dna)


def test_search_is_held_against_all_inner_products(world: World) -> None:
    results = search.measure_search(world, 5)
    recalls = [result.value for result in results if result.name.startswith("recall@100")]
    assert recalls == [1.0] * 6  # so few articles are summed
    assert all(result.value > 0 for result in results)
    assert len(parts.measure_lstm(world, 8)) == 2


def test_backfill_stores_what_the_world_holds(world: World, redis_url: str) -> None:
    articles, purchases = parts.measure_backfill(world, redis_url)
    assert articles.value > 0
    assert purchases.value > 0


@asynccontextmanager
async def server(statuses: list[int]) -> AsyncIterator[tuple[int, Counter[bytes]]]:
    """Answers with ``statuses`` in turn: (port, first lines of what it was asked)."""
    asked: Counter[bytes] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"Content-Length")), 0)
                await reader.readexactly(length)
                asked[lines[0]] += 1
                status = statuses[asked.total() % len(statuses)]
                writer.write(b"HTTP/1.1 %d -\r\nContent-Length: 2\r\n\r\n{}" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_every_answer_is_counted_by_status(rate: float | None) -> None:
    requests = (get("/a"), post("/b", b'{"x": 1}'))
    async with server([200, 503]) as (port, asked):
        measured = await measure(Load(port, requests, connections=4, seconds=0.5, warm_up=0.1, rate=rate))
    assert set(measured.statuses) == {"200", "503"}
    assert measured.failed == measured.statuses["503"] > 0
    assert sum(measured.statuses.values()) <= asked.total()
    assert set(asked) == {b"GET /a HTTP/1.1", b"POST /b HTTP/1.1"}
    assert measured.p50 <= measured.p90 <= measured.p99


def test_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    results = [Result.of_times("one step", np.full(10, 0.002, np.float32)), Result("memory", 191.4, "MiB")]
    assert results[0].value == pytest.approx(500, rel=1e-3)
    assert results[0].p99 == pytest.approx(2, rel=1e-3)
    assert "one step" in table(results)
    write_json(tmp_path / "new" / "bench.json", results, {"articles": 5})
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["results"][1] == {
        "name": "memory",
        "value": 191.4,
        "unit": "MiB",
        "p50": None,
        "p90": None,
        "p99": None,
        "failed": None,
    }
    assert {"measured", "hardware", "versions", "conditions"} <= written.keys()


@pytest.mark.slow
def test_memory_is_shared_out(generating_world: World, tmp_path: Path) -> None:
    live = make_bundle(tmp_path / "live", generating=True)
    results = {result.name: result for result in memory.measure_memory(live, generating_world, tmp_path / "half")}
    history, session, generation = [
        result.value for name, result in results.items() if name.startswith("Redis, per customer")
    ]
    assert 512 < history < 20_000  # a state alone has 128 numbers of 4 bytes
    assert 10 * 36 < session < 10_000  # ids of 36 characters
    assert 50 < generation < 2_000
    assert 512 < results["Redis, per article"].value < 5_000
    assert results["worker, without articles"].value > 20
    assert results["Redis, 1,000,000 customers, extrapolated: histories and states"].value == pytest.approx(
        history * 1e6 / 2**30
    )


@pytest.mark.slow
def test_each_size_of_the_shop_has_its_own_stage_table(tmp_path: Path) -> None:
    sizes = [scale.Size(300, 40), scale.Size(500, 60)]
    said: list[str] = []
    results = scale.measure_scale(make_bundle(tmp_path / "live"), tmp_path, sizes, said.append)
    assert said == ["300 articles, 40 customers", "500 articles, 60 customers"] == [str(size) for size in sizes]
    values = {result.name: result.value for result in results}
    for size in sizes:
        parts_of = {name: value for name, value in values.items() if name.startswith(f"{size}: GET (style)")}
        whole = parts_of.pop(f"{size}: GET (style), one by one: all, as the client sees it")
        assert sum(parts_of.values()) == pytest.approx(whole, rel=0.05)
        assert values[f"{size}: Redis"] > 0
    assert len(values) == len(results)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]  # shops and their Redis are gone
