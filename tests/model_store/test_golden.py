from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from bundles import make_bundle
from safetensors.numpy import load_file, save_file

from model_store import golden, prompts
from model_store.article_table import load_articles
from model_store.bundle import GOLDEN_ARRAYS, GOLDEN_CASES, MANIFEST, Bundle, open_bundle, read_manifest
from model_store.errors import InvalidBundle
from model_store.generation import QueryMemory, open_generation
from model_store.generation_spec import GenerationSpec, LanguageModelCard
from model_store.prompts import PromptSpec
from model_store.tokens import Tokenizer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path, version="v1")


def edit(bundle: Bundle, name: str, change: Callable[[dict], object]) -> Bundle:
    """The bundle with one of its JSON files changed; hashes are not looked at by the golden check."""
    values = orjson.loads(bundle.path(name).read_bytes())
    change(values)
    bundle.path(name).write_bytes(orjson.dumps(values))
    return bundle


def edit_arrays(bundle: Bundle, change: Callable[[dict], object]) -> Bundle:
    arrays = {name: array.copy() for name, array in load_file(bundle.path(GOLDEN_ARRAYS)).items()}
    change(arrays)
    save_file(arrays, bundle.path(GOLDEN_ARRAYS))
    return bundle


def test_a_sound_bundle_passes(bundle: Bundle) -> None:
    golden.check(bundle)


def test_a_difference_within_the_tolerance_passes_and_one_beyond_is_named(bundle: Bundle) -> None:
    edit_arrays(bundle, lambda arrays: np.add.at(arrays["style"], (2, 5), 5e-5))
    golden.check(bundle)
    edit_arrays(bundle, lambda arrays: np.add.at(arrays["style"], (2, 5), 2e-4))
    with pytest.raises(InvalidBundle, match=r"golden customer 'two orders': style by replay differs by 0\.0002"):
        golden.check(bundle)


def test_nan_is_a_difference(bundle: Bundle) -> None:
    edit_arrays(bundle, lambda arrays: arrays["dna"].__setitem__((1, 0), np.nan))
    with pytest.raises(InvalidBundle, match="golden article 'a001': Fashion DNA from its record differs by nan"):
        golden.check(bundle)


CASE_FAULTS: list[tuple[Callable[[dict], object], str]] = [
    (lambda c: c["articles"][0]["article"].update(brand="Dune", colour="pink"), "golden article 'a000': Fashion DNA"),
    (lambda c: c["articles"][0].pop("image"), "golden article 'a000': Fashion DNA"),
    (lambda c: c["articles"][0].update(image="bm90IGEgcGljdHVyZQ=="), "image: is not a readable picture"),
    (lambda c: c["articles"][0].update(image="abc"), "golden.json or golden.safetensors cannot be read"),
    (lambda c: c["articles"][0]["article"].update(price=-1), "cannot be read"),
    (lambda c: c["articles"].pop(), "does not fit the cases"),
    (lambda c: c["customers"][1].update(read_time=1_700_000_000), "golden customer 'one purchase': style"),
    (lambda c: c["customers"][1]["purchases"][0].update(article_id="a004"), "golden customer 'one purchase': style"),
    (lambda c: c["customers"][1]["purchases"][0].update(article_id="zz"), "bought 'zz', which was never trained"),
    (lambda c: c.update(customers=[]), "cannot be read"),
]


@pytest.mark.parametrize(("change", "message"), CASE_FAULTS, ids=[message for _, message in CASE_FAULTS])
def test_a_case_that_is_not_met_is_named(bundle: Bundle, change, message: str) -> None:
    with pytest.raises(InvalidBundle, match=message):
        golden.check(edit(bundle, GOLDEN_CASES, change))


SPEC_FAULTS: list[tuple[Callable[[dict], object], str]] = [
    (lambda m: m["article_spec"]["tags"].reverse(), "Fashion DNA from its record differs"),
    (lambda m: m["article_spec"].update(log_price_mean=1.0), "Fashion DNA from its record differs"),
    (lambda m: m["article_spec"].update(image_height=32), "image_encoder.onnx cannot compute"),
    (lambda m: m["article_spec"].update(fibres=["cotton"]), "fashion_dna.onnx cannot compute"),
    (lambda m: m["time_spec"].update(components=["trend", "season"]), "style_lstm.onnx cannot compute"),
    (lambda m: m["time_spec"].update(reference=0), "golden customer 'without purchases': style by replay differs"),
]


@pytest.mark.parametrize(("change", "message"), SPEC_FAULTS, ids=[str(index) for index in range(len(SPEC_FAULTS))])
def test_encoders_other_than_trainings_are_found_out(bundle: Bundle, change, message: str) -> None:
    edit(bundle, MANIFEST, change)
    with pytest.raises(InvalidBundle, match=message):
        golden.check(open_bundle(bundle.folder))


def test_a_table_that_holds_other_dna_than_the_graphs_give_is_found_out(bundle: Bundle) -> None:
    path = bundle.path("articles.safetensors")
    dna = load_file(path)["dna"].copy()
    dna[0] += 1e-3
    save_file({"dna": dna}, path)
    with pytest.raises(InvalidBundle, match="golden article 'a000': Fashion DNA in the trained table differs"):
        golden.check(bundle)


def test_graphs_of_another_bundle_are_found_out(bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, version="other", seed=1)
    for name in ("fashion_dna.onnx", "style_lstm.onnx"):
        sound = bundle.path(name).read_bytes()
        bundle.path(name).write_bytes(other.path(name).read_bytes())
        with pytest.raises(InvalidBundle, match=r"golden (article|customer) .* differs|cannot compute"):
            golden.check(bundle)
        bundle.path(name).write_bytes(sound)
    golden.check(bundle)


# --- the generating half -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("store"), version="v1", generating=True)


@pytest.fixture
def generating(sound: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(sound.folder, tmp_path / "v1")
    return Bundle(tmp_path / "v1", sound.manifest)


def test_a_sound_generating_bundle_passes(generating: Bundle) -> None:
    golden.check(generating)
    cases = golden.GoldenCases.model_validate_json(generating.path(GOLDEN_CASES).read_bytes())
    assert min(len(cases.sessions), len(cases.texts), len(cases.queries)) >= 2


def test_the_half_that_is_open_already_is_used(generating: Bundle) -> None:
    assert generating.manifest.generation is not None
    generation = open_generation(generating.folder, generating.manifest.generation, load_articles(generating)[0])
    golden.check(generating, generation=generation)
    cold = dataclasses.replace(generation, memory=QueryMemory([], np.zeros((0, 128), np.float32), []))
    with pytest.raises(InvalidBundle, match=r"golden query .* the memory gives other candidates"):
        golden.check(generating, generation=cold)


GENERATING_FAULTS: list[tuple[Callable[[dict], object], str]] = [
    (lambda c: c["sessions"][1]["articles"][0].update(brand="Dune Two"), "golden session 'a search and a click'"),
    (lambda c: c["sessions"][1]["events"][0].update(query="a coat"), "its prompt differs from what training wrote"),
    (lambda c: c["sessions"][1]["events"][0].update(timestamp=9), "its prompt differs from what training wrote"),
    (lambda c: c["sessions"][1].update(candidates=["a001"]), "its prompt differs from what training wrote"),
    (lambda c: c["sessions"][0].update(tokens=7), r"golden session 'nothing yet': .*tokens, 7 expected"),
    (lambda c: c["sessions"][0].update(prompt_sha256="0" * 64), "golden session 'nothing yet'"),
    (lambda c: c["sessions"][1]["events"][0].pop("query"), "a golden session holds an event that is none"),
    (lambda c: c["sessions"][0].update(prompt_sha256="x"), "cannot be read"),
    (lambda c: c.update(sessions=[]), "has no session or no text for the generating half"),
    (lambda c: c["texts"][0].update(text="green"), "golden text 'green': title embedding differs"),
    (lambda c: c["texts"][0].update(article_id="zz"), "is the title of 'zz', which was never trained"),
    (lambda c: c["texts"][0].update(article_id="a011"), "the trained table of titles differs"),
    (lambda c: c["texts"].pop(), "does not fit the cases"),
    (lambda c: c["queries"][0].update(query="green"), "golden query 'green': query embedding differs"),
    (lambda c: c["queries"][0]["article_ids"].reverse(), "the memory gives other candidates than it gave training"),
    (lambda c: c["queries"].pop(), "does not fit the cases"),
]


@pytest.mark.parametrize(
    ("change", "message"), GENERATING_FAULTS, ids=[f"{n} {message}" for n, (_, message) in enumerate(GENERATING_FAULTS)]
)
def test_a_generating_case_that_is_not_met_is_named(generating: Bundle, change, message: str) -> None:
    with pytest.raises(InvalidBundle, match=message):
        golden.check(edit(generating, GOLDEN_CASES, change))


def test_embeddings_other_than_trainings_are_found_out(generating: Bundle) -> None:
    edit_arrays(generating, lambda arrays: np.add.at(arrays["text"], (1, 5), 2e-4))
    with pytest.raises(InvalidBundle, match=r"golden text .*: title embedding differs by 0\.0002"):
        golden.check(generating)


def test_a_template_other_than_trainings_is_found_out(generating: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the golden sessions are for: a release whose prompts say another word."""
    monkeypatch.setattr(prompts, "_THEN", ", and then ")
    with pytest.raises(InvalidBundle, match="golden session 'a search and a click': its prompt differs"):
        golden.check(generating)


def test_a_tokenizer_other_than_trainings_is_found_out(generating: Bundle) -> None:
    path = generating.path("llm/tokenizer.json")
    saved = orjson.loads(path.read_bytes())
    saved["model"]["merges"] = saved["model"]["merges"][:-20]
    path.write_bytes(orjson.dumps(saved))
    with pytest.raises(InvalidBundle, match="golden session 'nothing yet': its prompt differs"):
        golden.check(generating)


def test_a_prompt_that_cannot_hold_the_instruction_is_found_out(generating: Bundle) -> None:
    edit(generating, MANIFEST, lambda m: m["generation"]["prompt"].update(max_tokens=128))
    with pytest.raises(InvalidBundle, match="the instruction alone takes more than 64 tokens"):
        golden.check(Bundle(generating.folder, read_manifest(generating.folder)))


def test_a_session_is_the_same_whatever_the_order_of_its_events(generating: Bundle) -> None:
    cases = golden.GoldenCases.model_validate_json(generating.path(GOLDEN_CASES).read_bytes())
    case = cases.sessions[1]
    again = golden.golden_session(
        case.name,
        case.events[::-1],
        case.articles,
        case.candidates,
        PromptSpec(),
        Tokenizer.of_model(generating.path("llm")),
    )
    assert (again.prompt_sha256, again.tokens) == (case.prompt_sha256, case.tokens)


def test_queries_that_rounding_might_decide_are_no_cases() -> None:
    spec = GenerationSpec(
        prompt=PromptSpec(),
        language_model=LanguageModelCard(base="none", stand_in=True, architecture="none", parameters=0),
        nearest_queries=2,
        top_articles=1,
    )
    query = np.zeros(128, np.float32)
    query[0] = 1

    def memory(*cosines: float) -> QueryMemory:
        keys = np.zeros((len(cosines), 128), np.float32)
        keys[:, 0] = cosines
        keys[:, 1] = np.sqrt(1 - keys[:, 0] ** 2)
        return QueryMemory([str(row) for row in range(len(keys))], keys, [[f"a{row}"] for row in range(len(keys))])

    def found(*cosines: float) -> tuple[str, ...] | None:
        case = golden.golden_query("q", query, memory(*cosines), spec)
        return None if case is None else case.article_ids

    assert found(0.3, 0.9, 0.6) == ("a1", "a2")
    assert found(0.3, 0.3, 0.9, 0.6) == ("a2", "a3")  # those that are far do not matter
    assert found(0.6, 0.9, 0.6) is None
    assert found(0.9, 0.9, 0.6) is None
    assert found(0.9, 0.6, 0.5995) is None
    assert found(0.9) == ("a0",)
    assert found() is None
