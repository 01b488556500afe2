"""service.live with the shipped in-memory stores: which bundle answers, and what a change of bundle may not lose."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, sample_articles

from model_store.bundle import (
    CURRENT,
    FASHION_DNA,
    current_version,
    open_bundle,
    read_manifest,
    set_current,
    write_manifest,
)
from model_store.errors import InvalidBundle
from model_store.generation import TITLE_TOKENIZER
from service.catalogue.encoder import CatalogueEncoder, prepare
from service.catalogue.intake import CatalogueIntake
from service.catalogue.memory_store import MemoryCatalogue
from service.choice import Choice, MemoryChoice, candidates, published
from service.engine.filters import EVERYTHING
from service.errors import ActivationInProgress, NotReady, StoreUnavailable, UnknownBundle
from service.live import Lives
from service.rollout import ANNOUNCED, MemoryRollout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_bundle(tmp_path, version="test-1")
    make_bundle(tmp_path, version="test-2", seed=1)
    os.utime(tmp_path / CURRENT, (100, 100))
    return tmp_path


@pytest.fixture
async def catalogue(store: Path) -> MemoryCatalogue:
    """Forty articles, as one bundle encoded them."""
    catalogue = MemoryCatalogue()
    encoder = CatalogueEncoder(open_bundle(store / "test-1"))
    articles = [prepare(one.article, one.image) for one in sample_articles(40)]
    await catalogue.upsert(articles, encoder.bundle_version, encoder.encode(articles).dna)
    return catalogue


def lives_of(
    store: Path,
    catalogue: MemoryCatalogue,
    choice: MemoryChoice | None = None,
    rollout: MemoryRollout | None = None,
    patience: float = 30,
) -> Lives:
    return Lives(
        store,
        catalogue,
        choice or MemoryChoice(),
        rollout or MemoryRollout(),
        clock=lambda: 1_000,
        pause=0.01,
        patience=patience,
    )


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)


async def test_nothing_answers_before_the_catalogue_is_loaded(store: Path, catalogue: MemoryCatalogue) -> None:
    lives = lives_of(store, catalogue)
    with pytest.raises(NotReady, match="the service is starting"):
        assert lives.live
    async with lives.running():
        await until(lambda: lives.version is not None)
        assert len(lives.live.index) == 40


async def test_a_store_without_a_live_bundle_says_so(tmp_path: Path) -> None:
    lives = lives_of(tmp_path / "empty", MemoryCatalogue())

    def why() -> str:
        try:
            assert lives.live
        except NotReady as error:
            return str(error)
        return ""

    async with lives.running():
        await until(lambda: "has no live bundle; publish one with 'modiste export'" in why())


def test_the_later_choice_comes_first(store: Path) -> None:
    current = published(store)
    before, after = (Choice(version="test-2", chosen_at=when) for when in (99, 101))
    assert current == Choice(version="test-1", chosen_at=100)
    assert candidates(current, None) == [current]
    assert candidates(current, before) == [current, before]
    assert candidates(current, after) == [after, current]
    assert published(store / "none") is None
    assert candidates(None, None) == []


async def test_activation_is_shared_and_lasts(store: Path, catalogue: MemoryCatalogue) -> None:
    choice = MemoryChoice()
    rollout = MemoryRollout()
    lives, other = lives_of(store, catalogue, choice, rollout), lives_of(store, catalogue, choice, rollout)
    async with lives.running(), other.running():
        await until(lambda: lives.version == other.version == "test-1")
        live = await lives.activate("test-2")
        assert lives.live is live
        assert len(live.index) == 40
        assert current_version(store) == "test-2"
        await until(lambda: other.version == "test-2")
    again = lives_of(store, catalogue, choice)
    async with again.running():
        await until(lambda: again.version == "test-2")


async def test_what_answers_is_kept_out_of_the_garbage_collectors_way(store: Path, catalogue: MemoryCatalogue) -> None:
    lives = lives_of(store, catalogue)
    async with lives.running():
        await until(lambda: lives.version is not None)
        index = lives.live.index
        assert gc.get_freeze_count() > 0
        assert not any(each is index for each in gc.get_objects())


async def test_the_bundle_before_is_given_back(store: Path, catalogue: MemoryCatalogue) -> None:
    lives = lives_of(store, catalogue)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        before = weakref.ref(lives.live.index)
        await lives.activate("test-2")
        await until(lambda: before() is None)


async def test_a_damaged_choice_falls_back_to_the_one_before(store: Path, catalogue: MemoryCatalogue) -> None:
    choice = MemoryChoice()
    await choice.write(Choice(version="test-2", chosen_at=200))
    (store / "test-2" / FASHION_DNA).write_bytes(b"")
    lives = lives_of(store, catalogue, choice)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        with pytest.raises(InvalidBundle, match=FASHION_DNA):
            await lives.activate("test-2")
        assert lives.version == "test-1"


async def test_a_refused_bundle_that_is_published_again_is_tried_again(store: Path, catalogue: MemoryCatalogue) -> None:
    sound = (store / "test-2" / FASHION_DNA).read_bytes()
    (store / "test-2" / FASHION_DNA).write_bytes(b"")
    lives = lives_of(store, catalogue)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        set_current(store, "test-2")
        await asyncio.sleep(0.1)
        assert lives.version == "test-1"
        (store / "test-2" / FASHION_DNA).write_bytes(sound)
        set_current(store, "test-2")
        await until(lambda: lives.version == "test-2")


@pytest.mark.parametrize("version", ["none", "", "..", "test-1/../test-2", ".hidden"])
async def test_only_versions_of_the_store_can_be_activated(
    store: Path, catalogue: MemoryCatalogue, version: str
) -> None:
    with pytest.raises(UnknownBundle):
        await lives_of(store, catalogue).activate(version)


async def test_nothing_changes_where_the_choice_cannot_be_shared(store: Path, catalogue: MemoryCatalogue) -> None:
    class Unwritable(MemoryChoice):
        async def write(self, choice: Choice) -> None:
            raise StoreUnavailable("down")

    lives = lives_of(store, catalogue, Unwritable())
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        with pytest.raises(StoreUnavailable):
            await lives.activate("test-2")
        assert lives.version == "test-1"
        assert current_version(store) == "test-1"


async def test_a_generating_half_is_opened_and_a_damaged_one_refused(store: Path, catalogue: MemoryCatalogue) -> None:
    for version in ("test-3", "test-4"):
        make_bundle(store, version=version, generating=True)
    manifest = read_manifest(store / "test-4")
    (store / "test-4" / TITLE_TOKENIZER).write_bytes(b"{}")
    write_manifest(store / "test-4", manifest)  # as if it had been exported so
    lives = lives_of(store, catalogue)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        assert lives.live.titles is None
        live = await lives.activate("test-3")
        assert live.titles is not None
        query = live.titles.of("Birch red dress")
        found = live.index.search(query, 1, EVERYTHING, "title")
        assert found.scores[0] == pytest.approx(1.0, abs=1e-5)
        assert live.index.title_of(found.article_ids[0]) == "Birch red dress"
        with pytest.raises(InvalidBundle, match=TITLE_TOKENIZER):
            await lives.activate("test-4")
        assert lives.version == "test-3"


class Held(MemoryChoice):
    """Lets no choice be written before a test says so: a bundle is then loaded, and does not answer yet."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def write(self, choice: Choice) -> None:
        self.reached.set()
        await self.go_on.wait()
        await super().write(choice)


async def test_what_is_written_while_a_bundle_loads_is_in_it(store: Path, catalogue: MemoryCatalogue) -> None:
    """Read-your-writes holds over the very moment of the switch, although following the catalogue takes a while."""
    choice = Held()
    lives = lives_of(store, catalogue, choice)
    intake = CatalogueIntake(catalogue, None, clock=lambda: 1_000)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        activation = asyncio.create_task(lives.activate("test-2"))
        await choice.reached.wait()
        with pytest.raises(ActivationInProgress):
            await lives.activate("test-1")
        article: dict[str, Any] = {"article_id": "new", "title": "New", "category": "dress"}
        await intake.put([article], lives.live.encoder, lives)
        await intake.set_stock([{"article_id": "a001", "quantity": 0}], lives)
        old = lives.live
        choice.go_on.set()
        new = await activation
    for live in (old, new):
        assert live.index.knows("new")
        assert not live.index.in_stock("a001")
    old_dna, new_dna = old.index.dna_of("new"), new.index.dna_of("new")
    assert old_dna is not None
    assert new_dna is not None
    assert (old_dna != new_dna).any()  # each encoded it by its own networks


async def test_all_workers_are_ready_before_the_first_one_switches(store: Path, catalogue: MemoryCatalogue) -> None:
    choice, rollout = Held(), MemoryRollout()
    lives, other = (lives_of(store, catalogue, choice, rollout) for _ in range(2))
    async with lives.running(), other.running():
        await until(lambda: lives.version == other.version == "test-1")
        await asyncio.sleep(0.1)  # both were seen
        activation = asyncio.create_task(lives.activate("test-2"))
        await choice.reached.wait()
        assert lives.version == other.version == "test-1"
        (store / "test-2" / FASHION_DNA).unlink()  # what is not loaded yet cannot be any more
        choice.go_on.set()
        await activation
        await until(lambda: other.version == "test-2")
        await catalogue.delete("a001")
        await until(lambda: not other.live.index.knows("a001"))  # it follows


class Counted(MemoryRollout):
    """Counts what was announced."""

    announced = 0

    async def announce(self, version: str) -> str | None:
        self.announced += 1
        return await super().announce(version)


class AtOnce(MemoryChoice):
    """CURRENT is written before any worker can look at the choice, as where all of them are busy."""

    def __init__(self, store: Path):
        super().__init__()
        self._store = store

    async def write(self, choice: Choice) -> None:
        await super().write(choice)
        set_current(self._store, choice.version)


async def test_those_who_follow_an_activation_start_none_of_their_own(store: Path, catalogue: MemoryCatalogue) -> None:
    """CURRENT is written after the shared choice and is later, and yet no publication of its own."""
    choice, rollout = AtOnce(store), Counted()
    lives, other = (lives_of(store, catalogue, choice, rollout) for _ in range(2))
    async with lives.running(), other.running():
        await until(lambda: lives.version == other.version == "test-1")
        await asyncio.sleep(0.1)  # both were seen
        for number, version in enumerate(("test-2", "test-1", "test-2"), start=1):
            await lives.activate(version)
            await until(lambda version=version: other.version == version)
            assert rollout.announced == number


async def test_a_publication_brings_all_workers_along(store: Path, catalogue: MemoryCatalogue) -> None:
    choice, rollout = Held(), MemoryRollout()
    lives, other = (lives_of(store, catalogue, choice, rollout) for _ in range(2))
    async with lives.running(), other.running():
        await until(lambda: lives.version == other.version == "test-1")
        await asyncio.sleep(0.1)
        set_current(store, "test-2")
        await choice.reached.wait()
        assert lives.version == other.version == "test-1"
        choice.go_on.set()
        await until(lambda: lives.version == other.version == "test-2")


async def test_a_worker_that_cannot_load_a_bundle_holds_nobody_up(
    store: Path, catalogue: MemoryCatalogue, tmp_path_factory: pytest.TempPathFactory
) -> None:
    choice, rollout = MemoryChoice(), MemoryRollout()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(store / "test-1", elsewhere / "test-1")
    set_current(elsewhere, "test-1")
    os.utime(elsewhere / CURRENT, (100, 100))
    lives, other = (lives_of(folder, catalogue, choice, rollout) for folder in (store, elsewhere))
    async with lives.running(), other.running():
        await until(lambda: lives.version == other.version == "test-1")
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):  # less than its patience
            await lives.activate("test-2")
        await asyncio.sleep(0.1)
        assert (lives.version, other.version) == ("test-2", "test-1")


async def test_a_worker_that_hangs_is_waited_for_no_longer_than_patience_lasts(
    store: Path, catalogue: MemoryCatalogue
) -> None:
    rollout = MemoryRollout(clock=lambda: 0.0)  # for ever just seen
    await rollout.look("stuck")
    lives = lives_of(store, catalogue, rollout=rollout, patience=0.2)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        await lives.activate("test-2")
        assert lives.version == "test-2"


async def test_one_activation_at_a_time_and_one_that_was_abandoned_ends(
    store: Path, catalogue: MemoryCatalogue
) -> None:
    now = 0.0
    rollout = MemoryRollout(clock=lambda: now)
    lives = lives_of(store, catalogue, rollout=rollout)
    async with lives.running():
        await until(lambda: lives.version == "test-1")
        token = await rollout.announce("test-2")
        assert token is not None
        await rollout.invite(token)
        with pytest.raises(ActivationInProgress):
            await lives.activate("test-1")
        ready = lambda: lives._coming_following is not None  # noqa: E731
        await until(ready)
        assert lives.version == "test-1"
        now = ANNOUNCED + 1  # its worker has died
        await until(lambda: not ready())
        await lives.activate("test-2")
        assert lives.version == "test-2"
