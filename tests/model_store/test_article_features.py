from __future__ import annotations

import io
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store import article_features as module
from model_store.article_features import (
    ArticleEncoder,
    ArticleSpec,
    article_fingerprint,
    article_tags,
    decode_image,
)
from model_store.errors import InvalidRecord
from model_store.records import Article

SPEC = ArticleSpec(
    tags=("brand=aster", "category=dress", "colour=red", "tag=sale", "text=long", "title=dress"),
    fibres=("cotton", "wool"),
    log_price_mean=2.0,
    log_price_scale=0.5,
    image_height=24,
    image_width=16,
)
BARE = Article(article_id="a", title="Thing", category="other")
FULL = Article(
    article_id="b",
    title="Red Dress, a DRESS",
    category="Dress",
    brand="ASTER",
    colour="red",
    price=math.exp(3.0),
    tags=("Sale", "unheard of"),
    materials={"Cotton": 60, "COTTON": 10, "silk": 30},
    description="Long and wide",
    image="b.png",
)


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (40, 60), colour: object = None) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour or 0).save(file, kind)
    return file.getvalue()


def test_tags_are_fields_and_words_under_a_prefix() -> None:
    assert set(article_tags(FULL)) == {
        "category=dress",
        "brand=aster",
        "colour=red",
        "tag=sale",
        "tag=unheard of",
        "title=red",
        "title=dress",
        "text=long",
        "text=and",
        "text=wide",
    }


def test_known_tags_are_encoded_once_in_order_and_padded() -> None:
    features = ArticleEncoder(SPEC).encode([BARE, FULL], [False, True])
    assert features.tag_ids.tolist() == [[0] * 6, [1, 2, 3, 4, 5, 6]]
    assert features.tag_ids.dtype == np.int64


def test_numbers_are_price_flags_and_fibres() -> None:
    features = ArticleEncoder(SPEC).encode([BARE, FULL], [False, True])
    np.testing.assert_allclose(features.numeric[0], [0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(features.numeric[1], [(3.0 - 2.0) / 0.5, 0, 0, 0, 0.7, 0], rtol=1e-6)
    assert features.numeric.dtype == np.float32


def test_missing_is_not_the_same_as_average_or_none() -> None:
    average = FULL.model_copy(update={"price": math.exp(2.0)})
    missing = FULL.model_copy(update={"price": None})
    one, other = ArticleEncoder(SPEC).encode([average, missing], [True, True]).numeric
    assert one[0] == other[0] == 0
    assert one[1] != other[1]


def test_nothing_encoded_is_an_empty_batch() -> None:
    features = ArticleEncoder(SPEC).encode([], [])
    assert (features.tag_ids.shape, features.numeric.shape) == ((0, 1), (0, 6))


def test_a_batch_encodes_as_its_articles_do_alone() -> None:
    encoder = ArticleEncoder(SPEC)
    together, alone = encoder.encode([FULL, BARE], [True, False]), encoder.encode([BARE], [False])
    assert together.tag_ids[1].sum() == alone.tag_ids.sum() == 0
    np.testing.assert_array_equal(together.numeric[1], alone.numeric[0])


def test_the_order_of_tags_and_materials_does_not_count() -> None:
    other = FULL.model_copy(update={"tags": FULL.tags[::-1], "materials": dict(reversed(FULL.materials.items()))})
    one, two = ArticleEncoder(SPEC).encode([FULL, other], [True, True]).numeric
    np.testing.assert_allclose(one, two, rtol=1e-6)


# --- fingerprints ------------------------------------------------------------------------------------------------


def test_fingerprints_tell_all_that_fashion_dna_sees() -> None:
    changes = [
        {"title": "Red dress"},
        {"price": None},
        {"price": 20.0},
        {"brand": None},
        {"tags": ()},
        {"materials": {}},
        {"description": None},
        {"size": "M"},
    ]
    articles = [FULL, *(FULL.model_copy(update=change) for change in changes)]
    prints = [article_fingerprint(article, b"picture") for article in articles]
    prints += [article_fingerprint(FULL, None), article_fingerprint(FULL, b""), article_fingerprint(FULL, b"other")]
    assert len(set(prints)) == len(prints)


def test_fingerprints_ignore_file_names_and_dates() -> None:
    other = FULL.model_copy(update={"image": "elsewhere.jpg", "created_at": 1_700_000_000})
    assert article_fingerprint(other, b"picture") == article_fingerprint(FULL, b"picture")


def test_fingerprints_survive_json() -> None:
    again = Article.model_validate_json(FULL.model_dump_json())
    assert article_fingerprint(again, None) == article_fingerprint(FULL, None)


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_of_any_kind_get_the_specs_size(kind: str) -> None:
    image = decode_image(picture(kind, colour=(200, 30, 30)), SPEC)
    assert (image.shape, image.dtype) == ((24, 16, 3), np.uint8)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), [200, 30, 30], atol=3)


@pytest.mark.parametrize(
    ("mode", "colour"), [("L", 90), ("RGBA", (90, 90, 90, 255)), ("CMYK", (0, 0, 0, 165)), ("P", 0)]
)
def test_other_colour_modes_become_rgb(mode: str, colour: object) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_image(picture(kind, mode, colour=colour), SPEC).shape == (24, 16, 3)


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", picture()[:40], picture("JPEG")[:200], b"<svg></svg>"], ids=range(5)
)
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRecord, match="image: is not a readable picture") as caught:
        decode_image(content, SPEC)
    assert caught.value.field == "image"


def test_huge_pictures_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(InvalidRecord, match="image: has more than 1,000 pixels"):
        decode_image(picture(size=(40, 60)), SPEC)


@pytest.mark.parametrize("exif", [b"II*\0\x08\0\0\0\x01", b"II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0"])
def test_damaged_notes_of_a_sound_picture_are_nobodys_business(exif: bytes) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 10, 10)).save(file, "JPEG", exif=b"Exif\0\0" + exif)
    assert decode_image(file.getvalue(), SPEC).shape == (24, 16, 3)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_damaged_pictures_never_raise_anything_else(noise: bytes, place: int) -> None:
    sound = picture("PNG", size=(9, 9), colour=(1, 2, 3))
    with suppress(InvalidRecord):
        assert decode_image(sound[:place] + noise + sound[place:], SPEC).shape == (24, 16, 3)
