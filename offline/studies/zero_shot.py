"""Trained on one group of categories, asked about the others (Amazon 2024, §5.4, Figure 5).

A group is a data set of its own: its articles, and all that was done with them and searched for them. The run that was
trained on the first group is put to work in the catalogue of each other one without any further training
(``offline.studies.transfer``), and so is the base run, trained on all groups, which is what it is measured against.
Both read the same sessions, of that group alone, and rank its articles in stock.

By time only: where the ends of histories are held out, the base run would have seen what a group's are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from model_store.dataset import DataSet
from model_store.errors import InvalidConfig, InvalidData
from offline.evaluation.backtest import dynamic_ranking
from offline.evaluation.rankings import BY_SALES, popularity
from offline.evaluation.ranks import Ranking
from offline.evaluation.tables import fair_tiers
from offline.evaluation.task import Window
from offline.evaluation.window import choose_windows, make_task
from offline.hold_out import BY_TIME
from offline.run import Run, Split
from offline.studies import findings
from offline.studies.comparing import Json, Named, compare, table
from offline.studies.study import Outcome, Request, Study
from offline.studies.subsets import only_articles
from offline.studies.transfer import transferred
from offline.studies.writing import Nothing, Writings

Groups = Mapping[str, Sequence[str]]
ZERO, ALL = "zero-shot", "all groups"
STYLE, TEXT, CHANCE = "style", "generated", "chance"
_DEALT = 4


def groups_of(data: DataSet, named: Groups) -> dict[str, tuple[str, ...]]:
    """The groups of categories, as ``named``, or dealt out by number of articles, so that they are about as large.

    Raises InvalidConfig where one is unknown, stands in two groups, or there are fewer than two groups.
    """
    sizes: dict[str, int] = {}
    for article in data.articles():
        sizes[article.category] = sizes.get(article.category, 0) + 1
    groups = {name: tuple(categories) for name, categories in named.items()} or _dealt(sizes)
    if len(groups) < 2:
        raise InvalidConfig("zero-shot: needs at least two groups of categories; the data set's categories are too few")
    seen = set[str]()
    for name, categories in groups.items():
        for category in categories:
            if category not in sizes:
                known = ", ".join(sorted(sizes)[:20])
                raise InvalidConfig(f"--group {name}: there is no category '{category}'; there are {known} …")
            if category in seen:
                raise InvalidConfig(f"--group {name}: '{category}' is in another group already")
            seen.add(category)
    return groups


def _dealt(sizes: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    dealt: list[list[str]] = [[] for _ in range(min(_DEALT, len(sizes)))]
    for category in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(dealt, key=lambda names: sum(sizes[name] for name in names)).append(category)
    return {f"group {number}": tuple(names) for number, names in enumerate(dealt, 1)}


def conduct(request: Request) -> Outcome:
    """Train on the first group, and ask about each other one."""
    workshop = request.workshop
    if workshop.config.split.hold_out != BY_TIME:
        raise InvalidConfig(f"zero-shot: is measured by time alone; set 'hold_out = \"{BY_TIME}\"' under [split]")
    groups = groups_of(request.data, request.groups)
    parts = {name: _part(request, name, categories) for name, categories in groups.items()}
    source, *others = groups
    full = workshop.full()
    [window] = choose_windows(request.data, full.load_model("split", Split).cutoff)
    alone = workshop.run(f"only-{_slug(source)}", workshop.same_cut(parts[source]), parts[source])
    runs = {ZERO: (alone, parts[source]), ALL: (full, request.data)}
    found, left_out = list[Json](), list[str]()
    for name in others:
        try:
            found += _asked(request, name, parts[name], runs, window)
        except InvalidData as error:
            left_out.append(f"{name} is left out: {error}.")
    if not found:
        raise InvalidData(f"zero-shot: no group can be asked about: {' '.join(left_out)}")
    half = TEXT if workshop.config.generation.enabled else STYLE
    variants = {"full": {}, f"only-{_slug(source)}": f"the articles of {source}"}
    notes = [*_notes(request, groups, parts), *left_out]
    return Outcome(found, _finding(found, half), f"{half}, {ALL}", variants, (), notes)


def _notes(request: Request, groups: Groups, parts: Mapping[str, DataSet]) -> list[str]:
    contents = "; ".join(
        f"{name}: {', '.join(categories)} ({len(parts[name].article_ids):,} articles)"
        for name, categories in groups.items()
    )
    notes = [
        f"Trained on “{next(iter(groups))}”. Groups: {contents}.",
        "Popularity knows the sales of the very group that is asked about, which zero-shot models do not learn from.",
    ]
    generation = request.workshop.config.generation
    if generation.enabled and not generation.language_model.base:
        notes.append(
            "The stand-in language model is trained on the first group's texts alone, so unlike the paper's it knows "
            "no word of the others but those that sessions show it."
        )
    return notes


def _part(request: Request, name: str, categories: Sequence[str]) -> DataSet:
    chosen = np.array([article.category in categories for article in request.data.articles()])
    digest = hashlib.sha256("\0".join(sorted(categories)).encode()).hexdigest()[:12]
    return only_articles(request.data, chosen, request.parts / f"{_slug(name)}-{digest}", f"the articles of {name}")


def _asked(
    request: Request, name: str, part: DataSet, runs: Mapping[str, tuple[Run, DataSet]], window: Window
) -> list[Json]:
    """The table of one group: both runs, in its catalogue."""
    workshop = request.workshop
    folder = workshop.folder / "transferred"
    task = make_task(part, window)
    ranked: list[Ranking] = [Nothing(task.targets.candidates, CHANCE), popularity(task)]
    texts = None
    if workshop.config.generation.enabled:
        texts = Writings(task, part, workshop.config.generation.sessions.actions, workshop.progress)
        if not texts.has_session.any():
            raise InvalidData("nobody has a session in it")
    for how, (run, trained_on) in runs.items():
        out = folder / f"{run.folder.name}-in-{_slug(name)}"
        moved = transferred(run, trained_on, part, out, workshop.progress)
        ranked.append(Named(f"{STYLE}, {how}", dynamic_ranking(task, part, moved)))
        if texts is not None:
            ranked.append(texts.ranking(moved, f"{TEXT}, {how}", workshop.config.generation.mixup))
    tiers, among = fair_tiers(task.stock_tells_sales)
    chosen = task.first_order & texts.has_session if texts else task.targets.candidate >= 0
    what = "the next order of customers with a session" if texts else "all purchases"
    tables = [table(_slug(name), f"{name}: {what}{among}", tiers, task, chosen)]
    halves = [STYLE, *([TEXT] if texts else [])]
    pairs = [(f"{half}, {ZERO}", f"{half}, {ALL}") for half in halves]
    pairs += [(f"{half}, {ZERO}", other) for half in halves for other in (CHANCE, BY_SALES)]
    pairs += [(f"{TEXT}, {ZERO}", f"{STYLE}, {ZERO}")] if texts else []
    return compare(task, ranked, tables, pairs, request.sampling, workshop.progress)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.casefold()).strip("-")


def _finding(found: Sequence[Json], half: str) -> str:
    figure = "recall_10" if half == TEXT else "auc"
    told = [
        f"{one['title'].partition(':')[0]} {findings.value(one, f'{half}, {ZERO}', figure)} "
        + ", ".join(
            f"against {words} {findings.short(one, f'{half}, {ZERO}', other, figure)}"
            for words, other in (("chance", CHANCE), ("popularity", BY_SALES), ("all groups", f"{half}, {ALL}"))
        )
        + " points"
        for one in found
    ]
    return f"{findings.title(figure)} of “{half}” without training in the group: {'; '.join(told)}."


STUDY = Study(
    "zero-shot",
    "Asked about categories that training never saw",
    "Amazon 2024, §5.4, Figure 5",
    "What carries over to other categories without any training there? In the paper much did, by language alone.",
    conduct,
)
