from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from model_store.errors import InvalidRecord
from service.catalogue.pictures import KEPT_AS_SENT, LONGEST_SIDE, kept_picture, read_picture


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_base64_of_any_kind_of_picture_is_taken_bare_or_as_a_data_uri(kind):
    content = picture(8, 8, kind)
    text = base64.b64encode(content).decode()
    assert read_picture(text, None) == (content, None)
    assert read_picture(f"data:image/{kind.lower()};base64,{text}", None) == (content, None)
    assert read_picture("\n".join(text[i : i + 76] for i in range(0, len(text), 76)), None) == (content, None)


def test_a_path_is_read_under_the_root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b.png").write_bytes(b"content")
    assert read_picture("images/a b.png", tmp_path) == (b"content", "images/a b.png")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "images/../../secret", "link", "nowhere.png", "images"])
def test_nothing_outside_the_root_is_read(tmp_path, path):
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidRecord, match="image root") as error:
        read_picture(path, root)
    assert error.value.field == "image"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("photo.jpg", "MODISTE_IMAGE_ROOT is not set"),
        ("data:image/png;base64,%%%", "not base64 of a picture"),
        (base64.b64encode(b"x" * 9_000).decode(), "not base64 of a picture"),
    ],
)
def test_what_is_no_picture_is_named(value, message):
    with pytest.raises(InvalidRecord, match=message):
        read_picture(value, None)


def test_a_path_with_a_null_byte_or_too_long_a_name_is_refused(tmp_path):
    for value in ("a\0b", "x" * 4_000):
        with pytest.raises(InvalidRecord, match=r"cannot be read|image root"):
            read_picture(value, tmp_path)


def test_a_small_picture_is_kept_byte_by_byte():
    content = picture(40, 60)
    assert kept_picture(content) is content


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_is_kept_small(kind):
    content = picture(400, 800, kind)
    kept = kept_picture(content)
    assert len(content) > KEPT_AS_SENT >= len(kept)
    with Image.open(io.BytesIO(kept)) as image:
        assert image.size == (LONGEST_SIDE // 2, LONGEST_SIDE)


def test_a_large_file_that_is_no_picture_is_refused():
    with pytest.raises(InvalidRecord, match="not a readable picture"):
        kept_picture(b"\xff\xd8\xff" + b"x" * 100_000)
