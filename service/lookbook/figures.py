"""The figures that matter to who watches the service, out of what it tells Prometheus: of all its workers together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Samples = Mapping[str, list[tuple[Labels, float]]]
Buckets = list[tuple[float, float]]
_TOTAL = "total"


def figures_of(page: bytes, since: Sequence[int] = ()) -> dict[str, Any]:
    """What ``Metrics.page`` says, as the page shows it: counted since the service started; times in milliseconds.

    ``mark`` is how many recommendations took up to each bound, which ``since`` takes: ``recent`` is of those after it,
    None where there was no mark, or a service that has started anew.
    """
    samples = _samples(page)
    histograms = _histograms(samples, "modiste_recommendation_seconds", "stage")
    stages = {stage: _timing(buckets) for stage, buckets in histograms.items()}
    total = histograms.get(_TOTAL, [])
    in_stock, not_in_stock = (_largest(samples, "modiste_index_articles", stock=stock) for stock in ("in", "out"))
    return {
        "workers": len(samples["modiste_ready"]) or 1,
        "requests": sorted(_requests(samples), key=lambda each: -each["count"]),
        "stages": [{"stage": stage, **timing} for stage, timing in stages.items() if stage != _TOTAL],
        "total": _timing(total),
        "mark": [int(count) for _, count in total],
        "recent": _recent(total, since),
        "events": _by(samples, "modiste_events_total", "result"),
        "degraded": sum(value for _, value in samples["modiste_degraded_answers_total"]),
        "store_failures": _by(samples, "modiste_store_failures_total", "reason"),
        "queue": _by(samples, "modiste_generation_queue", "state") or None,
        "generations": _by(samples, "modiste_generations_total", "result"),
        "articles": {"in_stock": in_stock, "all": in_stock + not_in_stock},
    }


def quantile(bounds: Iterable[tuple[float, float]], q: float) -> float | None:
    """The ``q``-quantile of a histogram: (upper bound, how many at most that), ascending; None of nothing.

    Linear within a bucket, as Prometheus' ``histogram_quantile``; what is above all bounds counts as the last one.
    """
    buckets = list(bounds)
    wanted = q * buckets[-1][1] if buckets else 0.0
    if not wanted:
        return None
    low, below = 0.0, 0.0
    for high, count in buckets:
        if count >= wanted:
            return low if math.isinf(high) else low + (high - low) * (wanted - below) / (count - below)
        low, below = high, count
    return low


def _samples(page: bytes) -> Samples:
    found: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


def _by(samples: Samples, name: str, label: str) -> dict[str, float]:
    counts: defaultdict[str, float] = defaultdict(float)
    for labels, value in samples[name]:
        counts[labels[label]] += value
    return dict(counts)


def _largest(samples: Samples, name: str, **wanted: str) -> int:
    """Of what several workers say, the most: one that has just started says less."""
    values = [value for labels, value in samples[name] if wanted.items() <= dict(labels).items()]
    return int(max(values, default=0))


def _requests(samples: Samples) -> list[dict[str, Any]]:
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for labels, value in samples["modiste_requests_total"]:
        counts[f"{labels['method']} {labels['route']}", labels["status"]] += value
    return [{"route": route, "status": int(status), "count": int(count)} for (route, status), count in counts.items()]


def _histograms(samples: Samples, name: str, label: str) -> dict[str, Buckets]:
    """By ``label``: (upper bound, how many at most that), ascending."""
    buckets: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    for labels, value in samples[f"{name}_bucket"]:
        buckets[labels[label]][float(labels["le"])] += value
    return {each: sorted(counts.items()) for each, counts in buckets.items()}


def _recent(buckets: Buckets, since: Sequence[int]) -> dict[str, Any] | None:
    if len(since) != len(buckets) or not buckets:
        return None
    later = [(bound, count - before) for (bound, count), before in zip(buckets, since, strict=True)]
    per_bucket = np.diff([0, *(count for _, count in later)])
    return _timing(later) if (per_bucket >= 0).all() else None


def _timing(buckets: Buckets) -> dict[str, Any]:
    """Count, p50 and p99."""
    p50, p99 = (quantile(buckets, q) for q in (0.5, 0.99))
    milliseconds = {name: None if each is None else 1e3 * each for name, each in (("p50_ms", p50), ("p99_ms", p99))}
    return {"count": int(buckets[-1][1]) if buckets else 0, **milliseconds}
