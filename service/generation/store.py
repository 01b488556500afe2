"""Where generations are kept: beside their customer, so that one round trip brings both, and one erases both."""

from __future__ import annotations

from typing import Protocol

from service.generation.records import Footing, StoredGeneration

SEARCHING_KEPT = 3_600
"""Seconds for which the generation of a customer who is searching is kept."""


class GenerationStore(Protocol):
    """A customer's latest generation, and the latest for a query that came with a request.

    The first is read by ``CustomerStore.read``, as ``view.generation``. Both calls raise StoreUnavailable.
    """

    async def read_searching(self, customer_id: str) -> StoredGeneration | None:
        """The latest generation for a query; whether it is for the one at hand, its mark says."""
        ...

    async def put_generation(
        self,
        customer_id: str,
        generation: StoredGeneration,
        searching: bool = False,
        footing: Footing | None = None,
    ) -> bool:
        """Keep a generation, ``searching`` or the customer's; False, and nothing done, where it comes too late.

        That is where one is kept that reflects a later moment, or where nothing is known of the customer: what was
        erased never returns. With a ``footing``, a customer who was erased and came back counts as erased, too.
        """
        ...
