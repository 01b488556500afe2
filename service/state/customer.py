"""Records of one customer's state. Pure: nothing here knows where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store import MEMORY_SIZE
from model_store.history import Purchase
from model_store.records import Event, EventType

if TYPE_CHECKING:
    from service.generation.records import StoredGeneration

Float32 = NDArray[np.float32]

_LOGGED = frozenset({EventType.PURCHASE, EventType.RETURN})
SESSION_LENGTH = 50
"""Clicks and searches that a session keeps: the latest by (timestamp, event id)."""


class Revision(NamedTuple):
    """One content of one customer's log. Never repeats, not even when the log is erased and begun again.

    ``log`` names one life of the log: drawn at random when its first entry is added, 0 where there is no log.
    ``entries`` counts its purchases and returns; it only grows.
    """

    log: int
    entries: int

    def after(self, added: int) -> Revision:
        """The revision of the same log, ``added`` entries later."""
        return Revision(self.log, self.entries + added)


NO_LOG = Revision(0, 0)


@dataclass(frozen=True, eq=False)
class CustomerState:
    """What one bundle makes of one log: a cache, which can be derived again at any time.

    ``hidden`` and ``cell`` are float32 (256): the LSTM's memory after consuming purchases 1 … n-1 of the history, the
    time of purchase n included. ``pending`` is purchase n, whose Fashion DNA and time enter the next step (design §4);
    None where the history is empty, and the memory is then zero. ``purchased`` are the distinct articles of the
    history, those of ``skipped`` first, then in order of their latest purchase; ``returned`` those of the returns, in
    order of id. ``skipped``, in order of id, had no Fashion DNA in the bundle, so that the memory and ``pending`` know
    nothing of them.
    """

    bundle: str
    consumed: int
    hidden: Float32
    cell: Float32
    pending: Purchase | None
    purchased: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def knows_any(self) -> bool:
        """Whether any purchase or return is known."""
        return bool(self.purchased or self.returned or self.skipped) or self.pending is not None


def empty_state(bundle: str) -> CustomerState:
    """State of a customer without purchases."""
    return CustomerState(bundle, 0, np.zeros(MEMORY_SIZE, np.float32), np.zeros(MEMORY_SIZE, np.float32), None)


def _no_events() -> tuple[Event, ...]:
    return ()


def _no_generation() -> None:
    return None


class Packed(NamedTuple):
    """What is stored of a customer, byte for byte (``service.state.codec``); None for what is not."""

    state: bytes | None
    session: bytes | None
    generation: bytes | None


@dataclass(frozen=True, eq=False)
class CustomerView:
    """What one look at a customer brings: the state, the log's revision that it fits, session and generation.

    ``state`` is None where none is stored, whether or not there is a log, and ``revision`` is None with it. ``packed``:
    the bytes that it was read from, where it was read from bytes.
    """

    state: CustomerState | None = None
    revision: Revision | None = None
    load_session: Callable[[], tuple[Event, ...]] = field(default=_no_events, repr=False)
    load_generation: Callable[[], StoredGeneration | None] = field(default=_no_generation, repr=False)
    load_session_ids: Callable[[], tuple[str, ...]] | None = field(default=None, repr=False)
    packed: Packed | None = field(default=None, repr=False)

    def with_state(self, state: CustomerState, revision: Revision) -> CustomerView:
        """The same with another state, and the revision of the log that it was made for."""
        packed = None if self.packed is None else self.packed._replace(state=None)
        return replace(self, state=state, revision=revision, packed=packed)

    @cached_property
    def session(self) -> tuple[Event, ...]:
        """The latest ``SESSION_LENGTH`` clicks and searches, oldest first. Decoded when first asked for."""
        return self.load_session()

    @cached_property
    def session_ids(self) -> tuple[str, ...]:
        """Event ids of the session: cheaper than its events."""
        if self.load_session_ids is None or "session" in self.__dict__:
            return tuple(event.event_id for event in self.session)
        return self.load_session_ids()

    @cached_property
    def generation(self) -> StoredGeneration | None:
        """What the language model wrote last for this customer, whatever it reflects. Decoded when first asked for."""
        return self.load_generation()


@dataclass(frozen=True)
class CustomerLog:
    """All purchases and returns of a customer, in no particular order, and the revision that they make up."""

    events: tuple[Event, ...] = ()
    revision: Revision = NO_LOG

    @cached_property
    def event_ids(self) -> frozenset[str]:
        """Ids of the events."""
        return frozenset(event.event_id for event in self.events)


@dataclass(frozen=True)
class Addition:
    """Events of one customer to store, and the state to keep if they meet the log that the state was made for.

    ``expected`` is the log's revision that ``state`` builds on: it is stored only where the log still is at that
    revision and every purchase and return among ``events`` is new to it.
    """

    customer_id: str
    events: tuple[Event, ...]
    expected: Revision | None = None
    state: CustomerState | None = None

    @cached_property
    def logged(self) -> tuple[Event, ...]:
        """The purchases and returns."""
        return tuple(filter(in_log, self.events))

    @cached_property
    def seen(self) -> tuple[Event, ...]:
        """The clicks and searches."""
        return tuple(event for event in self.events if not in_log(event))

    def in_order(self, logged: Iterable[bool], seen: Iterable[bool]) -> tuple[bool, ...]:
        """Answers given for ``logged`` and for ``seen``, in the order of ``events``."""
        if not self.seen:
            return tuple(logged)
        logged, seen = iter(logged), iter(seen)
        return tuple(next(logged if in_log(event) else seen) for event in self.events)


@dataclass(frozen=True)
class Appended:
    """What became of an ``Addition``: ``added`` per event (False: its event_id was there), the log's revision since."""

    added: tuple[bool, ...]
    revision: Revision
    state_stored: bool


def in_log(event: Event) -> bool:
    """Whether an event belongs to the log (purchases and returns) or to the session (clicks and searches)."""
    return event.type in _LOGGED
