from __future__ import annotations

from pathlib import Path

import pytest

from model_store.errors import InvalidConfig
from offline.config import Config, load_config, parse_config, profiles


@pytest.mark.parametrize("profile", profiles())
def test_every_shipped_profile_is_valid(profile: str) -> None:
    assert load_config(profile).fashion_dna.epochs >= 1


def test_the_named_profiles_ship() -> None:
    assert {"default", "hm", "rtr", "full"} <= set(profiles())


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"sede": 1}, ["sede", "no such key", "seed"]),
        ({"style_lstm": {"epoch": 1}}, ["style_lstm.epoch", "no such key", "epochs"]),
        ({"style_lstm": {"loss": "hinge"}}, ["style_lstm.loss", "'rank', 'sigmoid' or 'softmax'", "got 'hinge'"]),
        ({"fashion_dna": {"lr": 0}}, ["fashion_dna.lr", "greater than 0", "got 0"]),
        ({"split": {"validation_days": 0}}, ["split.validation_days", "greater than or equal to 1"]),
        ({"device": "tpu"}, ["device", "'auto', 'cpu' or 'cuda'"]),
        ({"style_lstm": {"time": []}}, ["style_lstm.time", "at least 1"]),
        ({"generation": {"prompts": {"attributes": ["fit"]}}}, ["prompts.attributes", "'brand'", "got 'fit'"]),
        ({"generation": {"prompts": {"attributes": ["brand", "brand"]}}}, ["attributes", "name each attribute once"]),
        ({"generation": {"query_memory": {"top_articles": -1}}}, ["top_articles", "greater than or equal to 0"]),
    ],
)
def test_a_fault_names_the_key_and_what_was_expected(content: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(InvalidConfig) as error:
        parse_config(content, "my.toml")
    assert all(part in str(error.value) for part in ["my.toml", *parts]), str(error.value)


def test_what_is_no_toml_and_what_is_no_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = ")
    with pytest.raises(InvalidConfig, match="is not TOML"):
        load_config(broken)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(InvalidConfig, match="no profile; the profiles are default"):
        load_config("absent")


def test_the_resolved_configuration_survives_json() -> None:
    config = load_config("default")
    assert Config.model_validate_json(config.model_dump_json()) == config
