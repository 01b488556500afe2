"""The last stage: the weights of the blended ranking, fitted on the validation window (design §4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.popularity import trend_score
from offline.article_offsets import read_dna
from offline.blend import fit_blend
from offline.context import Context
from offline.generating import GeneratingModel, sessions_before
from offline.popularity import RecentSales, popularity_in_window
from offline.style_lstm import customer_index, styles_at, trained_network
from offline.validation import AsOf, bought_candidates, candidate_places


def train_blend(context: Context) -> None:
    """Fit and keep ``model_store.bundle.Blend``."""
    if not context.world.first:
        return
    run, known, window = context.run, context.known, context.known.window
    dna = read_dna(run)
    index = customer_index(known.training, window.customers)
    styles = styles_at(trained_network(run), context.time_spec, dna, known.training, index, window.times)
    sales, created_at = RecentSales(known.training, len(dna)), context.data.created_at[window.candidates]
    trend = AsOf.of(known.sales_until, lambda at: trend_score(sales.trend(at, window.candidates, created_at)))
    bought = bought_candidates(candidate_places(window.candidates, len(dna)), known.training, index)
    fitted = fit_blend(window, dna, styles, trend, bought, _generated_lists(context), popularity_in_window(context))
    for name, tried in fitted.tried.items():
        alone, chosen = tried[0], next(entry for entry in tried if entry[0] == getattr(fitted.blend, name))
        whose = " for who has a session" if name == "generated" else ""
        context.progress.say(
            f"blend: {name} {chosen[0]:.4g}{whose}; validation AUC {alone[1]:.4f} → {chosen[1]:.4f}, "
            f"discounted gain {alone[2]:.4f} → {chosen[2]:.4f}"
        )
    if fitted.cold is not None:
        trending, by_style = fitted.cold
        how = "like all others" if fitted.blend.cold_by_style else "with what trends first"
        context.progress.say(
            f"blend: customers without purchases {how}; validation discounted gain {trending:.4f} with what trends "
            f"first, {by_style:.4f} like all others"
        )
    context.keeper.replace("blend")
    run.save_json("blend", fitted.blend)
    records = [
        dict(zip((name, "auc", "gain"), entry, strict=True)) for name in fitted.tried for entry in fitted.tried[name]
    ]
    context.keeper.commit("blend", records)


def _generated_lists(context: Context) -> list[NDArray[np.int64]] | None:
    """The mixup list of each customer of the validation window, empty beyond the first ``sessions.held_out``.

    None where the run has no generating half.
    """
    model = GeneratingModel.of_run(context.run, context.data) if context.config.generation.enabled else None
    if model is None:
        return None
    window, split = context.known.window, context.split
    most = min(context.config.generation.sessions.held_out, len(window.customers))
    bought = [set[str]() for _ in window.customers]
    for row, target in zip(window.row.tolist(), window.candidates[window.target].tolist(), strict=True):
        bought[row].add(context.data.article_ids[target])
    sessions = sessions_before(
        context.data,
        split.validation_from,
        split.cutoff,
        window.customers[:most],
        window.times[:most],
        bought[:most],
        model.spec.prompt.actions,
    )
    lists = model.lists(context.data, sessions, window.candidates, context.progress)
    return [*lists, *[np.zeros(0, np.int64)] * (len(window.customers) - most)]
