"""The last stage: the weights of the blended ranking, fitted on the validation window (design §4)."""

from __future__ import annotations

from offline.blend import fit_blend
from offline.context import Context, tensors
from offline.models.style_lstm import StyleLstmNetwork
from offline.style_lstm import customer_index, styles_at


def train_blend(context: Context) -> None:
    """Fit and keep ``model_store.bundle.Blend``."""
    if not context.world.first:
        return
    run, known = context.run, context.known
    time_spec, dna = context.time_spec, run.load_arrays("article_dna")["dna"]
    network = StyleLstmNetwork(time_spec.step_size)
    network.load_state_dict(tensors(run.load_arrays("style_lstm")))
    index = customer_index(known.training, known.window.customers)
    styles = styles_at(network, time_spec, dna, known.training, index, known.window.times)
    fitted = fit_blend(known.window, dna, styles, known.all, context.data.created_at)
    alone, chosen = fitted.tried[0], next(entry for entry in fitted.tried if entry[0] == fitted.blend.trend)
    context.progress.say(
        f"blend: trend {fitted.blend.trend:.4g}; validation AUC {alone[1]:.4f} → {chosen[1]:.4f}, "
        f"discounted gain {alone[2]:.4f} → {chosen[2]:.4f}"
    )
    context.keeper.replace("blend")
    run.save_json("blend", fitted.blend)
    names = ("trend", "auc", "gain")
    context.keeper.commit("blend", [dict(zip(names, entry, strict=True)) for entry in fitted.tried])
