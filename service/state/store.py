"""Where customers are kept: the protocol that every store fulfils. One contract suite holds all of them to it."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from service.state.customer import Addition, Appended, CustomerLog, CustomerState, CustomerView, Revision


class CustomerStore(Protocol):
    """Per customer: the log, which is the truth; the session; and a state, which is a cache of the log.

    A state that is there fits its log: whatever adds to the log either brings the state that fits the addition or
    drops the one that was there. Every call is atomic for its customer, and what it reports as added is stored.
    All raise StoreUnavailable where the store does not answer or refuses; then nothing may be taken as stored.
    """

    async def read(self, customer_id: str) -> CustomerView:
        """State and session, in one round trip. A customer nobody ever heard of is an empty view."""
        ...

    async def read_many(self, customer_ids: Sequence[str]) -> list[CustomerView]:
        """``read`` for many customers, together."""
        ...

    async def read_log(self, customer_id: str) -> CustomerLog:
        """All purchases and returns."""
        ...

    async def read_logs(self, customer_ids: Sequence[str]) -> list[CustomerLog]:
        """``read_log`` for many customers, together."""
        ...

    async def append(self, addition: Addition) -> Appended:
        """Add what is new (by event_id); keep or drop the state, as ``Addition`` and the class say."""
        ...

    async def append_many(self, additions: Sequence[Addition]) -> list[Appended]:
        """``append`` for many customers in few round trips; atomic per customer, not together."""
        ...

    async def put_state(self, customer_id: str, state: CustomerState, revision: Revision) -> bool:
        """Keep a state derived from the log at ``revision``; False, and nothing done, where the log has moved on."""
        ...

    def pages(self) -> AsyncIterator[list[str]]:
        """Ids of all customers with a log, some at a time: each that is there all the while, once or more."""
        ...

    async def erase(self, customer_id: str) -> bool:
        """Forget all of a customer; False where nothing was known."""
        ...


_RANDOM = random.Random(secrets.randbits(256))
"""Of this process: it has to be different elsewhere, not secret; the kernel would be asked each time otherwise."""


def new_log_id() -> int:
    """Random, 1 … 2^63 - 1: that two logs of one customer share it will not happen."""
    return _RANDOM.getrandbits(63) | 1
