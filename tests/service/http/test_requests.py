from __future__ import annotations

import pytest

from service.http.requests import PercentDecoded


@pytest.mark.parametrize("identifier", ["plain", "a/b", "{c}%2F", "ü 😀", "a?b#c"])
def test_an_id_survives_the_way_into_an_address_and_back(identifier: str) -> None:
    segment = PercentDecoded().to_string(identifier)
    assert "/" not in segment
    assert PercentDecoded().convert(segment) == identifier
