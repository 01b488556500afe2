from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from bundles import make_bundle
from safetensors.numpy import load_file, save_file

from model_store import golden
from model_store.bundle import GOLDEN_ARRAYS, GOLDEN_CASES, MANIFEST, Bundle, open_bundle
from model_store.errors import InvalidBundle


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
