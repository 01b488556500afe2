from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offline.config import Config
from offline.run import Run, Split
from offline.stages import Keeper, StageSpec, made_from, next_ready, stages_of

SPLIT = Split(data_set="toy", fingerprint="f" * 64, validation_from=100, cutoff=200)


class Listener:
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def config(**changes: Any) -> Config:
    return Config.model_validate({"generation": {"enabled": True, **changes.pop("generation", {})}, **changes})


def keeper(run: Run, settings: Config, listener: Listener | None = None) -> Keeper:
    return Keeper(run, settings, SPLIT, listener or Listener())  # type: ignore[arg-type]


def train_all(run: Run, settings: Config) -> None:
    """Every stage's outputs, empty, committed in order."""
    kept = keeper(run, settings)
    for spec in stages_of(settings):
        kept.replace(spec.name)
        for output in spec.outputs:
            run.path(output).touch()
        kept.commit(spec.name, [])


def complete(run: Run, settings: Config) -> set[str]:
    kept = keeper(run, settings)
    return {spec.name for spec in stages_of(settings) if kept.complete(spec.name)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "run")
    train_all(found, config())
    return found


def names(settings: Config) -> set[str]:
    return {spec.name for spec in stages_of(settings)}


def test_what_was_trained_by_the_same_recipe_is_complete(run: Run) -> None:
    assert complete(run, config()) == names(config())


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"style_lstm": {"dropout": 0.5}}, {"style_lstm", "blend"}),
        ({"generation": {"id_embeddings": {"dropout": 0.5}}}, {"id_embeddings", "language_model", "blend"}),
        (
            {"generation": {"query_memory": {"top_articles": 9}}},
            {"query_memory", "base_model", "language_model", "blend"},
        ),
        ({"generation": {"mixup": 2}}, {"language_model", "blend"}),
        ({"generation": {"prompts": {"attributes": []}}}, {"base_model", "language_model", "blend"}),
        ({"generation": {"language_model": {"lora": {"lr": 0.5}}}}, {"language_model", "blend"}),
    ],
)
def test_a_changed_setting_trains_again_what_depends_on_it_and_nothing_else(
    run: Run, changed: dict[str, Any], again: set[str]
) -> None:
    settings = config(**changed)
    assert names(settings) - complete(run, settings) == again


def test_another_seed_trains_everything_again(run: Run) -> None:
    assert complete(run, config(seed=1)) == set()


def test_it_says_what_changed(run: Run) -> None:
    listener = Listener()
    assert not keeper(run, config(style_lstm={"dropout": 0.5}), listener).complete("style_lstm")
    assert listener.lines == ["style_lstm: training again, because style_lstm.dropout changed"]


def test_a_missing_output_makes_a_stage_incomplete(run: Run) -> None:
    (run.folder / "generation/ids.safetensors").unlink()
    assert not keeper(run, config()).complete("id_embeddings")


def test_a_stage_that_is_replaced_takes_with_it_what_was_made_from_it_and_no_more(run: Run) -> None:
    keeper(run, config()).replace("style_lstm")
    assert complete(run, config()) == names(config()) - {"style_lstm", "blend"}
    assert not run.has("style_lstm.safetensors")
    assert not run.has("blend.json")
    assert run.has("generation/llm")


def test_what_another_run_trained_by_the_same_recipe_is_taken_over(run: Run, tmp_path: Path) -> None:
    other, settings = Run(tmp_path / "other"), config(style_lstm={"dropout": 0.5})
    record = {**run.load_json("stages/images"), "cost": {"seconds": 7.0, "peak_memory_mib": 9}}
    run.save_json("stages/images", record)
    adopted = set(keeper(other, settings).adopt(run))
    assert adopted == names(settings) - {"style_lstm", "blend"}
    assert complete(other, settings) == adopted
    assert other.load_json("stages/images") == record  # what it took, too
    assert (other.folder / "article_dna.safetensors").samefile(run.folder / "article_dna.safetensors")
    assert keeper(other, settings).adopt(run) == []


def test_what_is_taken_over_can_be_replaced_without_harm_to_whose_it_was(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    (run.folder / "blend.json").write_bytes(b"theirs")
    keeper(other, config()).adopt(run)
    other.save_json("blend", {"mine": True})
    keeper(other, config()).replace("title_encoder")
    assert (run.folder / "blend.json").read_bytes() == b"theirs"
    assert complete(run, config()) == names(config())


def test_an_encoder_of_queries_is_taken_over_with_the_memory(run: Run, tmp_path: Path) -> None:
    run.path("generation/query_encoder.onnx").write_bytes(b"clip")
    other = Run(tmp_path / "other")
    keeper(other, config()).adopt(run)
    assert other.has("generation/query_encoder.onnx")
    keeper(other, config()).replace("query_memory")
    assert not other.has("generation/query_encoder.onnx")
    assert run.has("generation/query_encoder.onnx")


def test_of_another_data_set_only_what_looks_at_articles_alone_is_taken_over(run: Run, tmp_path: Path) -> None:
    other, split = Run(tmp_path / "other"), SPLIT.model_copy(update={"fingerprint": "0" * 64})
    kept = Keeper(other, config(), split, Listener())  # type: ignore[arg-type]
    assert kept.adopt(run) == []
    assert kept.adopt(run, same_articles=True) == ["images"]
    assert kept.complete("images")


def test_nothing_is_taken_over_that_is_incomplete(run: Run, tmp_path: Path) -> None:
    (run.folder / "generation/ids.safetensors").unlink()
    assert "id_embeddings" not in keeper(Run(tmp_path / "other"), config()).adopt(run)


def test_without_a_generating_half_the_blend_is_fitted_anew(run: Run) -> None:
    settings = Config()
    assert names(settings) == {"images", "fashion_dna", "popularity", "style_lstm", "blend"}
    assert complete(run, settings) == {"images", "fashion_dna", "popularity", "style_lstm"}


def test_every_stage_comes_after_all_that_it_needs() -> None:
    seen: set[str] = set()
    spec: StageSpec
    for spec in stages_of(config()):
        assert set(spec.needs) <= seen
        seen.add(spec.name)


def test_what_is_made_from_a_stage_is_found_through_all_steps() -> None:
    specs = stages_of(config())
    assert made_from(specs, "title_encoder") == [
        "title_encoder",
        "query_memory",
        "base_model",
        "language_model",
        "blend",
    ]
    assert made_from(specs, "blend") == ["blend"]


def test_of_the_stages_that_can_begin_the_one_that_most_wait_for_comes_first() -> None:
    """Two at a time: the long chain never waits for the short one, and every stage comes after what it needs."""
    specs = stages_of(config())
    done, begun, order = list[str](), list[str](), list[str]()
    while len(done) < len(specs):
        spec = next_ready(specs, done, begun) if len(begun) - len(done) < 2 else None
        if spec is None:
            done.append(next(name for name in begun if name not in done))  # that which began first
            continue
        assert set(spec.needs) <= set(done)
        begun.append(spec.name)
        order.append(spec.name)
    assert order[:2] == ["title_encoder", "images"]
    assert order.index("query_memory") < order.index("fashion_dna")
    assert order[-1] == "blend"


def test_records_of_stages_that_are_committed_at_once_do_not_meet(run: Run) -> None:
    """Two keepers, each of which saw the run before the other wrote to it."""
    one, other = keeper(run, config()), keeper(run, config())
    one.replace("images")
    other.replace("title_encoder")
    for kept, name in ((other, "title_encoder"), (one, "images")):
        for output in next(spec.outputs for spec in stages_of(config()) if spec.name == name):
            run.path(output).touch()
        kept.commit(name, [])
    assert complete(run, config()) == {"images", "popularity", "title_encoder", "id_embeddings"}
