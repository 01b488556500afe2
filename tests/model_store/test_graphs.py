from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle, sample_articles

from model_store import graphs as module
from model_store.article_features import ArticleEncoder, decode_image
from model_store.article_table import load_articles
from model_store.bundle import Bundle
from model_store.errors import InvalidBundle, InvalidConfig
from model_store.graphs import Graphs, ImageEncoder, Memory, StyleLstm, check_runtime, encode_articles, open_graphs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def graphs(bundle: Bundle) -> Graphs:
    return open_graphs(bundle)


def test_raw_articles_give_the_trained_table(bundle: Bundle, graphs: Graphs) -> None:
    spec, raw = bundle.manifest.article_spec, sample_articles()
    images = [None if one.image is None else decode_image(one.image, spec) for one in raw]
    found = encode_articles(graphs, ArticleEncoder(spec), [one.article for one in raw], images)
    np.testing.assert_allclose(found, load_articles(bundle)[2], atol=1e-5)


def test_a_batch_gives_what_its_articles_give_alone(bundle: Bundle, graphs: Graphs) -> None:
    spec, raw = bundle.manifest.article_spec, sample_articles()[:6]
    encoder = ArticleEncoder(spec)
    images = [None if one.image is None else decode_image(one.image, spec) for one in raw]
    together = encode_articles(graphs, encoder, [one.article for one in raw], images)
    alone = [
        encode_articles(graphs, encoder, [one.article], [image])[0] for one, image in zip(raw, images, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_articles_give_no_dna(bundle: Bundle, graphs: Graphs) -> None:
    assert encode_articles(graphs, ArticleEncoder(bundle.manifest.article_spec), [], []).shape == (0, 128)


def test_one_step_is_a_replay_of_length_one(bundle: Bundle, graphs: Graphs) -> None:
    rng = np.random.default_rng(0)
    step = rng.normal(size=(3, bundle.manifest.time_spec.step_size)).astype(np.float32)
    memory = Memory(*(rng.normal(size=(3, 256)).astype(np.float32) for _ in range(2)))
    style, after = graphs.style_lstm.step(step, memory)
    styles, replayed = graphs.style_lstm.run_steps(step[:, None], np.ones(3, np.int32), memory)
    np.testing.assert_array_equal(style, styles[:, 0])
    np.testing.assert_array_equal(after.hidden, replayed.hidden)
    np.testing.assert_array_equal(after.cell, replayed.cell)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "style_lstm.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidBundle, match=r"style_lstm\.onnx is not a graph that onnxruntime can load"):
        StyleLstm(path)


def test_a_graph_in_anothers_place_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidBundle, match=r"style_lstm\.onnx turns steps, lengths, .* expected image into embedding"):
        ImageEncoder(bundle.path("style_lstm.onnx"))


def test_inputs_that_do_not_fit_are_refused_by_the_graphs_name(graphs: Graphs) -> None:
    with pytest.raises(InvalidBundle, match=r"style_lstm\.onnx cannot compute"):
        graphs.style_lstm.step(np.zeros((1, 3), np.float32), Memory.zeros(1))


def test_cpu_and_gpu_variants_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(*names: str) -> None:
        def find(name: str) -> object:
            if name not in names:
                raise PackageNotFoundError(name)
            return distribution("numpy")

        monkeypatch.setattr(module, "distribution", find)

    installed("onnxruntime", "faiss-cpu")
    check_runtime()
    installed("onnxruntime", "onnxruntime-gpu", "faiss-cpu")
    with pytest.raises(InvalidConfig, match="onnxruntime and onnxruntime-gpu are both installed"):
        check_runtime()
    installed("onnxruntime-gpu", "faiss-cpu", "faiss-gpu-cu12")
    with pytest.raises(InvalidConfig, match="faiss-cpu and faiss-gpu-cu12 are both installed"):
        check_runtime()
    installed("onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda")
    with pytest.raises(InvalidConfig, match="onnxruntime-genai and onnxruntime-genai-cuda are both installed"):
        check_runtime()


def test_nothing_is_told_to_the_runtimes_maker(tmp_path: Path) -> None:
    """What it would tell, it keeps in the home folder first. It keeps quiet in CI by itself, so that is taken away."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    program = "import model_store.graphs, time; time.sleep(0.5)"
    subprocess.run([sys.executable, "-c", program], env=kept | {"HOME": str(tmp_path)}, cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []
