from __future__ import annotations

import base64

import numpy as np
import pytest

from service.catalogue.follower import CatalogueFollower
from service.catalogue.intake import DAY, CatalogueIntake
from service.catalogue.records import StockLevel
from service.engine.index import ArticleIndex

from .bundled import encoder, prepared
from .test_pictures import picture

NOW = 1_780_000_000


@pytest.fixture
def follower(store) -> CatalogueFollower:
    return CatalogueFollower(store, encoder(), ArticleIndex())


@pytest.fixture
def intake(store, tmp_path) -> CatalogueIntake:
    return CatalogueIntake(store, tmp_path, lambda: NOW)


def raw(article_id: str, **fields) -> dict:
    return {"article_id": article_id, "title": "Birch red dress", "category": "dress", **fields}


def refusals(answer) -> list[tuple[int, str, str | None]]:
    return [(one.index, one.type, one.field) for one in answer.rejected]


async def test_a_new_article_is_recommendable_when_the_call_is_answered(intake, follower):
    answer = await intake.put([raw("n1"), raw("n2", price=5)], encoder(), follower)
    assert (answer.accepted, answer.rejected) == (2, ())
    assert follower.index.in_stock("n1")
    dna = follower.index.dna_of("n1")
    assert "n1" in follower.index.search(dna, 2).article_ids


async def test_an_undated_article_is_dated_when_it_first_comes_and_never_again(store, tmp_path, follower):
    await CatalogueIntake(store, tmp_path, lambda: NOW).put([raw("n1"), raw("n2", created_at=5)], encoder(), follower)
    later = CatalogueIntake(store, tmp_path, lambda: NOW + DAY)
    await later.put([raw("n1", price=3), raw("n3")], encoder(), follower)
    entries = await store.read(["n1", "n2", "n3"], encoder().bundle_version)
    assert [entry.article.created_at for entry in entries] == [NOW, 5, NOW + DAY]


async def test_each_bad_article_is_named_by_index_and_the_others_are_taken(intake, follower, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    answer = await intake.put(
        [
            raw("ok"),
            raw("dear", price=-1),
            "text",
            raw("lost", image="nowhere.jpg"),
            raw("broken", image="broken.jpg"),
            raw("out", image="../x"),
            raw("number", image=5),
            {"title": "no id", "category": "dress"},
            raw("odd", unheard_of=1),
            raw("fine"),
        ],
        encoder(),
        follower,
    )
    assert answer.accepted == 2
    assert refusals(answer) == [
        (1, "invalid_article", "price"),
        (2, "invalid_article", None),
        (3, "invalid_article", "image"),
        (4, "invalid_article", "image"),
        (5, "invalid_article", "image"),
        (6, "invalid_article", "image"),
        (7, "invalid_article", "article_id"),
        (8, "invalid_article", "unheard_of"),
    ]
    assert answer.rejected[3].message.startswith("is not a readable picture")
    assert set(follower.index.article_ids()) == {"ok", "fine"}


async def test_the_same_picture_counts_the_same_by_path_and_by_base64(intake, follower, tmp_path):
    content = picture(16, 24)
    (tmp_path / "p.png").write_bytes(content)
    await intake.put(
        [raw("path", image="p.png"), raw("text", image=base64.b64encode(content).decode()), raw("none")],
        encoder(),
        follower,
    )
    path, text, none = (follower.index.dna_of(article_id) for article_id in ("path", "text", "none"))
    np.testing.assert_allclose(path, text, atol=1e-6)
    assert np.abs(path - none).max() > 1e-3
    assert b'"image":"p.png"' in follower.index.article_json("path")
    assert b'"image":null' in follower.index.article_json("text")


async def test_what_was_trained_gets_its_trained_dna(intake, follower):
    trained = prepared()[4]  # has no picture
    record = trained.article.model_dump(exclude_defaults=True)
    await intake.put([record], encoder(), follower)
    assert (follower.index.dna_of("a004") == encoder().encode([trained]).dna[0]).all()


async def test_putting_again_replaces_everything_but_stock(intake, follower, store):
    await intake.put([raw("a", price=5, image=base64.b64encode(picture(8, 8)).decode())], encoder(), follower)
    await intake.set_stock([{"article_id": "a", "quantity": 0}], follower)
    await intake.put([raw("a", title="New")], encoder(), follower)
    assert not follower.index.in_stock("a")
    assert b'"price":null' in follower.index.article_json("a")
    assert await store.read_images(["a"]) == [None]


async def test_a_deleted_article_leaves_at_once_and_its_dna_stays(intake, follower):
    await intake.put([raw("a")], encoder(), follower)
    assert await intake.delete("a", follower)
    assert not await intake.delete("a", follower)
    assert not follower.index.knows("a")
    assert follower.index.dna_of("a") is not None


async def test_stock_levels(intake, follower, store):
    await intake.put([raw("a"), raw("b")], encoder(), follower)
    answer = await intake.set_stock(
        [
            {"article_id": "a", "quantity": 0, "set_time": NOW - 5},
            {"article_id": "a", "quantity": 9, "set_time": NOW - 9},
            {"article_id": "nobody", "quantity": 1},
            {"article_id": "b", "quantity": -1},
            {"article_id": "b", "quantity": 1.5},
            {"article_id": "b", "quantity": True},
            {"article_id": "b", "quantity": 1, "set_time": NOW + DAY + 1},
            {"article_id": "b", "quantity": 3, "set_time": "2026-01-01T00:00:00Z"},
            7,
        ],
        follower,
    )
    assert (answer.accepted, answer.stale) == (3, 1)
    assert refusals(answer) == [
        (2, "unknown_article", "article_id"),
        (3, "invalid_stock", "quantity"),
        (4, "invalid_stock", "quantity"),
        (5, "invalid_stock", "quantity"),
        (6, "invalid_stock", "set_time"),
        (8, "invalid_stock", None),
    ]
    assert not follower.index.in_stock("a")
    entries = await store.read(["a", "b"], "one")
    assert entries[0].stock == StockLevel("a", 0, NOW - 5)
    assert entries[1].stock == StockLevel("b", 3, 1_767_225_600)


async def test_nothing_is_taken_for_nothing(intake, follower):
    assert (await intake.put([], encoder(), follower)).accepted == 0
    assert (await intake.set_stock([], follower)).accepted == 0
