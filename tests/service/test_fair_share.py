"""service.fair_share: who should take the next connection, told through memory that processes share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fair_share import ABSENT, SLACK, FairShare

TELLS = """
import sys
from service.fair_share import FairShare

FairShare(int(sys.argv[1])).tell(1, 5)
"""


@pytest.fixture
def share() -> Iterator[FairShare]:
    share = FairShare.among(3)
    yield share
    share.close()


def test_who_has_more_than_another_is_ahead(share: FairShare) -> None:
    for place, count in enumerate((2, 1, 1)):
        share.tell(place, count)
    assert [share.is_ahead(place) for place in range(3)] == [True, False, False]


def test_nobody_is_ahead_of_those_who_take_none(share: FairShare) -> None:
    share.tell(0, 7)
    assert not share.is_ahead(0)
    share.tell(1, 0)
    assert share.is_ahead(0)
    share.tell(1, ABSENT)
    assert not share.is_ahead(0)


def test_among_many_a_few_more_do_not_matter(share: FairShare) -> None:
    share.tell(0, 10 * SLACK)
    share.tell(1, 10 * SLACK + 10)
    assert not share.is_ahead(1)
    share.tell(1, 10 * SLACK + 11)
    assert share.is_ahead(1)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_there_is_always_somebody_to_take_the_next(counts: list[int]) -> None:
    share = FairShare.among(len(counts))
    for place, count in enumerate(counts):
        share.tell(place, count)
    assert not all(share.is_ahead(place) for place in range(len(counts)))
    share.close()


def test_another_process_sees_and_tells_the_same(share: FairShare) -> None:
    share.tell(0, 6)
    share.tell(1, 6)
    command = [sys.executable, "-c", TELLS, str(share.descriptor)]
    subprocess.run(command, pass_fds=[share.descriptor], check=True)
    assert share.is_ahead(0)
    assert not share.is_ahead(1)
