"""Finding a customer by a part of their id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol


class Customers(Protocol):
    """Where customers are kept."""

    def pages(self) -> AsyncIterator[list[str]]:
        """All with purchases or returns, some at a time; one may come twice. Raises StoreUnavailable."""
        ...


class People(NamedTuple):
    """Ids that were found, those that begin with what was sought first; and whether all customers were looked at."""

    customer_ids: list[str]
    complete: bool


async def find(customers: Customers, text: str, most: int, seconds: float, monotonic: Callable[[], float]) -> People:
    """Up to ``most`` customers whose ids hold ``text``, case ignored.

    The look ends once that many begin with it, or after ``seconds`` (of ``monotonic``). Raises StoreUnavailable.
    """
    sought, end = text.casefold(), monotonic() + seconds
    leading, others = set[str](), set[str]()
    complete = True
    async for names in customers.pages():
        holding = [name for name in names if sought in name.casefold()]
        leading.update(name for name in holding if name.casefold().startswith(sought))
        others.update(holding)
        if len(leading) > most or monotonic() >= end:
            complete = False
            break
    found = [*sorted(leading), *sorted(others - leading)]
    return People(found[:most], complete and len(found) <= most)
