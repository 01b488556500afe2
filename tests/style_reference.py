"""What a customer's history and style must be, by code that shares nothing with the service.

All events lie in a dictionary, returns are taken out by the rule as it is written down, time features are written out
by their formulas, and the torch network runs whole, from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import make_bundle, sample_contents

from model_store.article_table import load_articles
from model_store.time_features import TimeSpec
from offline.models.style_lstm import StyleLstmNetwork
from service.engine.style import StyleModel

DAY = 86_400


@dataclass(frozen=True)
class Served:
    """One bundle, as the service and as the offline room have it. ``dna``: article → float32 (128)."""

    model: StyleModel
    network: StyleLstmNetwork
    spec: TimeSpec
    dna: dict[str, np.ndarray]


def served(store: Path, version: str, seed: int, missing: set[str], articles: int = 12) -> Served:
    """A small bundle, written into ``store``, without the Fashion DNA of ``missing``."""
    bundle = make_bundle(store, version=version, seed=seed, articles=articles)
    ids, _, table = load_articles(bundle)
    dna = {article_id: row for article_id, row in zip(ids, table, strict=True) if article_id not in missing}
    network = sample_contents(seed=seed, articles=articles).networks.style
    return Served(StyleModel.of_bundle(bundle, dna.get), network, bundle.manifest.time_spec, dna)


def expected_history(events: dict[str, dict[str, Any]]) -> tuple[list[dict[str, Any]], set[str]]:
    """(purchases kept, oldest first; articles returned): each return, oldest first, crosses one purchase out."""
    by_place = lambda event: (event["timestamp"], event["event_id"])  # noqa: E731
    purchases = sorted((event for event in events.values() if event["type"] == "purchase"), key=by_place)
    returns = sorted((event for event in events.values() if event["type"] == "return"), key=by_place)
    for each in returns:
        matching = [
            purchase
            for purchase in purchases
            if purchase["article_id"] == each["article_id"]
            and purchase["timestamp"] <= each["timestamp"]
            and each.get("order_id") in (None, purchase.get("order_id"))
        ]
        if matching:
            purchases.remove(matching[-1])
    return purchases, {each["article_id"] for each in returns}


def tau(spec: TimeSpec, seconds: int) -> list[float]:
    """τ with the components of ``TimeSpec``'s defaults: trend, season."""
    assert spec.components == ("trend", "season", "gap")
    year = 365.2425 * DAY
    trend = (min(max(seconds, spec.reference), spec.horizon) - spec.reference) / year
    phase = 2 * math.pi * (seconds % year) / year
    return [trend, math.sin(phase), math.cos(phase), math.sin(2 * phase), math.cos(2 * phase)]


def expected_style(served: Served, purchases: list[dict[str, Any]], at: int) -> np.ndarray:
    """d at ``at``: the torch network over the whole history, from zero memory."""
    known = [purchase for purchase in purchases if purchase["article_id"] in served.dna]
    rows, previous = [], None
    for time in [*(purchase["timestamp"] for purchase in known), at]:
        if previous is None:
            rows.append([0.0] * 128 + [0.0] * 5 + tau(served.spec, time) + [0.0])
        else:
            gap = math.log(1 + max(time - previous["timestamp"], 0) / DAY) / 5
            dna = served.dna[previous["article_id"]].tolist()
            rows.append(dna + tau(served.spec, previous["timestamp"]) + tau(served.spec, time) + [gap])
        previous = known[len(rows) - 1] if len(rows) <= len(known) else None
    with torch.inference_mode():
        styles, _ = served.network(torch.tensor([rows], dtype=torch.float32))
    style: np.ndarray = styles[0, -1].numpy()
    return style
