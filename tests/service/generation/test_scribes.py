"""Whose language model writes: that of the bundle that answers, and what a change of bundle may not break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_bundle

from model_store.bundle import CURRENT, STYLE_LSTM, Bundle, set_current
from model_store.errors import InvalidBundle
from model_store.generation import TITLE_ENCODER
from service.choice import Choice, MemoryChoice
from service.errors import LanguageModelUnavailable, StoreUnavailable
from service.generation.fake import FakeTextGenerator
from service.generation.prompting import Prompting
from service.generation.scribes import Scribes
from service.generation.text import TextGenerator


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_bundle(tmp_path, version="test-1", generating=True)
    make_bundle(tmp_path, version="test-2", generating=True)
    make_bundle(tmp_path, version="without")
    return tmp_path


class Open:
    """Language models by version; of those in ``damaged`` none can be opened."""

    def __init__(self) -> None:
        self.texts: dict[str, FakeTextGenerator] = {}
        self.damaged: set[str] = set()
        self.opened: list[str] = []

    def __call__(self, bundle: Bundle, prompting: Prompting) -> TextGenerator:
        self.opened.append(bundle.version)
        if bundle.version in self.damaged:
            raise InvalidBundle("llm_embedded is damaged")
        return self.texts.setdefault(bundle.version, FakeTextGenerator())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)


def writes(scribes: Scribes) -> str | None:
    with scribes.current() as scribe:
        return None if scribe is None else scribe.prompting.bundle.partition("@")[0]


async def is_closed(text: FakeTextGenerator) -> bool:
    try:
        await text.ready()
    except LanguageModelUnavailable:
        return True
    return False


async def choose(choice: MemoryChoice, version: str, at: float = 4e9) -> None:
    await choice.write(Choice(version=version, chosen_at=at))


async def test_it_follows_what_answers_and_closes_what_nobody_uses(store: Path) -> None:
    open_text, choice = Open(), MemoryChoice()
    scribes = Scribes(store, choice, open_text, pause=0.01)
    assert (writes(scribes), scribes.version) == (None, None)
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
        with scribes.current() as busy:
            assert busy is not None
            await choose(choice, "test-2")
            await until(lambda: writes(scribes) == "test-2")
            await asyncio.sleep(0.05)
            await busy.text.ready()  # still in use, still open
        async with asyncio.timeout(10):
            while not await is_closed(open_text.texts["test-1"]):  # noqa: ASYNC110 - it looks from outside
                await asyncio.sleep(0.01)
        assert not await is_closed(open_text.texts["test-2"])
    assert await is_closed(open_text.texts["test-2"])
    assert open_text.opened == ["test-1", "test-2"]
    assert writes(scribes) is None


async def test_a_new_export_is_a_choice_too(store: Path) -> None:
    scribes = Scribes(store, MemoryChoice(), Open(), pause=0.01)
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
        set_current(store, "test-2")
        await until(lambda: writes(scribes) == "test-2")


async def test_a_bundle_without_a_language_model_generates_nothing(store: Path) -> None:
    choice = MemoryChoice()
    scribes = Scribes(store, choice, Open(), pause=0.01)
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
        await choose(choice, "without")
        await until(lambda: scribes.version == "without")
        assert writes(scribes) is None
        await choose(choice, "test-1", at=5e9)
        await until(lambda: writes(scribes) == "test-1")


async def test_a_damaged_bundle_is_refused_as_workers_refuse_it(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who answers stays with the bundle before, and so does who writes; it is told once."""
    choice = MemoryChoice()
    scribes = Scribes(store, choice, Open(), pause=0.01)
    path = store / "test-2" / STYLE_LSTM
    path.write_bytes(path.read_bytes()[:-1])
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
        await choose(choice, "test-2")
        await until(lambda: "bundle 'test-2' is refused" in caplog.text)
        await asyncio.sleep(0.1)
        assert writes(scribes) == "test-1"
    assert caplog.text.count("is refused") == 1


async def test_a_damaged_language_model_generates_nothing_and_hurts_nobody(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_text, choice = Open(), MemoryChoice()
    open_text.damaged.add("test-2")
    scribes = Scribes(store, choice, open_text, pause=0.01)
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
        await choose(choice, "test-2")
        await until(lambda: scribes.version == "test-2")
        await asyncio.sleep(0.1)
        assert writes(scribes) is None
    assert open_text.opened == ["test-1", "test-2"]
    assert "bundle 'test-2' generates nothing: llm_embedded is damaged" in caplog.text


async def test_a_language_model_that_is_away_is_waited_for_elsewhere(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_text = Open()
    open_text.texts["test-1"] = FakeTextGenerator(failure=LanguageModelUnavailable("not yet"))
    scribes = Scribes(store, MemoryChoice(), open_text, pause=0.01)
    async with scribes.running():
        await until(lambda: writes(scribes) == "test-1")
    assert "cannot write yet: not yet" in caplog.text


async def test_a_store_that_is_away_is_told_once(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryChoice):
        asked = 0

        async def read(self) -> Choice | None:
            self.asked += 1
            if self.asked < 5:
                raise StoreUnavailable("down")
            return await super().read()

    scribes = Scribes(store, Away(), Open(), pause=0.01)
    with caplog.at_level(logging.WARNING):
        async with scribes.running():
            await until(lambda: writes(scribes) == "test-1")
    assert caplog.text.count("cannot be told: down") == 1


async def test_a_store_without_bundles_is_waited_for(tmp_path: Path) -> None:
    scribes = Scribes(tmp_path / "store", MemoryChoice(), Open(), pause=0.01)
    async with scribes.running():
        await asyncio.sleep(0.05)
        assert writes(scribes) is None
        make_bundle(tmp_path / "store", generating=True)
        await until(lambda: writes(scribes) == "test-1")


async def test_prompts_that_cannot_be_written_generate_nothing(
    store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the golden cases do not see: here a file that goes between the check and the opening."""
    scribes = Scribes(store, MemoryChoice(), Open(), pause=0.01)
    check = "service.generation.scribes.golden.check"
    monkeypatch.setattr(check, lambda bundle: (bundle.folder / TITLE_ENCODER).unlink())
    async with scribes.running():
        await until(lambda: scribes.version == "test-1")
        assert writes(scribes) is None
    assert "bundle 'test-1' generates nothing" in caplog.text
    assert (store / CURRENT).read_text().strip() == "test-1"
