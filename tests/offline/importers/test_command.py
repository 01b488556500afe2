from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from made_up_sources import hm_folder, rental, rtr_folder

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.commands import import_data as command


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(words)


def test_imports_hm_and_says_how_stock_is_treated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(parse("hm", str(hm_folder(tmp_path / "in")), str(tmp_path / "out")))
    assert DataSet.open(tmp_path / "out").file.window_days == 28
    assert "Stock: H&M publishes no stock" in capsys.readouterr().out


def test_imports_rtr_with_a_window_of_ones_own(tmp_path: Path) -> None:
    source = rtr_folder(tmp_path / "in", [rental("u", "1", "2020-01-01"), rental("u", "1", "2020-02-01")])
    command.main(parse("rtr", str(source), str(tmp_path / "out"), "--window-days", "7"))
    assert DataSet.open(tmp_path / "out").file.window_days == 7


@pytest.mark.parametrize("days", ["0", "-3", "many", "3651"])
def test_a_window_that_is_none_is_refused(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("hm", "in", "out", f"--window-days={days}")
    assert "is not a number of days from 1 to 3650" in capsys.readouterr().err


def test_searches_are_derived_on_request_and_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(
        parse("hm", str(hm_folder(tmp_path / "in")), str(tmp_path / "out"), "--derive-searches", "--seed", "5")
    )
    assert DataSet.open(tmp_path / "out").file.name == "H&M with derived searches"
    assert re.search(r"derived from the catalogue's words .*\(events derived-…, seed 5\)", capsys.readouterr().out)


def test_nothing_is_derived_where_there_are_no_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="--derive-searches: rtr has no words to derive searches from; hm has"):
        command.main(parse("rtr", str(tmp_path), str(tmp_path / "out"), "--derive-searches"))


@pytest.mark.parametrize("seed", ["-1", "x", "4294967296"])
def test_a_seed_that_is_none_is_refused(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("hm", "in", "out", f"--seed={seed}")
    assert "is not a whole number from 0 to 4294967295" in capsys.readouterr().err


def test_another_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("zalando", "in", "out")
    assert "invalid choice" in capsys.readouterr().err
