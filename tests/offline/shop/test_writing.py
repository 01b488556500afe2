from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.dataset import DataSet
from model_store.errors import InvalidData
from offline.commands import shop as command
from offline.shop import pictures, writing
from offline.shop.catalogue import draw_catalogue
from offline.shop.simulation import DAY, ShopConfig
from offline.shop.vocabulary import CATEGORIES, PATTERNS
from offline.shop.writing import write_shop

END = 1_795_305_600  # 2026-11-22
TINY = ShopConfig(end=END, articles=200, customers=150, days=60)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    out = tmp_path_factory.mktemp("shop") / "tiny"
    assert write_shop(out, TINY) > 1_000
    return DataSet.open(out)


def test_the_written_shop_is_valid_and_says_what_it_is(data: DataSet) -> None:
    assert data.file.synthetic
    assert data.file.window_days == 7
    assert "drifts" in data.file.description
    assert "articles 200, customers 150, days 60, seed 7" in data.file.description
    assert data.last_event < END
    assert len(data.article_ids) == 200


def test_purchases_are_of_articles_in_stock(data: DataSet) -> None:
    purchases = data.purchases()
    assert data.availability.in_stock(purchases.article, purchases.timestamp).all()
    assert not data.availability.in_stock_at(END - DAY).all()


def test_every_type_of_event_is_there(data: DataSet) -> None:
    types = {kind for batch in data.events() for kind in batch.column("type").to_pylist()}
    assert types == {"purchase", "click", "search", "return"}


def test_clicks_on_a_result_carry_the_place_it_was_shown_at(data: DataSet) -> None:
    shown = {}
    for batch in data.search_results():
        for row in batch.to_pylist():
            shown[row["query"], row["article_id"], row["timestamp"].timestamp()] = row["position"]
    latest: dict[str, str] = {}
    checked = 0
    week = 7 * DAY
    for batch in data.events():
        for row in batch.to_pylist():
            if row["type"] == "search":
                latest[row["customer_id"]] = row["query"]
            elif row["type"] == "click" and row["position"] is not None and row["customer_id"] in latest:
                moment = row["timestamp"].timestamp()
                begin = TINY.start + (moment - TINY.start) // week * week
                place = shown.get((latest[row["customer_id"]], row["article_id"], begin))
                checked += place == row["position"]
    assert checked > 100


def test_articles_are_described_and_drawn(data: DataSet) -> None:
    for article in data.articles():
        assert None not in (article.brand, article.colour, article.gender, article.description, article.price)
        assert len(article.tags) == 4
        assert sum(article.materials.values()) in (0.0, 100.0)
        content = data.image(article)
        assert content is not None
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.size, picture.mode) == ((108, 156), "RGB")


def test_the_same_arguments_give_the_same_bytes(data: DataSet, tmp_path: Path) -> None:
    write_shop(tmp_path / "again", TINY)
    files = sorted(path.relative_to(data.folder) for path in data.folder.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    for file in files:
        assert (data.folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_without_images_only_the_pictures_are_gone(data: DataSet, tmp_path: Path) -> None:
    write_shop(tmp_path / "plain", ShopConfig(end=END, articles=200, customers=150, days=60, images=False))
    plain = DataSet.open(tmp_path / "plain")
    assert not (plain.folder / "images").exists()
    without = [article.model_copy(update={"image": None}) for article in data.articles()]
    assert list(plain.articles()) == without
    assert (plain.folder / "events.parquet").read_bytes() == (data.folder / "events.parquet").read_bytes()


def test_a_shuffled_shop_has_the_same_articles_and_says_so(data: DataSet, tmp_path: Path) -> None:
    write_shop(tmp_path / "out", ShopConfig(end=END, articles=200, customers=150, days=60, shuffled=True))
    shuffled = DataSet.open(tmp_path / "out")
    assert shuffled.file.name == "shuffled sample shop"
    assert list(shuffled.articles()) == list(data.articles())
    assert shuffled.fingerprint != data.fingerprint


def test_what_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_write_pictures", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shop(tmp_path / "out", TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_refused(data: DataSet) -> None:
    with pytest.raises(InvalidData, match="is not empty"):
        write_shop(data.folder, TINY)


# --- pictures ----------------------------------------------------------------------------------------------------


def test_every_category_and_pattern_is_drawn_differently() -> None:
    silhouettes = {pictures.silhouette(category.silhouette).tobytes() for category in CATEGORIES}
    assert len(silhouettes) == len({category.silhouette for category in CATEGORIES})
    assert len({pictures.pattern(name).tobytes() for name in PATTERNS}) == len(PATTERNS)
    for category in CATEGORIES:
        assert 0.05 < pictures.silhouette(category.silhouette).mean() < 0.7


def test_a_picture_shows_the_articles_colour() -> None:
    catalogue = draw_catalogue(400, 60, np.random.default_rng(0))
    painter = pictures.Painter(catalogue, 0)
    solid = np.flatnonzero(catalogue.pattern == PATTERNS.index("solid"))
    for index in solid[:20]:
        pixels = painter.pixels(int(index)).astype(float)
        assert pixels.shape == (156, 108, 3)
        expected = np.asarray(pictures.COLOURS[pictures.COLOUR_NAMES[catalogue.colour[index]]], dtype=float)
        # Somewhere, the light being neutral, the fabric has just about its colour.
        assert np.abs(pixels - expected).max(axis=-1).min() < 30


def test_a_picture_does_not_depend_on_the_others() -> None:
    catalogue = draw_catalogue(200, 60, np.random.default_rng(0))
    one, two = pictures.Painter(catalogue, 0), pictures.Painter(catalogue, 0)
    two.pixels(3)
    assert one.jpeg(7) == two.jpeg(7)


# --- command -----------------------------------------------------------------------------------------------------


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(words)


def test_the_command_writes_a_shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    sizes = ["--articles", "200", "--customers", "100", "--days", "30"]
    command.main(parse(out, *sizes, "--end", "2026-11-22", "--seed", "3", "--no-images"))
    assert DataSet.open(tmp_path / "out").last_event < END
    assert "200 articles, 100 customers" in capsys.readouterr().out


def test_a_day_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("out", "--end", "tomorrow")
    assert "expected a day as YYYY-MM-DD" in capsys.readouterr().err
