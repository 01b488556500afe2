from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from bundles import make_bundle
from generating_halves import unit_rows
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from text_encoders import reference_embedding, write_text_encoder

from model_store.article_table import load_articles
from model_store.bundle import Bundle
from model_store.errors import InvalidBundle
from model_store.generation import (
    IDS,
    MAX_TEXT_TOKENS,
    QUERY_ENCODER,
    QUERY_KEYS,
    QUERY_MEMORY,
    QUERY_TOKENIZER,
    TITLE_ENCODER,
    TITLE_TOKENIZER,
    TITLES,
    Generation,
    IdEmbeddings,
    QueryMemory,
    TextEncoder,
    load_ids,
    load_memory,
    load_titles,
    mixup,
    open_generation,
    pad_tokens,
    text_tokens,
    write_ids,
    write_memory,
    write_titles,
)
from model_store.tokens import read_tokenizer

# --- mixup -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_id", "by_title", "k", "n", "expected"),
    [
        ("abc", "def", 3, 1, "aef"),  # the paper's: top N by id, positions N + 1 … K by title
        ("abc", "def", 9, 1, "aef"),
        ("abc", "def", 2, 1, "ae"),
        ("abc", "def", 3, 0, "def"),
        ("abc", "def", 3, 2, "abf"),
        ("abc", "def", 3, 3, "abc"),
        ("abc", "def", 2, 5, "ab"),
        ("abc", "defg", 4, 9, "abcg"),
        ("abc", "dafgh", 4, 1, "afgh"),  # what comes twice makes room for the next
        ("abc", "dbafg", 4, 2, "abfg"),
        ("", "def", 3, 1, "def"),  # no id list: the titles from their beginning
        ("a", "def", 3, 2, "aef"),
        ("abc", "", 3, 1, "a"),
        ("", "", 3, 1, ""),
        ("abc", "def", 0, 1, ""),
    ],
)
def test_mixup(by_id: str, by_title: str, k: int, n: int, expected: str) -> None:
    assert mixed([*map(ord, by_id)], [*map(ord, by_title)], k, n) == [*map(ord, expected)]


def mixed(by_id: list[int], by_title: list[int], k: int, n: int) -> list[int]:
    rows: list[int] = mixup(np.array(by_id, np.int64), np.array(by_title, np.int64), k, n).tolist()
    return rows


LISTS = st.lists(st.integers(0, 20), unique=True, max_size=12)


@given(LISTS, LISTS, st.integers(0, 12), st.integers(0, 12))
def test_mixup_names_nothing_twice_and_begins_with_the_id_list(
    by_id: list[int], by_title: list[int], k: int, n: int
) -> None:
    found = mixed(by_id, by_title, k, n)
    head = by_id[: min(n, k)]
    assert found[: len(head)] == head
    assert len(found) == len(set(found)) <= k
    rest = [each for each in by_title[len(by_id[:n]) :] if each not in by_id[:n]]
    assert found[len(head) :] == rest[: max(k - len(head), 0)]


# --- the query-product memory ------------------------------------------------------------------------------------


def axes(*rows: int) -> np.ndarray:
    return np.eye(128, dtype=np.float32)[list(rows)]


def test_candidates_are_the_top_articles_of_the_nearest_queries() -> None:
    memory = QueryMemory("pqr", axes(0, 1, 2), ["abc", "bde", "xyz"])
    query = (axes(0)[0] * 0.9 + axes(1)[0] * 0.4).astype(np.float32)
    assert memory.candidates(query, 1, 2) == ["a", "b"]
    assert memory.candidates(query, 2, 2) == ["a", "b", "d"]
    assert memory.candidates(query, 9, 1) == ["a", "b", "x"]
    assert memory.candidates(query, 2, 2, lambda article_id: article_id not in "ab") == ["c", "d", "e"]
    assert memory.candidates(query, 2, 2, lambda _: False) == []


def test_an_empty_memory_has_no_candidates() -> None:
    assert QueryMemory([], np.zeros((0, 128), np.float32), []).candidates(axes(0)[0], 3, 5) == []


def test_equally_near_queries_come_in_order_of_the_table() -> None:
    memory = QueryMemory("pqrs", axes(5, 7, 5, 7), ["a", "b", "c", "d"])
    assert memory.candidates(axes(5)[0], 3, 1) == ["a", "c", "b"]
    assert memory.candidates(axes(9)[0], 2, 1) == ["a", "b"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 14))
def test_the_nearest_queries_equal_a_full_sort(angles: list[int], nearest: int) -> None:
    keys = np.zeros((len(angles), 128), np.float32)
    keys[:, 0], keys[:, 1] = 1, angles
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    memory = QueryMemory([str(row) for row in range(len(angles))], keys, [[str(row)] for row in range(len(angles))])
    expected = sorted(range(len(angles)), key=lambda row: (angles[row], row))[:nearest]
    assert memory.candidates(axes(0)[0], nearest, 1) == [str(row) for row in expected]


# --- id embeddings -----------------------------------------------------------------------------------------------


def test_unseen_articles_have_the_cold_embedding() -> None:
    ids = IdEmbeddings({"a": 0, "b": 1}, axes(0, 1), axes(9)[0])
    np.testing.assert_array_equal(ids.of(["b", "new", "a"]), axes(1, 9, 0))
    assert (ids.knows("a"), ids.knows("new")) == (True, False)
    assert ids.of([]).shape == (0, 128)


def test_a_table_without_articles_is_all_cold() -> None:
    ids = IdEmbeddings({}, np.zeros((0, 128), np.float32), axes(9)[0])
    np.testing.assert_array_equal(ids.of(["x", "y"]), axes(9, 9))


# --- tables on disk ----------------------------------------------------------------------------------------------


def random_unit(rows: int, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(rows, 128)))


def write_all(folder: Path) -> None:
    write_titles(folder, random_unit(4))
    write_ids(folder, random_unit(2), np.array([3, 0]), random_unit(1)[0])
    write_memory(folder, QueryMemory(["red", "ü"], random_unit(2), [["a", "b"], []]))


def load_all(folder: Path) -> None:
    load_titles(folder, 4)
    load_ids(folder, "abcd")
    load_memory(folder)


def test_tables_round_trip(tmp_path: Path) -> None:
    write_all(tmp_path)
    np.testing.assert_array_equal(load_titles(tmp_path, 4), random_unit(4))
    ids = load_ids(tmp_path, "abcd")
    np.testing.assert_array_equal(ids.of(["d", "a", "b"]), [*random_unit(2), random_unit(1)[0]])
    memory = load_memory(tmp_path)
    assert (memory.queries, memory.article_ids) == (["red", "ü"], [["a", "b"], []])
    np.testing.assert_array_equal(memory.keys, random_unit(2))


def test_empty_tables_round_trip(tmp_path: Path) -> None:
    nothing = np.zeros((0, 128), np.float32)
    write_titles(tmp_path, nothing)
    write_ids(tmp_path, nothing, np.zeros(0, np.int64), random_unit(1)[0])
    write_memory(tmp_path, QueryMemory([], nothing, []))
    assert load_titles(tmp_path, 0).shape == (0, 128)
    assert not load_ids(tmp_path, []).row_of
    assert load_memory(tmp_path).candidates(random_unit(1)[0], 3, 5) == []


@pytest.mark.parametrize("name", [TITLES, IDS, QUERY_KEYS, QUERY_MEMORY])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"[]"])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    write_all(tmp_path)
    load_all(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidBundle, match=f"{name}: cannot be read"):
        load_all(tmp_path)


Arrays = dict[str, np.ndarray]
ARRAY_FAULTS: list[tuple[str, Callable[[Arrays], Arrays], str]] = [
    (TITLES, lambda a: {"embedding": a["embedding"][:3]}, r"holds float32 \(3, 128\) instead of float32 \(4, 128\)"),
    (TITLES, lambda a: {"embedding": a["embedding"][:, :64]}, r"holds float32 \(4, 64\)"),
    (TITLES, lambda a: {"embedding": a["embedding"].astype(np.float64)}, "holds float64"),
    (TITLES, lambda a: {"embedding": a["embedding"] * 2}, "vectors that do not have length 1"),
    (TITLES, lambda a: {"embedding": a["embedding"] * np.nan}, "vectors that do not have length 1"),
    (TITLES, lambda a: {"other": a["embedding"]}, "cannot be read"),
    (IDS, lambda a: {**a, "rows": np.array([0, 4])}, "rows do not name articles of the bundle, each once"),
    (IDS, lambda a: {**a, "rows": np.array([0, -1])}, "rows do not name articles"),
    (IDS, lambda a: {**a, "rows": np.array([0, 0])}, "rows do not name articles"),
    (IDS, lambda a: {**a, "rows": np.array([0.0, 1.0])}, "rows do not name articles"),
    (IDS, lambda a: {**a, "rows": np.array([[0, 1]])}, "rows do not name articles"),
    (IDS, lambda a: {**a, "rows": np.array(0)}, r"instead of float32 \(1, 128\)"),
    (IDS, lambda a: {**a, "cold": a["cold"] * 0}, "vectors that do not have length 1"),
    (IDS, lambda a: {**a, "cold": np.array(1, np.float32)}, r"instead of float32 \(1, 128\)"),
    (IDS, lambda a: {**a, "embedding": a["embedding"][:1]}, r"instead of float32 \(2, 128\)"),
    (QUERY_KEYS, lambda a: {"keys": a["keys"][:1]}, r"instead of float32 \(2, 128\)"),
]


@pytest.mark.parametrize(("name", "change", "message"), ARRAY_FAULTS)
def test_a_table_that_does_not_fit_is_named(
    tmp_path: Path, name: str, change: Callable[[Arrays], Arrays], message: str
) -> None:
    write_all(tmp_path)
    arrays = {key: array.copy() for key, array in load_file(tmp_path / name).items()}
    save_file({key: array.copy() for key, array in change(arrays).items()}, tmp_path / name)
    with pytest.raises(InvalidBundle, match=f"{name}: .*{message}"):
        load_all(tmp_path)


@pytest.mark.parametrize(
    "table",
    [{"queries": ["red"]}, {"queries": ["red"], "article_ids": [[1]]}, {"queries": [], "article_ids": [], "x": 1}],
)
def test_a_memory_of_another_form_is_refused(tmp_path: Path, table: dict) -> None:
    write_all(tmp_path)
    (tmp_path / QUERY_MEMORY).write_bytes(orjson.dumps(table))
    with pytest.raises(InvalidBundle, match=rf"{QUERY_MEMORY}: cannot be read"):
        load_memory(tmp_path)


def test_a_memory_with_more_queries_than_lists_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / QUERY_MEMORY).write_bytes(orjson.dumps({"queries": ["red", "ü"], "article_ids": [["a"]]}))
    with pytest.raises(InvalidBundle, match=rf"{QUERY_MEMORY}: 2 queries, 1 lists"):
        load_memory(tmp_path)


# --- text encoder ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    write_text_encoder(folder / TITLE_ENCODER, folder / TITLE_TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> TextEncoder:
    return TextEncoder(encoder_folder / TITLE_ENCODER, encoder_folder / TITLE_TOKENIZER)


TEXTS = ["black dress", "", "Red JEANS", "x" * 500, "платье", "blue  sneaker\n", "</s> {x}", *"abcdefgh"]


def test_texts_are_encoded_as_the_reference_does(encoder: TextEncoder) -> None:
    np.testing.assert_allclose(encoder.encode(TEXTS), reference_embedding(TEXTS), atol=1e-6)


def test_a_batch_gives_what_its_texts_give_alone(encoder: TextEncoder) -> None:
    many = [f"{text} {number}" for number in range(40) for text in TEXTS]  # more than one run of the graph
    together = encoder.encode(many)
    np.testing.assert_allclose(together, [encoder.encode([text])[0] for text in many], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(many[::-1]), together[::-1], atol=1e-6)


def test_case_and_white_space_do_not_matter(encoder: TextEncoder) -> None:
    first, second = encoder.encode(["Black  DRESS ", "black dress"])
    np.testing.assert_array_equal(first, second)


def test_no_texts_give_no_embeddings(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, 128)


def test_tokens_are_cut_and_never_none(encoder_folder: Path) -> None:
    tokenizer = read_tokenizer(encoder_folder / TITLE_TOKENIZER)
    assert [len(text_tokens(tokenizer, text)) for text in ("", "\u200b", "x" * 500)] == [1, 1, MAX_TEXT_TOKENS]


def test_padding() -> None:
    inputs = pad_tokens([[3, 4], [5], [6, 7, 8]])
    assert inputs["token_ids"].tolist() == [[3, 4, 0], [5, 0, 0], [6, 7, 8]]
    assert inputs["lengths"].tolist() == [2, 1, 3]
    assert (inputs["token_ids"].dtype, inputs["lengths"].dtype) == (np.int64, np.int32)


def test_a_tokenizer_of_another_graph_is_found_out(encoder_folder: Path, tmp_path: Path) -> None:
    """Its token ids are none of the graph's."""
    saved = orjson.loads((encoder_folder / TITLE_TOKENIZER).read_bytes())
    saved["model"]["vocab"] = {token: number + 1_000 for token, number in saved["model"]["vocab"].items()}
    (tmp_path / TITLE_TOKENIZER).write_bytes(orjson.dumps(saved))
    encoder = TextEncoder(encoder_folder / TITLE_ENCODER, tmp_path / TITLE_TOKENIZER)
    with pytest.raises(InvalidBundle, match=r"title_encoder\.onnx cannot compute"):
        encoder.encode(["black dress"])


def test_embeddings_of_another_width_are_refused(tmp_path: Path) -> None:
    write_text_encoder(tmp_path / TITLE_ENCODER, tmp_path / TITLE_TOKENIZER, width=64)
    encoder = TextEncoder(tmp_path / TITLE_ENCODER, tmp_path / TITLE_TOKENIZER)
    with pytest.raises(InvalidBundle, match=r"title_encoder\.onnx gives \(1, 64\) for 1 texts; expected 128 wide"):
        encoder.encode(["black dress"])


# --- the whole half ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("store"), generating=True)


def opened(bundle: Bundle, **changed: str) -> Generation:
    assert bundle.manifest.generation is not None
    spec = bundle.manifest.generation.model_copy(update=changed)
    return open_generation(bundle.folder, spec, load_articles(bundle)[0])


def test_a_bundles_generating_half_opens(bundle: Bundle) -> None:
    generation = opened(bundle)
    assert generation.query_encoder is generation.title_encoder
    assert (generation.ids.knows("a000"), generation.ids.knows("a009")) == (True, False)
    query = generation.memory.queries[3]
    found = generation.memory.candidates(generation.query_encoder.encode([query])[0], 1, 3)
    assert found == generation.memory.article_ids[3][:3]


def test_a_query_encoder_of_its_own_is_opened(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.folder, tmp_path, dirs_exist_ok=True)
    write_text_encoder(tmp_path / QUERY_ENCODER, tmp_path / QUERY_TOKENIZER)
    generation = opened(Bundle(tmp_path, bundle.manifest), query_encoder="clip")
    np.testing.assert_allclose(
        generation.query_encoder.encode(["red jeans"]), reference_embedding(["red jeans"]), atol=1e-6
    )
    assert generation.title_encoder.encode(["red jeans"]) @ reference_embedding(["red jeans"])[0] < 0.9
    (tmp_path / QUERY_ENCODER).unlink()
    with pytest.raises(InvalidBundle, match=QUERY_ENCODER):
        opened(Bundle(tmp_path, bundle.manifest), query_encoder="clip")
