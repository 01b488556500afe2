"""Articles → Fashion DNA and title embeddings, by one bundle's graphs or from its tables of what training encoded.

Nothing here waits for anything but the processor: call it in a thread where an event loop must go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store import DNA_SIZE
from model_store.article_features import ArticleEncoder, Image8, article_fingerprint, decode_image
from model_store.article_table import OffsetTable, load_articles
from model_store.bundle import Bundle
from model_store.errors import InvalidRecord
from model_store.generation import TEXT_SIZE, TextEncoder, load_titles
from model_store.graphs import encode_articles, open_graphs
from model_store.popularity import POPULARITY
from model_store.records import Article
from service.catalogue.pictures import kept_picture
from service.catalogue.records import CatalogueEntry, Float32, StoredArticle
from service.engine.space import InvalidVector, check_vectors
from service.engine.style import bundle_stamp

BATCH = 64


@dataclass(frozen=True)
class Encoded:
    """``dna`` float32 (N, 128) of N articles; ``refused`` names by index those that have none, their rows are 0."""

    dna: Float32
    refused: Mapping[int, InvalidRecord]

    @property
    def usable(self) -> list[int]:
        """Indexes of the articles that have DNA, ascending."""
        return [index for index in range(len(self.dna)) if index not in self.refused]


def prepare(article: Article, image: bytes | None) -> StoredArticle:
    """The article as it is kept, from the picture as it was sent. Raises InvalidRecord (field ``image``).

    The fingerprint is that of the picture as sent, so training and serving agree on it whatever is kept.
    """
    kept = None if image is None else kept_picture(image)
    return StoredArticle(article, article_fingerprint(article, image), kept)


class CatalogueEncoder:
    """Encodes articles by one bundle. May be called from several threads.

    ``title_encoder``: the bundle's, where it has a generating half.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, *, title_encoder: TextEncoder | None = None):
        self._bundle, self._spec = bundle, bundle.manifest.article_spec
        self._title_encoder = title_encoder
        self._features, self._graphs = ArticleEncoder(self._spec), open_graphs(bundle, threads)

    @property
    def bundle_version(self) -> str:
        """What the DNA is kept under: version and fingerprint, since a version may be exported anew."""
        return bundle_stamp(self._bundle.manifest)

    def encode(self, articles: Sequence[StoredArticle]) -> Encoded:
        """DNA of each article; what has no readable picture where it should have one is refused by itself."""
        dna = np.zeros((len(articles), DNA_SIZE), np.float32)
        unknown: list[int] = []
        for index, stored in enumerate(articles):
            row = self._row_of.get(bytes.fromhex(stored.fingerprint))
            if row is None:
                unknown.append(index)
            else:
                dna[index] = self._dna[row]
        refused: dict[int, InvalidRecord] = {}
        for start in range(0, len(unknown), BATCH):
            self._encode_batch(articles, unknown[start : start + BATCH], dna, refused)
        for index in unknown:
            if index not in refused:
                self._add_what_was_learned(articles[index].article.article_id, dna[index])
        return Encoded(dna, refused)

    def _add_what_was_learned(self, article_id: str, dna: Float32) -> None:
        """Add to the ``dna`` of a record, float32 (128), what training found out about the article beyond it."""
        manifest = self._bundle.manifest
        if manifest.newcomer_popularity is not None:
            dna[POPULARITY] = self._sold.get(article_id, manifest.newcomer_popularity)
        if manifest.article_offsets:
            dna += self._offsets.of(article_id)

    @property
    def encodes_titles(self) -> bool:
        """Whether the bundle has a generating half, whose index holds title embeddings."""
        return self._title_encoder is not None

    def encode_titles(self, entries: Sequence[CatalogueEntry], *, from_table: bool = False) -> Float32:
        """Title embeddings, float32 (N, 128), each of length 1.

        ``from_table``: as training computed them, where it did; for whole catalogues, since the table is read for it.
        """
        assert self._title_encoder is not None
        if not from_table:
            return self._title_encoder.encode([entry.article.title for entry in entries])
        rows = [self._row_of.get(bytes.fromhex(entry.fingerprint), -1) for entry in entries]
        embedding = np.zeros((len(entries), TEXT_SIZE), np.float32)
        known = np.array(rows, np.int64) >= 0
        embedding[known] = self._titles[[row for row in rows if row >= 0]]
        unknown = [entry.article.title for entry, row in zip(entries, rows, strict=True) if row < 0]
        if unknown:
            embedding[~known] = self._title_encoder.encode(unknown)
        return embedding

    def forget_table(self) -> None:
        """Free the trained catalogue's tables; they are read again where they are needed."""
        for table in ("_row_of", "_sold", "_offsets", "_dna", "_titles"):
            self.__dict__.pop(table, None)

    # Each table is kept by itself, since a whole catalogue is loaded without those that its store holds already.

    @cached_property
    def _row_of(self) -> Mapping[bytes, int]:
        """The rows of the trained catalogue by fingerprint."""
        return {bytes.fromhex(digest): row for row, digest in enumerate(load_articles(self._bundle)[1])}

    @cached_property
    def _sold(self) -> Mapping[str, float]:
        """The popularity component by id: no part of a record, so an article keeps it when its record changes.

        By itself, since the whole of the table would stay in memory from the first article that is sent on.
        """
        ids, _, dna = load_articles(self._bundle)
        return dict(zip(ids, dna[:, POPULARITY].tolist(), strict=True))

    @cached_property
    def _offsets(self) -> OffsetTable:
        """What Fashion DNA holds beyond records, which an article keeps as it keeps what it ``_sold``."""
        return OffsetTable(self._bundle)

    @cached_property
    def _dna(self) -> Float32:
        return load_articles(self._bundle)[2]

    @cached_property
    def _titles(self) -> Float32:
        return load_titles(self._bundle.folder, len(load_articles(self._bundle)[0]))

    def _encode_batch(
        self, articles: Sequence[StoredArticle], batch: Sequence[int], dna: Float32, refused: dict[int, InvalidRecord]
    ) -> None:
        """Fill ``dna`` for the articles at ``batch``, or say in ``refused`` why not."""
        pictures: dict[int, Image8 | None] = {}
        for index in batch:
            image = articles[index].image
            try:
                pictures[index] = None if image is None else decode_image(image, self._spec)
            except InvalidRecord as error:
                refused[index] = error
        chosen = [articles[index].article for index in pictures]
        vectors = encode_articles(self._graphs, self._features, chosen, list(pictures.values()))
        for place, index in enumerate(pictures):
            try:
                dna[index] = check_vectors(vectors[place], f"Fashion DNA by bundle '{self.bundle_version}'")
            except InvalidVector as error:
                refused[index] = InvalidRecord(str(error))
