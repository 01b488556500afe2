"""Which bundle serves: one choice that all workers share, made by whoever activated last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.bundle import read_current
from service.state.connection import Client, translated_errors

CHOICE_KEY = "modiste:bundle"


class Choice(BaseModel):
    """A version, and when it was chosen (Unix seconds)."""

    model_config = ConfigDict(frozen=True)

    version: str
    chosen_at: float


class SharedChoice(Protocol):
    """Where the choice is kept. Both calls raise StoreUnavailable."""

    async def read(self) -> Choice | None:
        """The choice, or None where none was ever made."""
        ...

    async def write(self, choice: Choice) -> None:
        """Make a choice for all workers."""
        ...


class MemoryChoice:
    """A choice shared within one process."""

    def __init__(self) -> None:
        self._choice: Choice | None = None

    async def read(self) -> Choice | None:
        return self._choice

    async def write(self, choice: Choice) -> None:
        self._choice = choice


class RedisChoice:
    """A choice kept in Redis under ``modiste:bundle``, as JSON."""

    def __init__(self, client: Client):
        self._call: Callable[..., Any] = client.execute_command

    async def read(self) -> Choice | None:
        with translated_errors():
            content = await self._call("GET", CHOICE_KEY)
        try:
            return None if content is None else Choice.model_validate_json(content)
        except ValidationError:
            return None  # of a newer release; the next activation writes it anew

    async def write(self, choice: Choice) -> None:
        with translated_errors():
            await self._call("SET", CHOICE_KEY, orjson.dumps(choice.model_dump()))


def published(store: Path) -> Choice | None:
    """What CURRENT names, as a choice made when it was written. Raises InvalidBundle where it cannot be read."""
    found = read_current(store)
    return None if found is None else Choice(version=found[0], chosen_at=found[1])


def candidates(current: Choice | None, shared: Choice | None) -> list[Choice]:
    """What was published into the store and what workers share, the later one first: an export is a choice, too.

    ``current``: what is ``published``, read before ``shared``. Who activates writes the shared choice first and CURRENT
    after it: read the other way round, an activation in between would look like a publication.
    """
    choices = [choice for choice in (current, shared) if choice is not None]
    return sorted(choices, key=lambda choice: choice.chosen_at, reverse=True)
