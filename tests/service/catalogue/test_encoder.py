from __future__ import annotations

from dataclasses import replace

import numpy as np
from bundles import make_bundle, sample_contents

from model_store.article_features import article_fingerprint
from model_store.article_table import load_articles
from model_store.generation import TITLE_ENCODER, TITLE_TOKENIZER, TextEncoder, load_titles
from model_store.popularity import POPULARITY
from offline.bundling import write_bundle
from service.catalogue.encoder import CatalogueEncoder, prepare
from service.catalogue.records import CatalogueEntry

from .bundled import bundle, encoder, prepared
from .test_pictures import picture


def test_the_trained_catalogue_comes_from_the_table():
    articles = prepared()
    ids, _, table = load_articles(bundle())
    encoded = encoder().encode(articles)
    assert [stored.article.article_id for stored in articles] == list(ids)
    assert not encoded.refused
    assert (encoded.dna == table).all()


def test_what_the_graphs_make_of_the_trained_articles_is_what_the_table_says():
    articles = prepared()
    unknown = [replace(stored, fingerprint="0" * 64) for stored in articles]
    np.testing.assert_allclose(encoder().encode(unknown).dna, encoder().encode(articles).dna, atol=1e-4)


def test_what_an_article_sold_is_kept_where_its_record_changes(tmp_path):
    popular = write_bundle(tmp_path, sample_contents(articles=20, popularity=True))
    coder, articles = CatalogueEncoder(popular), prepared()
    table = load_articles(popular)[2]
    assert (coder.encode(articles).dna == table).all()
    changed = [replace(stored, fingerprint="0" * 64) for stored in articles]
    np.testing.assert_allclose(coder.encode(changed).dna, table, atol=1e-4)
    new = replace(changed[19], article=changed[19].article.model_copy(update={"article_id": "new"}))
    np.testing.assert_allclose(coder.encode([new]).dna[0, :POPULARITY], table[19, :POPULARITY], atol=1e-4)
    assert table[19, POPULARITY] > 0
    assert coder.encode([new]).dna[0, POPULARITY] == np.float32(popular.manifest.newcomer_popularity) == 0.25


def test_an_article_keeps_its_offset_where_its_record_changes(tmp_path):
    contents = sample_contents(articles=20, popularity=True, offsets=True)
    coder, articles = CatalogueEncoder(write_bundle(tmp_path, contents)), prepared()
    table, offset = contents.catalogue.dna, contents.catalogue.offset
    assert np.abs(offset).max() > 0.1
    assert (coder.encode(articles).dna == table).all()
    changed = [replace(stored, fingerprint="0" * 64) for stored in articles]
    np.testing.assert_allclose(coder.encode(changed).dna, table, atol=1e-4)
    new = replace(changed[19], article=changed[19].article.model_copy(update={"article_id": "new"}))
    np.testing.assert_allclose(coder.encode([new]).dna[0, :POPULARITY], (table - offset)[19, :POPULARITY], atol=1e-4)
    refused = coder.encode([replace(changed[0], image=b"no picture")])
    assert not refused.dna.any()


def test_a_batch_equals_one_by_one_across_batch_borders():
    articles = [replace(stored, fingerprint=f"{number:064x}") for number, stored in enumerate(prepared() * 5)]
    together = encoder().encode(articles).dna
    alone = np.concatenate([encoder().encode([stored]).dna for stored in articles])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_unreadable_picture_costs_that_one_article_only():
    articles = [replace(stored, fingerprint="1" * 64) for stored in prepared()[:3]]
    articles[1] = replace(articles[1], image=b"no picture")
    encoded = encoder().encode(articles)
    assert encoded.usable == [0, 2]
    assert encoded.refused[1].field == "image"
    assert "not a readable picture" in str(encoded.refused[1])
    assert encoded.dna[2].any()


def test_a_picture_counts():
    article = prepared()[0].article
    with_picture = prepare(article, picture(16, 24))
    without = prepare(article, None)
    dna = encoder().encode([with_picture, without]).dna
    assert np.abs(dna[0] - dna[1]).max() > 1e-3


def test_a_fingerprint_is_that_of_the_picture_as_it_was_sent():
    article, large = prepared()[0].article, picture(400, 800)
    stored = prepare(article, large)
    assert stored.fingerprint == article_fingerprint(article, large)
    assert stored.image is not None
    assert len(stored.image) < len(large)


def test_titles_are_those_of_the_table_and_of_the_graph_alike(tmp_path):
    generating = make_bundle(tmp_path, articles=20, generating=True)
    titles = load_titles(generating.folder, 20)
    texts = TextEncoder(generating.path(TITLE_ENCODER), generating.path(TITLE_TOKENIZER))
    encoder = CatalogueEncoder(generating, title_encoder=texts)
    entries = [CatalogueEntry(stored.article, stored.fingerprint, True, None, None) for stored in prepared()]
    assert encoder.encodes_titles
    assert (encoder.encode_titles(entries, from_table=True) == titles).all()
    np.testing.assert_allclose(encoder.encode_titles(entries), titles, atol=1e-5)
    renamed = replace(entries[3], fingerprint="0" * 64, article=entries[4].article)
    found = encoder.encode_titles([entries[0], renamed, entries[5]], from_table=True)
    np.testing.assert_allclose(found, titles[[0, 4, 5]], atol=1e-5)
    encoder.forget_table()
    assert (encoder.encode_titles(entries[:1], from_table=True) == titles[:1]).all()
    assert not CatalogueEncoder(generating).encodes_titles


def test_nothing_gives_nothing_and_a_forgotten_table_is_read_again():
    fresh = CatalogueEncoder(bundle())
    assert fresh.encode([]).dna.shape == (0, 128)
    before = fresh.encode(prepared()).dna
    fresh.forget_table()
    assert (fresh.encode(prepared()).dna == before).all()
    assert fresh.bundle_version.startswith("one@")
