"""What a language model wrote for a customer, and the mark that says of which customer: fresh or stale follows from it.

A generation is fresh where bundle and mark are those of the moment:

    stored is not None and (stored.bundle, stored.mark) == (bundle_stamp(manifest), view_mark(view, query))
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import orjson

from model_store.records import Event
from service.state.customer import NO_LOG, CustomerView, Revision

log = logging.getLogger(__name__)

RECORD_FORMAT = 1
_MARK_BYTES = 12


@dataclass(frozen=True)
class StoredGeneration:
    """One generation, as it is kept with its customer.

    ``bundle`` is ``engine.style.bundle_stamp`` of the bundle whose language model wrote it, ``mark`` what of the
    customer it reflects (``session_mark``), ``session_length`` the number of actions that its prompt held. The id is
    the model's word: it may be of no article at all. ``written_at`` (Unix seconds) is when the text was there,
    ``seconds`` how long before that the customer's events had been read.
    """

    bundle: str
    mark: str
    session_length: int
    article_id: str
    title: str
    written_at: float
    seconds: float

    @property
    def reflects(self) -> float:
        """The moment (Unix seconds) that it speaks of: when the customer's events were read."""
        return self.written_at - self.seconds


class Footing(NamedTuple):
    """What a generation stands on: the ``log`` (its id, 0 where there was none), and the latest event of the session.

    Where either is gone when the generation is to be stored, the customer was erased since.
    """

    log: int
    event_id: str


class GenerationRequest(NamedTuple):
    """Whom to write for; ``query``: what the customer searches at this very moment, where that is told apart."""

    customer_id: str
    query: str | None = None


def session_mark(revision: Revision | None, session: Sequence[Event], query: str | None = None) -> str:
    """What a generation reflects, in 24 characters: the log, the session's events, and the query that is searched now.

    Says nothing about the customer. ``revision`` is that of the log; None counts as no log.
    """
    return _mark(revision, (event.event_id for event in session), query)


def view_mark(view: CustomerView, query: str | None = None) -> str:
    """The ``session_mark`` of a view, without decoding the session's events: a fifth of the time."""
    return _mark(view.revision, view.session_ids, query)


def _mark(revision: Revision | None, event_ids: Iterable[str], query: str | None) -> str:
    """Parts are joined by NUL, which no id and no query can hold; a query begins with one more."""
    parts = [*map(str, revision or NO_LOG), *event_ids]
    if query is not None:
        parts.append(f"\0{query}")
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=_MARK_BYTES).hexdigest()


def pack_generation(generation: StoredGeneration) -> bytes:
    """A generation as JSON."""
    return orjson.dumps({"format": RECORD_FORMAT, **asdict(generation)})


def unpack_generation(packed: bytes | None) -> StoredGeneration | None:
    """What ``pack_generation`` wrote, or None where there is nothing, or nothing that this release can read."""
    if packed is None:
        return None
    try:
        fields = orjson.loads(packed)
        if fields.pop("format") != RECORD_FORMAT:
            return None
        return StoredGeneration(**fields)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        log.error("a stored generation cannot be read and counts as none")
        return None
