from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import DAY, START, write_shop

from model_store.bundle import Blend
from model_store.dataset import Availability
from model_store.generation import rank_bonus
from model_store.popularity import POPULARITY
from offline.evaluation.rankings import (
    GeneratedRanking,
    PersonalRanking,
    PopularityThen,
    blended,
    popularity,
    static_styles,
)
from offline.evaluation.task import Task, Window
from offline.evaluation.window import make_task
from offline.popularity import Popularity

DNA = np.array([[0.0], [9.0], [2.0], [1.0]], np.float32)
EVERYONE = slice(0, 2)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Candidates best (3 sales), good (1 sale), dull (none), late (enters); ann has a history, cid has none."""
    rows = [("ann", "best", 48), ("bob", "best", 48), ("bob", "best", 49), ("bob", "good", 44), ("bob", "dull", 30)]
    rows += [("ann", "dull", 51), ("cid", "best", 52)]
    stock = {"best": (0, None), "good": (0, None), "dull": (0, None), "late": (55, None)}
    data = write_shop(tmp_path / "shop", list(stock), rows, stock=stock)
    return make_task(data, Window(START + 50 * DAY, START + 60 * DAY))


def test_popularity_counts_the_week_before_and_gives_the_average_to_what_enters(task: Task) -> None:
    scores = popularity(task).scores(EVERYONE)
    assert scores.tolist() == [[3, 1, 0, pytest.approx(4 / 3)]] * 2
    assert popularity(task).parameters is None


def test_customers_unknown_to_the_static_model_get_the_mean_style() -> None:
    trained = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    styles = static_styles(["new", "bob", "newer"], ["ann", "bob"], trained)
    assert styles.style.tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]
    assert styles.unknown == 2


def test_personal_scores_are_inner_products() -> None:
    rng = np.random.default_rng(0)
    style, dna = (rng.normal(size=(size, 128)).astype(np.float32) for size in (2, 5))
    scores = PersonalRanking("dynamic", 7, style, dna).scores(slice(1, 2))
    np.testing.assert_allclose(scores, [[float(style[1] @ row) for row in dna]], rtol=1e-5)


def test_the_blend_adds_the_trend_for_who_has_a_history(task: Task) -> None:
    style = np.array([[1.0], [1.0]], np.float32)
    dynamic = PersonalRanking("dynamic", 7, style, DNA)
    ranking = blended(dynamic, task, Blend(trend=2.0))
    warm, cold = ranking.scores(EVERYONE)
    np.testing.assert_allclose(warm, [2 * np.log(4), 9 + 2 * np.log(2), 2, 1], rtol=1e-6)
    assert np.argsort(-cold).tolist() == [0, 1, 2, 3]  # best sellers first, then by style
    assert ranking.parameters == 7 + 2


def test_where_validation_says_so_a_customer_without_purchases_is_ranked_like_all_others(task: Task) -> None:
    dynamic = PersonalRanking("dynamic", 7, np.ones((2, 1), np.float32), DNA)
    warm, cold = blended(dynamic, task, Blend(trend=0.5, cold_by_style=True)).scores(EVERYONE)
    assert cold.tolist() == warm.tolist()
    assert warm.tolist() != blended(dynamic, task, Blend(trend=0.5)).scores(EVERYONE)[1].tolist()


def test_a_generations_list_comes_first_and_who_has_none_gets_the_other_ranking(task: Task) -> None:
    dynamic = PersonalRanking("dynamic", 7, np.ones((2, 1), np.float32), DNA)
    lists = [np.array([3, 0]), np.zeros(0, np.int64)]
    generated = GeneratedRanking(lists, dynamic, 5)
    listed, other = generated.scores(EVERYONE)
    assert listed.tolist() == [1, 0, 0, 2]
    assert other.tolist() == [0, 9, 2, 1]
    plain = blended(dynamic, task, Blend(trend=2.0))
    ranking = blended(dynamic, task, Blend(trend=2.0, generated=4.0), lists, 5)
    added = ranking.scores(EVERYONE) - plain.scores(EVERYONE)
    np.testing.assert_allclose(added[0], [4 * rank_bonus(2)[1], 0, 0, 4], rtol=1e-5)
    assert not added[1].any()
    assert ranking.parameters == 7 + 2 + 5 + 1


def test_what_is_generated_first_gains_a_cold_customer_as_much_as_the_best_seller(task: Task) -> None:
    dynamic = PersonalRanking("dynamic", 7, np.ones((2, 1), np.float32), DNA)
    lists = [np.zeros(0, np.int64), np.array([1])]
    _, cold = blended(dynamic, task, Blend(generated=4.0), lists, 5).scores(EVERYONE)
    assert np.argsort(-cold).tolist() == [1, 0, 2, 3]
    np.testing.assert_allclose(cold[1] - cold[0], np.log(2), rtol=1e-5)


def test_popularity_and_best_sellers_add_for_who_is_ranked_by_style(task: Task) -> None:
    style = np.zeros((2, 128), np.float32)
    style[:, POPULARITY] = 3.0
    popularity = PopularityThen(
        Popularity(task.recent, Availability.always(4), half_life=7.0), task.candidates, np.full(2, task.window.start)
    )
    dynamic = PersonalRanking("dynamic", 7, style, np.zeros((4, 128), np.float32), popularity)
    ranking = blended(dynamic, task, Blend(popularity=2.0, best_sellers=5.0))
    warm, cold = ranking.scores(EVERYONE)
    component = popularity.popularity.at(task.window.start)[task.candidates]
    assert np.argsort(-component)[:2].tolist() == [0, 1]
    bonus = rank_bonus(np.count_nonzero(component), 10)
    places = np.argsort(np.argsort(-component, kind="stable"), kind="stable")
    worth = [bonus[place] if place < len(bonus) else 0.0 for place in places]
    np.testing.assert_allclose(warm, (3 + 2) * component + 5 * np.array(worth), rtol=1e-5)
    plain = blended(dynamic, task, Blend()).scores(EVERYONE)[1]
    assert cold.tolist() == plain.tolist()
    assert ranking.parameters == 7 + 4


def test_what_was_bought_before_is_lifted(task: Task) -> None:
    dynamic = PersonalRanking("dynamic", 7, np.ones((2, 1), np.float32), DNA)
    plain, lifted = (blended(dynamic, task, blend).scores(EVERYONE) for blend in (Blend(), Blend(bought_before=5.0)))
    assert (lifted - plain).tolist() == [[5, 0, 0, 0], [0, 0, 0, 0]]  # ann bought the first before
    again = blended(dynamic, task, Blend(bought_before=5.0)).scores(slice(1, 2))
    assert again.tolist() == [lifted[1].tolist()]
