"""What each part of the generating half is worth, left out in turn (Amazon 2024, §5.3, Table 3).

Without attributes or without the memory, prompts change, and so the language model is trained anew: stand-in, where one
is used, and fine-tuning, by the same schedule. Without the title or the id embedding the very same text is retrieved
otherwise, by N of the mixup. With CLIP, titles that are written and titles of articles are both embedded by CLIP's text
encoder, projected to 128 components by the shop's titles (``offline.clip``).
"""

from __future__ import annotations

from typing import Any

from model_store.generation import load_ids
from offline.clip import load_clip
from offline.mixup import MixupRetrieval
from offline.run import FOLDER, Run
from offline.studies import findings
from offline.studies.comparing import against, compare
from offline.studies.sequences import needs_searches, next_order, writings
from offline.studies.study import Outcome, Request, Study
from offline.studies.workshop import FULL
from offline.studies.writing import ONLY_IDS, ONLY_TITLES
from offline.title_encoder import catalogue_titles, encode_titles

ATTRIBUTES, MEMORY = "w/o attributes", "w/o memory"
TITLES, IDS, CLIP = "w/o title embedding", "w/o id embedding", "w/ CLIP text"
BOTH, ALL_THREE = "w/o memory & id", "w/o mem., id & attr."
_NO_ATTRIBUTES: dict[str, Any] = {"generation.prompts.attributes": []}
_NO_MEMORY = {"generation.query_memory.top_articles": 0}
TRAINED: dict[str, dict[str, Any]] = {
    FULL: {},
    "without-attributes": _NO_ATTRIBUTES,
    "without-memory": _NO_MEMORY,
    "without-memory-and-attributes": _NO_ATTRIBUTES | _NO_MEMORY,
}
"""Settings of each run that is trained."""


def conduct(request: Request) -> Outcome:
    """Train four language models and retrieve by each."""
    workshop = request.workshop
    workshop.needs_generation("ablations")
    needs_searches(request, "ablations")
    clip = _clip_titles(request) if request.clip else None  # tells now what is wrong with it
    runs = {name: workshop.run(name, settings) for name, settings in TRAINED.items()}
    full, n = runs[FULL], workshop.config.generation.mixup
    task = request.task(full)
    texts = writings(request, task)
    ranked = [
        texts.ranking(full, FULL, n),
        texts.ranking(runs["without-attributes"], ATTRIBUTES, n),
        texts.ranking(runs["without-memory"], MEMORY, n),
        texts.ranking(full, TITLES, ONLY_IDS),
        texts.ranking(full, IDS, ONLY_TITLES),
        *([texts.ranking(full, CLIP, n, clip_retrieval(request, full, clip, n))] if clip else []),
        texts.ranking(runs["without-memory"], BOTH, ONLY_TITLES),
        texts.ranking(runs["without-memory-and-attributes"], ALL_THREE, ONLY_TITLES),
    ]
    names = [one.name for one in ranked]
    pairs = [*against(FULL, names), *([(CLIP, IDS)] if clip else []), (BOTH, IDS), (ALL_THREE, BOTH)]
    found = compare(task, ranked, [next_order(task, texts)], pairs, request.sampling, workshop.progress)
    notes = ["Candidate ids and attributes are left out of all prompts, of training and of asking alike."]
    if not request.clip:
        notes.append("Without CLIP: no directory was named (--clip).")
    return Outcome(found, f"{findings.sorted_out(found[0], names[1:], FULL, 'recall_10')}.", FULL, TRAINED, (), notes)


def _clip_titles(request: Request) -> Any:
    titles, _ = catalogue_titles(request.data)
    return load_clip(request.clip, titles)


def clip_retrieval(request: Request, run: Run, encoder: Any, n: int) -> MixupRetrieval:
    """Retrieval with CLIP's embeddings of titles in the place of the title encoder's."""
    ids = load_ids(run.folder / FOLDER, request.data.article_ids)
    titles = encode_titles(encoder, request.data)
    return MixupRetrieval(request.data.article_ids, titles, ids, encoder.encode, n)


STUDY = Study(
    "ablations",
    "Ablations of the generating half",
    "Amazon 2024, §5.3, Table 3",
    "What is each part worth? In the paper each one that was left out cost something, the title embedding most.",
    conduct,
)
