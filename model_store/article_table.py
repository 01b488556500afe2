"""The table of articles in a bundle: the catalogue that it was trained on, in its Fashion DNA, and their offsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model_store import DNA_SIZE
from model_store.bundle import ARTICLE_DNA, ARTICLES, Bundle
from model_store.errors import InvalidBundle


class _ArticleTable(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    article_ids: list[str]
    fingerprints: list[str]


def write_articles(
    stage: Path,
    ids: Sequence[str],
    fingerprints: Sequence[str],
    dna: NDArray[np.float32],
    offset: NDArray[np.float32] | None = None,
) -> None:
    """Write the trained catalogue: N ids, their ``article_fingerprint`` and Fashion DNA, float32 (N, 128).

    ``offset`` float32 (N, 128): what ``dna`` holds of each article beyond its record, popularity left out.
    """
    table = {"article_ids": list(ids), "fingerprints": list(fingerprints)}
    (stage / ARTICLES).write_bytes(orjson.dumps(table))
    arrays = {"dna": dna} if offset is None else {"dna": dna, "offset": offset}
    save_file({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, stage / ARTICLE_DNA)


def load_articles(bundle: Bundle) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """(ids, fingerprints, Fashion DNA float32 (N, 128)) of the catalogue that the bundle was trained on.

    Raises InvalidBundle where the three do not belong together.
    """
    try:
        table = _ArticleTable.model_validate_json(bundle.path(ARTICLES).read_bytes())
        with safe_open(bundle.path(ARTICLE_DNA), "numpy") as arrays:
            dna = arrays.get_tensor("dna")
    except (ValidationError, SafetensorError, KeyError, OSError) as error:
        raise InvalidBundle(f"{bundle.folder}: {ARTICLES} or {ARTICLE_DNA} cannot be read ({error})") from None
    ids, fingerprints = table.article_ids, table.fingerprints
    if len(set(ids)) != len(ids):
        raise InvalidBundle(f"{bundle.folder}: {ARTICLES} names an article twice")
    if len(fingerprints) != len(ids) or dna.shape != (len(ids), DNA_SIZE) or dna.dtype != np.float32:
        raise InvalidBundle(
            f"{bundle.folder}: {len(ids)} article ids, {len(fingerprints)} fingerprints and Fashion DNA "
            f"{dna.dtype} {dna.shape} do not belong together"
        )
    if not np.isfinite(dna).all():
        raise InvalidBundle(f"{bundle.folder}: {ARTICLE_DNA} holds values that are not finite")
    return ids, fingerprints, dna


def sample_dna(bundle: Bundle, most: int) -> NDArray[np.float32]:
    """Fashion DNA, float32 (n, 128), of up to ``most`` trained articles, evenly out of the table; no more is read.

    Raises InvalidBundle where it cannot be.
    """
    try:
        with safe_open(bundle.path(ARTICLE_DNA), "numpy") as arrays:
            dna = arrays.get_slice("dna")
            size = int(dna.get_shape()[0])
            rows = np.linspace(0, size - 1, min(most, size)).astype(np.int64).tolist()
            return np.concatenate([np.zeros((0, DNA_SIZE), np.float32), *(dna[row : row + 1] for row in rows)])
    except (SafetensorError, OSError) as error:
        raise InvalidBundle(f"{bundle.folder}: {ARTICLE_DNA} cannot be read ({error})") from None


def load_offset(bundle: Bundle) -> NDArray[np.float32] | None:
    """What the Fashion DNA of trained articles holds beyond their records, float32 (N, 128), popularity left out.

    Rows are those of ``load_articles``; None where nothing was found out. Raises InvalidBundle where it does not fit.
    """
    if not bundle.manifest.article_offsets:
        return None
    try:
        with safe_open(bundle.path(ARTICLE_DNA), "numpy") as arrays:
            shape, offset = arrays.get_slice("dna").get_shape(), arrays.get_tensor("offset")
    except (SafetensorError, OSError) as error:
        raise InvalidBundle(f"{bundle.folder}: the offsets in {ARTICLE_DNA} cannot be read ({error})") from None
    if offset.shape != tuple(shape) or offset.dtype != np.float32 or not np.isfinite(offset).all():
        raise InvalidBundle(f"{bundle.folder}: the offsets in {ARTICLE_DNA} do not fit its Fashion DNA")
    found: NDArray[np.float32] = offset
    return found


class OffsetTable:
    """Offsets of a bundle that has them, read one by one, so that they take no memory: few articles need theirs."""

    def __init__(self, bundle: Bundle):
        self._row_of = {article_id: row for row, article_id in enumerate(load_articles(bundle)[0])}
        self._arrays = safe_open(bundle.path(ARTICLE_DNA), "numpy")
        self._offset = self._arrays.get_slice("offset")  # type: ignore[no-untyped-call]

    def of(self, article_id: str) -> NDArray[np.float32]:
        """The offset of an article, float32 (128); zeros of one that training did not know."""
        row = self._row_of.get(article_id)
        if row is None:
            return np.zeros(DNA_SIZE, np.float32)
        offset: NDArray[np.float32] = self._offset[row : row + 1][0]
        return offset
