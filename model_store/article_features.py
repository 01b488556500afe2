"""An article as Fashion DNA's network sees it: tag ids, numbers, and a picture of fixed size (Zalando 2017, §2.1–2.2).

Written once, called by training and by the service when an article arrives. What depends on the data (the tag
vocabulary, the fibres, the scale of prices) is fitted offline and travels in the bundle as an ``ArticleSpec``.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import InvalidRecord
from model_store.records import Article

# What is odd about a picture that can be read all the same, damaged EXIF say, is of no use to whoever runs a service.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_WORD = re.compile(r"\w\w+")
_TAGGED_FIELDS = ("category", "brand", "colour", "size", "gender", "season", "occasion", "holiday")
MAX_IMAGE_PIXELS = 50_000_000
PRICE_COLUMNS = (0, 1)
"""Which numeric features tell the price: its standardised logarithm, and whether it is missing."""

Image8 = NDArray[np.uint8]
"""One picture: uint8 (height, width, 3), RGB, 0 … 255."""


class ArticleSpec(BaseModel):
    """What the encoder learned from a data set.

    ``tags`` is the vocabulary; tag i has id i + 1, id 0 is padding. ``fibres`` orders the material percentages.
    ``log_price_mean`` and ``log_price_scale`` standardise the logarithm of the price. Pictures are resized to
    ``image_height`` × ``image_width`` pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[str, ...]
    fibres: tuple[str, ...]
    log_price_mean: float
    log_price_scale: Annotated[float, Field(gt=0)]
    image_height: Annotated[int, Field(ge=8, le=1024)]
    image_width: Annotated[int, Field(ge=8, le=1024)]

    @property
    def numeric_size(self) -> int:
        """M: standardised log price, three "missing" flags (price, materials, image), one share per fibre."""
        return 4 + len(self.fibres)


class ArticleFeatures(NamedTuple):
    """Encoded articles. ``tag_ids`` int64 (B, L), padded with 0 at the end; ``numeric`` float32 (B, M)."""

    tag_ids: NDArray[np.int64]
    numeric: NDArray[np.float32]


def article_tags(article: Article) -> Iterator[str]:
    """Every tag of an article, fields and words of its texts included, each under a prefix; may repeat."""
    for field in _TAGGED_FIELDS:
        value = getattr(article, field)
        if value is not None:
            yield f"{field}={value.casefold()}"
    for tag in article.tags:
        yield f"tag={tag.casefold()}"
    for word in _WORD.findall(article.title.casefold()):
        yield f"title={word}"
    for word in _WORD.findall((article.description or "").casefold()):
        yield f"text={word}"


def article_fingerprint(article: Article, image: bytes | None) -> str:
    """SHA-256 of all that Fashion DNA depends on: the record less dates and file names, and the picture's bytes."""
    record = article.model_dump(mode="json", exclude={"image", "created_at"}, exclude_defaults=True)
    digest = hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
    digest.update(b"\0" + hashlib.sha256(image).digest() if image is not None else b"")
    return digest.hexdigest()


class ArticleEncoder:
    """Turns articles into network inputs, by one spec."""

    def __init__(self, spec: ArticleSpec):
        self.spec = spec
        self._tag_ids = {tag: index + 1 for index, tag in enumerate(spec.tags)}
        self._fibres = {fibre: 4 + index for index, fibre in enumerate(spec.fibres)}

    def encode(self, articles: Sequence[Article], has_image: Sequence[bool]) -> ArticleFeatures:
        """Features of B articles. ``has_image`` (B): which pictures exist. Unknown tags and fibres are left out."""
        rows = [self._known_tags(article_tags(article)) for article in articles]
        tag_ids = np.zeros((len(rows), max((len(row) for row in rows), default=0) or 1), dtype=np.int64)
        numeric = np.zeros((len(rows), self.spec.numeric_size), dtype=np.float32)
        for index, (article, row) in enumerate(zip(articles, rows, strict=True)):
            tag_ids[index, : len(row)] = row
            self._fill_numeric(numeric[index], article, has_image[index])
        return ArticleFeatures(tag_ids, numeric)

    def _known_tags(self, tags: Iterable[str]) -> list[int]:
        return sorted({self._tag_ids[tag] for tag in tags if tag in self._tag_ids})

    def _fill_numeric(self, row: NDArray[np.float32], article: Article, has_image: bool) -> None:
        if article.price is None:
            row[1] = 1.0
        else:
            row[0] = (math.log(article.price) - self.spec.log_price_mean) / self.spec.log_price_scale
        row[2] = float(not article.materials)
        row[3] = float(not has_image)
        for fibre, percentage in article.materials.items():
            column = self._fibres.get(fibre.casefold())
            if column is not None:
                row[column] += percentage / 100.0


def decode_image(content: bytes, spec: ArticleSpec) -> Image8:
    """The picture in ``content`` (JPEG, PNG, WebP, …) as uint8 (spec.image_height, spec.image_width, 3), RGB.

    Raises InvalidRecord (field ``image``) where it is no readable picture or has more than 50 megapixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise InvalidRecord(f"has more than {MAX_IMAGE_PIXELS:,} pixels", field="image")
            picture.draft("RGB", (spec.image_width * 2, spec.image_height * 2))
            resized = picture.convert("RGB").resize(
                (spec.image_width, spec.image_height), Image.Resampling.BILINEAR, reducing_gap=2.0
            )
            return np.asarray(resized, dtype=np.uint8)
    except InvalidRecord:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRecord(f"is not a readable picture ({error})", field="image") from None
