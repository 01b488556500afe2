"""The protocols that leave one out (Amazon 2024, §5.1): rank the end of each customer's history among all articles.

That is the last order, or else the last purchase alone. Stock plays no part: every article of the data set is a
candidate. Known is what training knows: everything but what customers did from there on (``offline.hold_out``). So
sales of others may be later than what they help to foretell, as in all of the literature that leaves one out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.dataset import DataSet
from model_store.errors import InvalidData
from model_store.purchases import Purchases
from offline.evaluation.ranks import Targets
from offline.evaluation.task import POPULARITY_DAYS, Task, Window, distinct, first_time_targets
from offline.hold_out import HeldOut
from offline.popularity import RecentSales
from offline.style_lstm import customer_index
from offline.validation import candidate_places


def make_held_out_task(data: DataSet, held: HeldOut, known: Purchases) -> Task:
    """Gather the task of a whole data set, of which training knew the purchases ``known``.

    Raises InvalidData where no customer has ordered twice.
    """
    if not len(held.customer):
        raise InvalidData("no customer has bought more than once, so there is no end of a history to rank")
    articles = len(data.article_ids)
    candidates, tier_ends = _candidates(known.article, articles)
    position = candidate_places(candidates, articles)

    customer, article = distinct(held.purchases.customer[held.rows], held.purchases.article[held.rows], articles)
    offsets = np.searchsorted(customer, np.append(held.customer, len(held.purchases.customer_ids)))
    targets = Targets.among_all(offsets, position[article], tier_ends)
    customer_ids = [held.purchases.customer_ids[index] for index in held.customer]
    moment = held.begins
    return Task(
        protocol=held.protocol,
        window=Window(int(moment.min()), int(moment.max()) + 1),
        customer_ids=customer_ids,
        history=known,
        moment=moment,
        sales_until=moment,
        candidates=candidates,
        targets=targets,
        first_time=first_time_targets(targets, known, customer_index(known, customer_ids), position),
        first_order=np.ones(len(article), bool),
        recent=RecentSales(known, articles),
        created_at=data.created_at[candidates],
        entering=np.zeros(articles, bool),
        average_sales=dict.fromkeys(POPULARITY_DAYS, 0.0),
        repeated=len(held.rows) - len(article),
        out_of_stock=0,
    )


def _candidates(known: NDArray[np.integer], articles: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All articles, those that training knows first, and the ends of the tiers: nothing is RECENT."""
    sold = np.zeros(articles, bool)
    sold[known] = True
    return np.concatenate([np.flatnonzero(sold), np.flatnonzero(~sold)]), np.array([0, sold.sum(), articles])
