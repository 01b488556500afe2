"""An article's picture as it is sent, and as it is kept.

What is kept is what is encoded, by this bundle and by every later one. Pictures of up to ``KEPT_AS_SENT`` bytes stay
exactly as they came, so that their pixels are those that training saw; larger ones become a JPEG of at most
``LONGEST_SIDE`` pixels, which is as much as the networks look at, and keeps Redis small.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from model_store.article_features import MAX_IMAGE_PIXELS
from model_store.errors import InvalidRecord

KEPT_AS_SENT = 64 * 1024  # bytes
LONGEST_SIDE = 256  # pixels
MAX_BYTES = 32 * 1024 * 1024

_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_LONGEST_PATH = 4_096


def read_picture(value: str, root: Path | None) -> tuple[bytes, str | None]:
    """(the picture's bytes, its path under ``root`` or None) of what a call gave as ``image``.

    That is base64, bare or as a data URI, or the path of a file under ``root``. Raises InvalidRecord (field ``image``).
    """
    content = _decoded(value)
    if content is not None:
        return content, None
    if len(value) > _LONGEST_PATH or _DATA_URI.match(value):
        raise InvalidRecord("is not base64 of a picture", field="image")
    if root is None:
        raise InvalidRecord("is not base64 of a picture, and MODISTE_IMAGE_ROOT is not set", field="image")
    return _read_file(value, root), value


def kept_picture(content: bytes) -> bytes:
    """What is kept of a picture. Raises InvalidRecord (field ``image``) for a large one that cannot be read."""
    if len(content) <= KEPT_AS_SENT:
        return content
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise InvalidRecord(f"has more than {MAX_IMAGE_PIXELS:,} pixels", field="image")
            picture.draft("RGB", (LONGEST_SIDE * 2, LONGEST_SIDE * 2))
            smaller = picture.convert("RGB")
            smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            out = io.BytesIO()
            smaller.save(out, "JPEG", quality=90)
            return out.getvalue()
    except InvalidRecord:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRecord(f"is not a readable picture ({error})", field="image") from None


def _decoded(value: str) -> bytes | None:
    """The bytes of base64 that holds a picture, else None."""
    text = _DATA_URI.sub("", value, count=1) if value[:5].lower() == "data:" else value
    try:
        content = base64.b64decode(text.translate({10: None, 13: None}), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if len(content) >= 16 and content.startswith(_BEGINNINGS) else None


def _read_file(value: str, root: Path) -> bytes:
    try:
        path = (root / value).resolve()
        if not path.is_relative_to(root.resolve()):
            raise InvalidRecord(f"'{value}' lies outside the catalogue's image root", field="image")
        if not path.is_file():
            raise InvalidRecord(f"'{value}' is no file under the catalogue's image root", field="image")
        if path.stat().st_size > MAX_BYTES:
            raise InvalidRecord(f"'{value}' has more than {MAX_BYTES:,} bytes", field="image")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"'{value}' cannot be read ({error})", field="image") from None
