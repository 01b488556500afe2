"""The last stage: the weights of the blended ranking, fitted on the validation window (design §4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline.blend import fit_blend
from offline.context import Context
from offline.generating import GeneratingModel, sessions_before
from offline.popularity import scored_dna
from offline.style_lstm import customer_index, styles_at, trained_network


def train_blend(context: Context) -> None:
    """Fit and keep ``model_store.bundle.Blend``."""
    if not context.world.first:
        return
    run, known = context.run, context.known
    time_spec, dna = context.time_spec, scored_dna(run, "validation")
    index = customer_index(known.training, known.window.customers)
    styles = styles_at(trained_network(run), time_spec, dna, known.training, index, known.window.times)
    lists = _generated_lists(context)
    created_at, until = context.data.created_at, context.split.validation_from
    fitted = fit_blend(known.window, dna, styles, known.training, created_at, until, index < 0, lists)
    alone, chosen = fitted.tried[0], next(entry for entry in fitted.tried if entry[0] == fitted.blend.trend)
    context.progress.say(
        f"blend: trend {fitted.blend.trend:.4g}; validation AUC {alone[1]:.4f} → {chosen[1]:.4f}, "
        f"discounted gain {alone[2]:.4f} → {chosen[2]:.4f}"
    )
    if fitted.tried_generated:
        without = fitted.tried_generated[0]
        heard = next(entry for entry in fitted.tried_generated if entry[0] == fitted.blend.generated)
        context.progress.say(
            f"blend: generated {fitted.blend.generated:.4g} for who has a session; validation AUC {without[1]:.4f} → "
            f"{heard[1]:.4f}, discounted gain {without[2]:.4f} → {heard[2]:.4f}"
        )
    if fitted.cold is not None:
        trending, by_style = fitted.cold
        how = "by style" if fitted.blend.cold_by_style else "with what trends first"
        context.progress.say(
            f"blend: customers without purchases {how}; validation discounted gain {trending:.4f} with what trends "
            f"first, {by_style:.4f} by style"
        )
    context.keeper.replace("blend")
    run.save_json("blend", fitted.blend)
    names = ("trend", "auc", "gain")
    names_generated = ("generated", "auc", "gain")
    context.keeper.commit(
        "blend",
        [dict(zip(names, entry, strict=True)) for entry in fitted.tried]
        + [dict(zip(names_generated, entry, strict=True)) for entry in fitted.tried_generated],
    )


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
