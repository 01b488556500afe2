from __future__ import annotations

import numpy as np

from offline.evaluation.moments import ByMoment


def test_rows_stand_in_the_order_of_their_moments() -> None:
    rows = ByMoment(lambda moment: np.full(3, moment)).rows(np.array([7, 5, 7, 9]))
    assert rows.tolist() == [[7] * 3, [5] * 3, [7] * 3, [9] * 3]


def test_equal_moments_share_a_row() -> None:
    rows, which = ByMoment(lambda moment: np.full(3, moment)).distinct(np.array([7, 5, 7]))
    assert (rows.tolist(), which.tolist()) == ([[5] * 3, [7] * 3], [1, 0, 1])


def test_the_latest_moment_is_not_made_again() -> None:
    made: list[int] = []

    def make(moment: int) -> np.ndarray:
        made.append(moment)
        return np.zeros(2)

    by_moment = ByMoment(make)
    for moments in ([5, 5], [5], [6, 5]):
        by_moment.rows(np.array(moments))
    by_moment.at(6)
    assert made == [5, 6]
