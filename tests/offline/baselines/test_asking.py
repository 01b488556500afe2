"""What the baselines are told: never what is to be found, nor anything that happened later than they may know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from baseline_learners import cycle_questions
from small_runs import DAY, START, make_run, write_shop

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig
from offline.baselines import FOLDER, questions
from offline.baselines.asking import ask, main
from offline.baselines.questions import Questions, Sequences
from offline.evaluation.backtest import Options
from offline.hold_out import Protocol, training_data

ARTICLES = list("abcdefgh")
CUTOFF = START + 60 * DAY  # the validation window: the 5 days before
KNOWN = [
    ("ann", "a", 1),
    ("ann", "b", 10),
    ("bob", "b", 8),
    ("bob", "c", 40),
    ("cid", "d", 41),
    ("cid", "c", 56),  # from here on in the validation window
    ("dan", "a", 57),
    ("ann", "c", 58),
]
LATER = [("ann", "d", 62), ("bob", "d", 63), ("cid", "e", 66), ("new", "a", 63)]
ELSE = [("ann", "f", 62), ("ann", "g", 64), ("bob", "g", 63), ("cid", "h", 66), ("new", "h", 63), ("cid", "a", 66)]


def questions_of(
    folder: Path, rows: list[tuple[str, str, float]], protocol: Protocol = "by_time", options: Options | None = None
) -> tuple[Questions, DataSet]:
    data = write_shop(folder / "shop", ARTICLES, rows)
    run = make_run(folder / "run", training_data(data, protocol), CUTOFF, hold_out=protocol)
    return ask(data, run, options or Options()), data


def named(data: DataSet, sequences: Sequences) -> list[list[str]]:
    return [[data.article_ids[article] for article in sequences[customer]] for customer in range(len(sequences))]


def test_training_ends_where_the_validation_window_begins(tmp_path: Path) -> None:
    asked, data = questions_of(tmp_path, [*KNOWN, *LATER])
    assert named(data, asked.training) == [["a", "b"], ["b", "c"], ["d"]]
    assert named(data, asked.everything) == [["a", "b", "c"], ["b", "c"], ["d", "c"], ["a"]]


def test_validation_is_told_with_what_was_known_before_it(tmp_path: Path) -> None:
    asked, data = questions_of(tmp_path, [*KNOWN, *LATER])
    found = asked.validation
    assert named(data, found.histories) == [["a", "b"], ["d"], []]
    assert [data.article_ids[article] for article in found.target] == ["c", "c", "a"]
    assert found.row.tolist() == [0, 1, 2]
    assert [data.article_ids[article] for article in found.candidates] == ARTICLES


def test_a_test_tells_customers_moments_and_what_is_known_then(tmp_path: Path) -> None:
    asked, data = questions_of(tmp_path, [*KNOWN, *LATER])
    [test] = asked.tests
    assert test.customer_ids == ["ann", "bob", "cid", "new"]
    assert test.moment.tolist() == [START + day * DAY for day in (62, 63, 66, 63)]
    assert named(data, test.histories) == [["a", "b", "c"], ["b", "c"], ["d", "c"], []]


def test_of_later_windows_more_is_known(tmp_path: Path) -> None:
    options = Options(until=START + 70 * DAY, days=5, windows=2)
    asked, data = questions_of(tmp_path, [*KNOWN, *LATER], options=options)
    first, second = asked.tests
    assert (first.customer_ids, second.customer_ids) == (["ann", "bob", "new"], ["cid"])
    assert named(data, second.histories) == [["d", "c"]]
    assert (first.until, second.start) == (START + 65 * DAY, START + 65 * DAY)


def without_fingerprint(asked: Questions) -> str:
    return replace(asked, about=replace(asked.about, fingerprint="")).digest


def later_differs() -> tuple[list[tuple[str, str, float]], ...]:
    return [*KNOWN, *LATER], [*KNOWN, *ELSE]


def last_orders_differ() -> tuple[list[tuple[str, str, float]], ...]:
    """Last orders of ann, bob and cid, who had bought before; dan's only one is known."""
    rows = [*KNOWN[:5], ("dan", "a", 57)]
    ends = [("ann", 58), ("bob", 62), ("cid", 56)]
    one, other = ([(who, article, day) for who, day in ends] for article in ("c", "f"))
    return [*rows, *one], [*rows, *other, ("ann", "h", 58)]


def last_purchases_differ() -> tuple[list[tuple[str, str, float]], ...]:
    rows = [*KNOWN[:5], ("dan", "a", 57)]
    ends = [("ann", 58), ("bob", 62), ("cid", 56)]
    one, other = ([(who, article, day) for who, day in ends] for article in ("c", "f"))
    return [*rows, *one], [*rows, *other]


@pytest.mark.parametrize(
    ("protocol", "shops"),
    [("by_time", later_differs), ("last_order", last_orders_differ), ("last_purchase", last_purchases_differ)],
)
def test_shops_that_differ_in_what_is_to_be_found_ask_the_same(
    tmp_path: Path, protocol: Protocol, shops: Callable[[], tuple[list[tuple[str, str, float]], ...]]
) -> None:
    one, other = (questions_of(tmp_path / str(number), rows, protocol)[0] for number, rows in enumerate(shops()))
    assert without_fingerprint(one) == without_fingerprint(other)


def test_shops_that_differ_in_what_is_known_do_not(tmp_path: Path) -> None:
    one, _ = questions_of(tmp_path / "one", [*KNOWN, *LATER])
    other, _ = questions_of(tmp_path / "other", [*KNOWN[:-1], ("ann", "d", 58), *LATER])
    assert without_fingerprint(one) != without_fingerprint(other)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    asked = cycle_questions()
    questions.write(asked, tmp_path / "questions")
    found = questions.read(tmp_path / "questions")
    assert found.digest == asked.digest
    assert found.tests[0].customer_ids == asked.tests[0].customer_ids
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questions"]


def test_the_digest_is_of_every_part() -> None:
    asked = cycle_questions()
    [test], validation = asked.tests, asked.validation
    others = [
        replace(asked, about=replace(asked.about, cutoff=1)),
        replace(asked, training=asked.everything),
        replace(asked, everything=asked.training),
        replace(asked, validation=replace(validation, target=validation.target + 1)),
        replace(asked, validation=replace(validation, candidates=validation.candidates[:-1])),
        replace(asked, tests=[replace(test, until=21)]),
        replace(asked, tests=[replace(test, moment=test.moment + 1)]),
        replace(asked, tests=[replace(test, customer_ids=[*test.customer_ids[:-1], "x"])]),
        replace(asked, tests=[replace(test, histories=asked.training)]),
        replace(asked, tests=[]),
    ]
    assert len({one.digest for one in [asked, *others]}) == 1 + len(others)


def test_questions_of_another_version_are_refused(tmp_path: Path) -> None:
    questions.write(cycle_questions(), tmp_path / "questions")
    path = tmp_path / "questions" / "about.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(InvalidConfig, match="of another version: 'make baselines' writes them anew"):
        questions.read(tmp_path / "questions")


def test_the_command_writes_questions_into_the_runs_folder(tmp_path: Path) -> None:
    asked, data = questions_of(tmp_path, [*KNOWN, *LATER])
    assert main(["--data", str(data.folder), "--run", str(tmp_path / "run")]) == 0
    assert questions.read(tmp_path / "run" / FOLDER / questions.FOLDER).digest == asked.digest


def test_what_cannot_be_asked_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, data = questions_of(tmp_path, [*KNOWN, *LATER])
    assert main(["--data", str(data.folder), "--run", str(tmp_path / "nowhere")]) == 1
    assert main(["--data", str(data.folder), "--run", str(tmp_path / "run"), "--windows", "0"]) == 1
    untrained, windows = capsys.readouterr().err.strip().splitlines()
    assert untrained.startswith("baselines: ")
    assert "split.json does not exist" in untrained
    assert windows == "baselines: --windows: must be 1 or more, not 0"


def test_sequences_are_cut_customer_by_customer() -> None:
    sequences = Sequences.of([[3, 1], [], [2]])
    assert (len(sequences), sequences.offsets.tolist()) == (3, [0, 2, 2, 3])
    assert [sequences[customer].tolist() for customer in range(3)] == [[3, 1], [], [2]]
    assert sequences.article.dtype == np.int64
