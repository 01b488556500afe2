"""loadtests.scale_plot draws each size that was measured, stage upon stage."""

from __future__ import annotations

from loadtests.scale_plot import STAGES, draw


def test_stages_are_stacked_at_each_size() -> None:
    sizes = [(1_000, 50), (20_000, 50), (1_000_000, 50), (20_000, 3_000)]
    results = []
    for articles, customers in sizes:
        here = f"{articles:,} articles, {customers:,} customers"
        values = {f"GET (style), one by one: {stage}": 100.0 * n for n, stage in enumerate(STAGES, 1)}
        values |= {
            "floor of HTTP: an empty FastAPI endpoint, one by one": 200.0,
            "floor of search: every vector (float32) read once": articles / 20,
            "Redis": 1.0,
        }
        results += [{"name": f"{here}: {name}", "value": value} for name, value in values.items()]
    conditions = {"sizes": [{"articles": articles, "customers": customers} for articles, customers in sizes]}
    figure = draw({"conditions": conditions, "results": results})
    by_articles, by_customers = figure.axes
    assert [label.get_text() for label in by_articles.get_xticklabels()] == ["1k", "20k", "1M"]
    assert [label.get_text() for label in by_customers.get_xticklabels()] == ["50", "3k"]
    tops = {round(patch.get_y() + patch.get_height(), 3) for patch in by_articles.patches}
    assert tops == {0.1, 0.3, 0.6, 1.0, 1.5, 2.1}  # in ms: 100 µs, and 200 on top of it, …
    assert [text.get_text() for text in by_articles.texts] == ["↑ 50"]  # the scan that leaves the picture
