from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from model_store.dataset import DataSet
from model_store.errors import TrainingError
from model_store.generation import QueryMemory
from model_store.prompts import PromptSpec, UnparseableGeneration, parse_response
from model_store.records import Article
from model_store.tokens import Tokenizer
from offline.config import StandInConfig
from offline.progress import Bar, Silent
from offline.shop.simulation import DAY, ShopConfig
from offline.shop.writing import write_shop
from offline.stand_in import StandInTraining, llama_config, train_stand_in
from offline.stand_in_documents import Document, Documents, Likeness, known_articles
from offline.stand_in_tokenizer import END_ID
from offline.stand_in_weights import embeddings
from offline.training import derive
from offline.world import World

END = 20_000 * DAY
KNOWN_AT = END - 10 * DAY
PROMPT = PromptSpec(actions=4)
CONFIG = StandInConfig(
    vocabulary=1_000,
    hidden=128,
    intermediate=256,
    layers=2,
    heads=2,
    tokens=256,
    documents=400,
    batch=4,
    epochs=2,
    lr=2e-3,
    clip_norm=1.0,
    checkpoint_steps=20,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_shop(folder, ShopConfig(end=END, articles=200, customers=100, days=40, images=False))
    return DataSet.open(folder)


@pytest.fixture(scope="module")
def memory(data: DataSet) -> QueryMemory:
    """Each category's articles, under its name."""
    articles = [article for row, article in enumerate(data.articles()) if row in set(known_articles(data, KNOWN_AT))]
    queries = sorted({article.category.casefold() for article in articles})
    keys = np.eye(128, dtype=np.float32)[: len(queries)]
    lists = [[one.article_id for one in articles if one.category.casefold() == query][:12] for query in queries]
    return QueryMemory(queries, keys, lists)


def train(
    data: DataSet,
    memory: QueryMemory,
    folder: Path,
    config: StandInConfig = CONFIG,
    *,
    seed: int = 1,
    progress: Silent | None = None,
) -> Path:
    out = folder / "base"
    train_stand_in(
        data,
        memory,
        config,
        known_at=KNOWN_AT,
        seed=seed,
        out=out,
        checkpoint=folder / "stand_in.pt",
        recipe="test",
        world=World(),
        precision="fp32",
        progress=progress or Silent(),
        prompt=PROMPT,
    )
    return out


@pytest.fixture(scope="module")
def trained(data: DataSet, memory: QueryMemory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, memory, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def documents(data: DataSet, memory: QueryMemory) -> Documents:
    return Documents(data, memory, known_at=KNOWN_AT, prompt=PROMPT, nearest=2, top=5)


# --- what is learned -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    """Of greedy generations: the share that parses, and the shares whose id and category are right."""

    parsed: float
    known: float
    in_category: float


def skill(folder: Path, data: DataSet, documents: list[Document], model: torch.nn.Module | None = None) -> Skill:
    tokenizer = Tokenizer.of_model(folder)
    model = model or AutoModelForCausalLM.from_pretrained(folder)
    category = {article.article_id: article.category for article in data.articles()}
    parsed = known = right = 0
    for document in documents:
        prompt = torch.tensor([tokenizer.encode_prompt(document.prompt)])
        written = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False
        )
        try:
            generated = parse_response(tokenizer.decode(written[0, prompt.shape[1] :].tolist()))
        except UnparseableGeneration:
            continue
        wanted = parse_response(document.response).article_id
        parsed += 1
        known += generated.article_id in category
        right += category.get(generated.article_id) == category[wanted]
    return Skill(parsed / len(documents), known / len(documents), right / len(documents))


def test_it_learns_the_format_and_what_a_session_is_about(data: DataSet, documents: Documents, trained: Path) -> None:
    asked = documents.draw(60, np.random.default_rng(99))
    learned = skill(trained, data, asked)
    assert learned.parsed > 0.9
    assert learned.known > 0.8
    assert learned.in_category > 0.5, "of 18 categories"


def test_an_untrained_one_knows_nothing(data: DataSet, documents: Documents, trained: Path) -> None:
    """Its weights begin well, but neither the format nor a session's meaning comes with that."""
    tokenizer = AutoTokenizer.from_pretrained(trained)
    torch.manual_seed(0)
    blank = AutoModelForCausalLM.from_config(llama_config(CONFIG, len(tokenizer))).eval()
    assert skill(trained, data, documents.draw(10, np.random.default_rng(99)), blank).parsed == 0.0


def test_on_queries_and_sessions_of_nothing_it_learns_nothing_about_articles(
    data: DataSet, memory: QueryMemory, tmp_path: Path
) -> None:
    """The ceiling: what is shown for a query is drawn at random, so no category can be told."""
    rng = np.random.default_rng(5)
    everything = sorted({article_id for each in memory.article_ids for article_id in each})
    shuffled = [rng.permutation(everything)[:12].tolist() for _ in memory.article_ids]
    random = QueryMemory(memory.queries, memory.keys, shuffled)
    spec = PromptSpec(actions=1)
    folder = tmp_path / "random"
    train_stand_in(
        data,
        random,
        CONFIG.model_copy(update={"epochs": 1}),
        known_at=KNOWN_AT,
        seed=1,
        out=folder,
        checkpoint=tmp_path / "random.pt",
        recipe="test",
        world=World(),
        precision="fp32",
        progress=Silent(),
        prompt=spec,
        nearest=1,
        top=1,
    )
    drawn = Documents(data, random, known_at=KNOWN_AT, prompt=spec, nearest=1, top=1).draw(200, rng)
    searching = [one for one in drawn if "search keyword" in one.prompt]
    assert skill(folder, data, searching).in_category < 0.25


def test_the_directory_is_one_that_the_libraries_read(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    ours, theirs = Tokenizer.of_model(trained), AutoTokenizer.from_pretrained(trained)
    text = 'click product {"id": "a000001", "title": "Glam shorts in red – çå"}'
    assert theirs(text)["input_ids"] == ours.encode_prompt(text)
    assert theirs.decode(ours.encode(text)) == text
    assert ours.end == theirs.eos_token_id == END_ID
    model = AutoModelForCausalLM.from_pretrained(trained)
    assert model.get_input_embeddings().weight.shape[0] == len(theirs)
    assert model.generation_config.eos_token_id == END_ID


class _Killed(Exception):
    pass


class Killing(Silent):
    """Ends the training after so many steps, as a kill would."""

    def __init__(self, steps: int):
        self._left = steps

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        yield self

    def advance(self, count: int = 1) -> None:
        self._left -= count
        if self._left < 0:
            raise _Killed

    def note(self, text: str) -> None: ...


def test_resumed_is_uninterrupted(data: DataSet, memory: QueryMemory, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"documents": 32, "checkpoint_steps": 3, "hidden": 32})
    whole = train(data, memory, tmp_path / "whole", config)
    for steps in (5, 5):  # in the middle of the first epoch, then in the second
        with pytest.raises(_Killed):
            train(data, memory, tmp_path / "killed", config, progress=Killing(steps))
    killed = train(data, memory, tmp_path / "killed", config)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "tokenizer.json").read_bytes() == (killed / "tokenizer.json").read_bytes()


def test_the_loss_is_that_of_each_token_by_its_weight() -> None:
    """Against the library's own loss, token by token; what is padded or weighs nothing changes nothing."""
    torch.manual_seed(0)
    config = llama_config(CONFIG, 300)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(1, 300, (2, 9))
    weight = torch.tensor([[0.3] * 5 + [1.0] * 4, [0.3] * 3 + [1.0] * 3 + [0.0] * 3])
    with torch.inference_mode():
        loss, total = StandInTraining(model, None)(tokens, weight)
        each = torch.zeros(2, 9)
        for row in range(2):
            for place in range(1, 9):
                labels = torch.full((1, 9), -100)
                labels[0, place] = tokens[row, place]
                each[row, place] = model(input_ids=tokens[row : row + 1], labels=labels).loss
        assert total == pytest.approx(float(weight[:, 1:].sum()))
        torch.testing.assert_close(loss, (each * weight)[:, 1:].sum(), rtol=1e-4, atol=1e-4)
        tokens[1, 6:] = 0
        torch.testing.assert_close(StandInTraining(model, None)(tokens, weight)[0], loss)


# --- documents ---------------------------------------------------------------------------------------------------


def test_documents_speak_of_known_articles_only(data: DataSet, documents: Documents) -> None:
    articles = list(data.articles())
    known = {articles[row].article_id for row in known_articles(data, KNOWN_AT)}
    unknown = {article.article_id for article in articles} - known
    assert unknown, "some came later"
    for article in articles:
        assert (article.article_id in known) == ((article.created_at or 0) < KNOWN_AT)
    drawn = documents.draw(300, np.random.default_rng(0))
    text = "".join(one.prompt + one.response for one in drawn)
    titles = {article.title for article in articles if article.article_id in known}
    assert not [article_id for article_id in unknown if article_id in text]
    assert {parse_response(one.response).title for one in drawn} <= titles
    assert {parse_response(one.response).article_id for one in drawn} <= known


def test_documents_are_drawn_by_seed_and_have_sessions_of_every_length(documents: Documents) -> None:
    first, again = (documents.draw(80, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert first != documents.draw(80, np.random.default_rng(4))
    lengths = {one.prompt.count("product {") + one.prompt.count("search keyword") for one in first}
    assert lengths == {1, 2, 3, 4}


def test_a_document_that_searched_has_the_memory_s_candidates(documents: Documents, memory: QueryMemory) -> None:
    lists = dict(zip(memory.queries, memory.article_ids, strict=True))
    from_own = 0
    drawn = documents.draw(200, np.random.default_rng(0))
    searching = [one for one in drawn if "search keyword <" in one.prompt]
    for one in searching:
        query = one.prompt.rpartition("search keyword <")[2].partition(">")[0]
        candidates = candidates_of(one)
        own = [article_id for article_id in lists[query] if article_id in candidates]
        assert candidates[: len(own)] == own, "the latest query's own list comes first, in its order"
        from_own += len(own) > 0
    assert from_own > 0.9 * len(searching) > 100
    assert not any(candidates_of(one) for one in drawn if one not in searching), "as when serving"


def candidates_of(document: Document) -> list[str]:
    ids = document.prompt.rpartition("ids:[")[2].partition("]")[0]
    return ids.split(",") if ids else []


def test_alike_is_what_shares_rare_words_and_not_the_category() -> None:
    def article(number: int, title: str, **more: str) -> Article:
        return Article(article_id=str(number), title=title, category="Coat" if "coat" in title else "Hat", **more)

    articles = [
        article(0, "Nautical coat in navy", brand="Tide"),
        article(1, "Nautical hat in navy", brand="Tide"),
        article(2, "Floral coat in red", brand="Rosalie"),
        article(3, "Floral hat in navy", brand="Rosalie"),
        article(4, "Plain coat in navy", brand="Plain"),
        article(5, "Nautical coat in navy", brand="Tide"),  # unknown
    ]
    like = Likeness(articles, np.arange(5))
    assert like.of(0).tolist()[0] == 1
    assert 0 not in like.of(0)
    assert 5 not in like.of(0)
    assert set(like.in_category(0).tolist()) <= {2, 4}
    assert like.in_category(0).tolist()[0] == 4


def test_nothing_known_is_a_training_error(data: DataSet, memory: QueryMemory) -> None:
    with pytest.raises(TrainingError, match="no article was known"):
        Documents(data, memory, known_at=0, prompt=PROMPT, nearest=1, top=1)


def test_without_a_memory_documents_just_do_not_search(data: DataSet) -> None:
    empty = QueryMemory([], np.zeros((0, 128), np.float32), [])
    drawn = Documents(data, empty, known_at=KNOWN_AT, prompt=PROMPT, nearest=3, top=5).draw(
        20, np.random.default_rng(0)
    )
    assert all("search" not in one.prompt.partition("### Input")[2] for one in drawn)
    assert all("ids:[]" in one.prompt for one in drawn)


# --- where weights begin -----------------------------------------------------------------------------------------


def test_tokens_that_say_the_same_begin_alike() -> None:
    articles = [
        Article(article_id="a1", title="Navy jacket", category="Jacket", colour="navy"),
        Article(article_id="a2", title="Red coat", category="Coat", colour="red"),
    ]
    tokens = ["<|end|>", "Navy", " navy", '", "color": "navy', "a1", " jacket", " coat", "a2"]
    table = embeddings(tokens, articles, 256, np.random.default_rng(0))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    cosine = dict(zip(tokens, table @ table[2], strict=True))
    assert min(cosine["Navy"], cosine['", "color": "navy']) > 0.8
    assert cosine["a1"] > 0.4
    assert max(abs(cosine[name]) for name in ("<|end|>", " coat", "a2")) < 0.25
    seeds = (derive(seed, "x") for seed in (0, 0, 1))
    one, again, other = (embeddings(tokens, articles, 64, rng) for rng in seeds)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
