"""The stages of the style half: pictures, Fashion DNA, style LSTM (Zalando 2017)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from model_store.article_features import ArticleSpec
from model_store.dataset import DataSet
from model_store.purchases import Purchases
from offline.article_offsets import NAME, new_offsets
from offline.article_tables import build_fashion_dna, encode_catalogue, encode_dna, fit_article_spec
from offline.context import Context, weights
from offline.fashion_dna import FashionDnaStage, frequent_customers, purchase_matrix, trained_articles
from offline.images import (
    EmbeddingCache,
    embed_pictures,
    embeddings_of_articles,
    find_pictures,
    network_hash,
    pretrained,
    train_small_network,
)
from offline.models.residual import ResidualNetwork, save_residual_network
from offline.models.style_lstm import StyleLstmNetwork
from offline.negatives import NegativeSampler
from offline.popularity import Popularity, PopularityHistory, RecentSales, fit_half_life, popularity_in_window
from offline.run import Run
from offline.style_lstm import StyleLstmStage, make_sequences, window_score
from offline.training import Curve, derive, fit, seed_torch


def train_images(context: Context) -> None:
    """Residual network, and every picture's embedding."""
    spec = fit_article_spec(context.data, context.config, context.progress)
    pictures = find_pictures(context.data, context.progress)
    curve: Curve = []
    if context.config.images.network:
        network, source = pretrained(context.config.images)
    else:
        seed_torch(derive(context.config.seed, "images", "weights"))
        network, source, fitted = train_small_network(
            context.data,
            pictures,
            spec,
            context.config.images,
            seed=context.config.seed,
            checkpoint=context.keeper.checkpoint("images"),
            recipe=context.keeper.text("images"),
            world=context.world,
            precision=context.config.precision,
            progress=context.progress,
        )
        curve = fitted.curve if fitted else []
    context.progress.say(f"images: {source}")
    if not context.world.first:
        return
    cache = EmbeddingCache(_cache_folder(context, network, spec))
    embedding = embed_pictures(
        context.data, pictures, network, spec, cache=cache, device=context.world.device, progress=context.progress
    )
    arrays = embeddings_of_articles(pictures, embedding)
    context.keeper.replace("images")
    _write_residual(context.run, network.cpu(), source)
    context.run.save_arrays("image_embeddings", arrays)
    context.run.save_json("article_spec", spec)
    context.keeper.commit("images", curve)


def train_fashion_dna(context: Context) -> None:
    """Fashion DNA and the static customers (Zalando 2017, §2.2)."""
    config, known = context.config.fashion_dna, context.known
    spec = context.run.load_model("article_spec", ArticleSpec)
    images = context.run.load_arrays("image_embeddings")
    table = encode_catalogue(context.data, spec, images["embedding"], images["has_image"], context.progress)
    seed_torch(derive(context.config.seed, "fashion_dna", "weights"))
    network = build_fashion_dna(context.config, spec, images["embedding"].shape[1])
    customers = frequent_customers(known.training, config.min_purchases, config.max_customers)
    matrix = purchase_matrix(known.training, customers, len(table))
    first = int(known.training.timestamp.min(initial=known.part.end))
    articles = trained_articles(matrix, context.data.availability, first, known.part.end)
    context.progress.say(f"fashion_dna: {len(articles):,} articles × {len(customers):,} frequent customers")
    stage = FashionDnaStage(
        network,
        table,
        matrix=matrix,
        articles=articles,
        window=known.window,
        config=config,
        device=context.world.device,
    )
    fitted = fit(
        stage,
        config,
        seed=context.config.seed,
        checkpoint=context.keeper.checkpoint("fashion_dna"),
        recipe=context.keeper.text("fashion_dna"),
        world=context.world,
        precision=context.config.precision,
        progress=context.progress,
    )
    if not context.world.first:
        return
    dna = encode_dna(network, table, context.world.device)
    context.keeper.replace("fashion_dna")
    context.run.save_arrays("fashion_dna", weights(network))
    context.run.save_arrays("article_dna", {"dna": dna})
    context.run.save_arrays("static", stage.arrays())
    context.run.save_json("static_customers", stage.ids)
    context.keeper.commit("fashion_dna", fitted.curve)


def train_popularity(context: Context) -> None:
    """The half-life of sales, and what each article's come to (``offline.popularity``)."""
    if not context.world.first:
        return
    known, split, articles = context.known, context.split, len(context.data.article_ids)
    sales = RecentSales(known.training, articles)
    fitted = fit_half_life(known.window, sales, known.sales_until)
    context.progress.say(f"popularity: sales halve in {fitted.days:g} days")
    now = Popularity(RecentSales(known.all, articles), context.data.availability, fitted.days)
    component = now.at(split.cutoff)
    context.keeper.replace("popularity")
    context.run.save_arrays("popularity", {"cutoff": component})
    newcomer = now.newcomer(component, split.cutoff)
    context.run.save_json("popularity", {"half_life_days": fitted.days, "newcomer": newcomer})
    context.keeper.commit("popularity", [{"half_life_days": days, "gain": gain} for days, gain in fitted.tried])


def train_style_lstm(context: Context) -> None:
    """The style LSTM (Zalando 2017, §2.3–2.5)."""
    config, config_of_dna, known = context.config.style_lstm, context.config.fashion_dna, context.known
    dna = context.run.load_arrays("article_dna")["dna"]
    time_spec = context.time_spec
    seed_torch(derive(context.config.seed, "style_lstm", "weights"))
    network = StyleLstmNetwork(time_spec.step_size, config.dropout, popularity=config_of_dna.popularity)
    half_life = context.run.load_json("popularity")["half_life_days"]
    offsets = new_offsets(len(dna), config)
    score = window_score(known.window, time_spec, dna, known.training, popularity_in_window(context))
    curve: Curve = []
    trainings = [("style_lstm", known.training, config)]
    if config.refit_epochs:
        refit = config.model_copy(update={"epochs": config.refit_epochs, "lr": config.lr / 10})
        trainings.append(("style_lstm_refit", known.all, refit))
    for name, purchases, schedule in trainings:
        sampler = NegativeSampler(
            purchases, context.data.availability, recent_share=config.recent_share, recent_days=config.recent_days
        )
        stage = StyleLstmStage(
            network,
            dna,
            sequences=make_sequences(purchases, config.max_purchases),
            negatives=sampler,
            time_spec=time_spec,
            config=config,
            score=score,
            popularity=_popularity_history(context.data, purchases, half_life) if config_of_dna.popularity else None,
            offsets=offsets,
            name=name,
        )
        fitted = fit(
            stage,
            schedule,
            seed=context.config.seed,
            checkpoint=context.keeper.checkpoint(name),
            recipe=context.keeper.text("style_lstm"),
            keep_last=purchases is known.all,
            world=context.world,
            precision=context.config.precision,
            progress=context.progress,
        )
        curve += fitted.curve
    if not context.world.first:
        return
    context.keeper.replace("style_lstm")
    context.run.save_arrays("style_lstm", weights(network))
    if offsets is not None:
        context.run.save_arrays(NAME, {"offset": offsets.table()})
    context.run.save_json("time_spec", time_spec)
    context.keeper.commit("style_lstm", curve)


def _popularity_history(data: DataSet, purchases: Purchases, half_life: float) -> PopularityHistory:
    sales = RecentSales(purchases, len(data.article_ids))
    return PopularityHistory(Popularity(sales, data.availability, half_life), int(purchases.timestamp.max()))


def _cache_folder(context: Context, network: ResidualNetwork, spec: ArticleSpec) -> Path:
    cache = context.config.images.cache
    root = Path(cache) if cache else context.run.folder / "embedding_cache"
    return root / network_hash(network, spec)[:32]


def _write_residual(run: Run, network: ResidualNetwork, source: str) -> None:
    """The folder ``residual``, aside and then renamed."""
    aside = Path(tempfile.mkdtemp(prefix=".residual-", dir=run.folder))
    save_residual_network(network, aside)
    (aside / "source.txt").write_text(source + "\n", encoding="utf-8")
    aside.rename(run.folder / "residual")
