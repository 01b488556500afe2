"""A trained run put to work in another catalogue, without any further training: what zero-shot means.

Whatever is *learned* stays: the networks, the style LSTM, title encoder, language model, weights of the blend. What is
*computed* from an article is computed for each article of the other catalogue, as the service does with articles that
arrive: Fashion DNA from picture, texts and price, and title embeddings. Id embeddings are there only for what training
knew, all others share the cold one. The query-product memory learns nothing; it is filled from the other catalogue's
own result lists, up to where validation begins, with the run's own title encoder for its keys.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from model_store.article_features import ArticleSpec
from model_store.dataset import DataSet
from model_store.generation import (
    IDS,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    TITLES,
    TextEncoder,
    load_ids,
    write_ids,
    write_memory,
    write_titles,
)
from model_store.generation_spec import QUERY_ENCODER, QUERY_KEYS, QUERY_MEMORY, QUERY_TOKENIZER
from offline.article_tables import encode_catalogue, encode_dna, load_networks
from offline.config import Config
from offline.identity import run_digest
from offline.images import EmbeddingCache, embed_pictures, embeddings_of_articles, find_pictures
from offline.progress import Progress
from offline.query_memory import build_memory
from offline.run import FOLDER, Run, Split
from offline.stages import link
from offline.title_encoder import catalogue_titles

_MADE_OF = "transferred"
_COMPUTED = {
    "article_dna.safetensors",
    "image_embeddings.safetensors",
    "embedding_cache",
    "checkpoints",
    "written",
    "evaluation.json",
}
_COMPUTED_GENERATION = {TITLES, IDS, QUERY_MEMORY, QUERY_KEYS}


def transferred(run: Run, trained_on: DataSet, data: DataSet, out: Path, progress: Progress) -> Run:
    """``run``, trained on ``trained_on``, over the catalogue of ``data``, in the folder ``out``.

    What lies there already is taken where it was made of the same.
    """
    made_of = {"run": run_digest(run), "data set": data.fingerprint}
    if (out / f"{_MADE_OF}.json").is_file() and Run(out).load_json(_MADE_OF) == made_of:
        return Run(out)
    aside = Run(out.with_name(f".{out.name}.partial"))
    shutil.rmtree(aside.folder, ignore_errors=True)
    aside.folder.mkdir(parents=True)
    for path in run.folder.iterdir():
        if path.name not in {*_COMPUTED, FOLDER}:
            link(path, aside.folder / path.name)
    _encode_articles(run, aside, data, progress)
    if run.has(f"{FOLDER}/spec.json"):
        _encode_titles(run, aside, trained_on, data)
    aside.save_json(_MADE_OF, made_of)
    shutil.rmtree(out, ignore_errors=True)
    aside.folder.rename(out)
    return Run(out)


def _encode_articles(run: Run, out: Run, data: DataSet, progress: Progress) -> None:
    spec = run.load_model("article_spec", ArticleSpec)
    residual, fashion_dna, _ = load_networks(run)
    device = torch.device("cpu")
    pictures = find_pictures(data, progress)
    cache = EmbeddingCache(out.folder / "embedding_cache")
    embedding = embed_pictures(data, pictures, residual, spec, cache=cache, device=device, progress=progress)
    out.save_arrays("image_embeddings", embeddings_of_articles(pictures, embedding))
    arrays = out.load_arrays("image_embeddings")
    table = encode_catalogue(data, spec, arrays["embedding"], arrays["has_image"], progress)
    out.save_arrays("article_dna", {"dna": encode_dna(fashion_dna, table, device)})


def _encode_titles(run: Run, out: Run, trained_on: DataSet, data: DataSet) -> None:
    source, folder = run.folder / FOLDER, out.folder / FOLDER
    folder.mkdir()
    for path in source.iterdir():
        if path.name not in _COMPUTED_GENERATION:
            link(path, folder / path.name)
    encoder = TextEncoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER)
    titles, title_of = catalogue_titles(data)
    write_titles(folder, encoder.encode(titles)[title_of])

    trained = load_ids(source, trained_on.article_ids)
    shared = [(row, name) for row, name in enumerate(data.article_ids) if name in trained.row_of]
    rows = np.array([row for row, _ in shared], np.int64)
    places = [trained.row_of[name] for _, name in shared]
    write_ids(folder, trained.embedding[places].reshape(-1, trained.cold.shape[0]), rows, trained.cold)

    config = run.load_model("config", Config).generation.query_memory
    keys = TextEncoder(folder / QUERY_ENCODER, folder / QUERY_TOKENIZER) if config.clip else encoder
    known_at = run.load_model("split", Split).validation_from
    write_memory(folder, build_memory(data, keys.encode, config, known_at=known_at))
